"""Every kind of bad file is one clear DataError that names file, line and remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unival.errors import ConfigError, DataError
from unival.tables import base, open_table


def write(folder: Path, data: bytes, name: str = "t.tsv") -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.tsv", b"", r"t\.tsv: the file is empty"),
        ("t.tsv", b"\n\r\n\n", r"t\.tsv: the file is empty"),
        ("t.tsv", b"\xef\xbb\xbf", r"t\.tsv: the file is empty"),
        ("t.jsonl", b"", r"t\.jsonl: the file is empty"),
        ("t.tsv", b"id\tcaption\n", r"line 1: the file holds the header 'id', 'caption' and no rows"),
        ("t.csv", b"id,caption\r\n", r"line 1: the file holds the header"),
        ("t.tsv", b"id\tid\n1\t2\n", r"line 1, column 'id': columns 1 and 2 have the same name"),
        ("t.tsv", "id\tcaption\n".encode("utf-16"), r"line 1: is UTF-16 text; save it as UTF-8"),
        ("t.csv", b'id,caption\n1,ok\n2,5" pipe\n', r"line 3: a quote inside an unquoted CSV field"),
        ("t.csv", b'id,caption\n1,a\n2,"open\n3,b\n4,c\n', r"line 3: .*opens a quote that is never closed"),
        ("t.tsv", b"\0\0\n", r"line 1: NUL byte at byte 1"),
    ],
)
def test_refused_when_opened(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_table(write(tmp_path, data, name))


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        (
            "t.tsv",
            b"2\ta tab\there",
            r"line 3: expected 2 columns \(as in line 1\), found 3: a tab inside a text",
        ),
        ("t.tsv", b"2", r"line 3: expected 2 columns .* found 1: a cell is missing"),
        ("t.tsv", b"", r"line 3: expected 2 columns .* found 1: the line is empty"),
        (
            "t.tsv",
            b"2\tcaf\xe9 x",
            r"line 3: invalid UTF-8: byte 0xe9 at byte 6 of the row \(offset 24 of the file\)",
        ),
        ("t.tsv", b"2\ta\0b", r"line 3: NUL byte at byte 4 of the row"),
        ("t.csv", b"2,a,b", r"line 3: expected 2 columns .* found 3: a comma inside a text.*quotes"),
        ("t.csv", b"", r"line 3: expected 2 columns .* found 0: the line is empty"),
        ("t.csv", b'2,"a"b', r"line 3: not valid CSV: .*a quote is written twice"),
        ("t.csv", b"2,a\rb", r"line 3: not valid CSV"),
        ("t.csv", b"2,caf\xe9", r"line 3: invalid UTF-8"),
        ("t.jsonl", b'{"id": 2, "caption": "a}', r"line 3: not valid JSON: .* at character 22"),
        ("t.jsonl", b"", r"line 3: the line is empty"),
        ("t.jsonl", b"[1, 2]", r"line 3: expected an object .* found list '\[1, 2\]'"),
        ("t.jsonl", b"[" * 100_000, r"line 3: not usable JSON"),
        ("t.jsonl", b'{"id": ' + b"9" * 10_000 + b"}", r"line 3: not usable JSON"),
        ("t.jsonl", b'{"id": "\xff"}', r"line 3: invalid UTF-8: byte 0xff at byte 9"),
    ],
)
def test_bad_row_is_named_and_others_still_read(tmp_path: Path, name: str, bad: bytes, message: str) -> None:
    head, good, last = {
        "t.tsv": (b"id\tcaption", b"1\ta dog", b"3\ta cat"),
        "t.csv": (b"id,caption", b"1,a dog", b"3,a cat"),
        "t.jsonl": (
            b'{"id": 0, "caption": "x"}',
            b'{"id": 1, "caption": "a dog"}',
            b'{"id": 3, "caption": "a cat"}',
        ),
    }[name]
    table = open_table(write(tmp_path, b"\n".join([head, good, bad, last]), name))
    assert table[-1]["caption"] == "a cat" and table[-3]["caption"] == "a dog"
    with pytest.raises(DataError, match=message):
        table[-2]
    with pytest.raises(DataError, match=message):  # and the same while filtering
        table.matching({"id": lambda value: True})


def test_absent_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.tsv: there is no such file; check the path"):
        open_table(tmp_path / "no.tsv")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        open_table(tmp_path / "folder.tsv")
    (tmp_path / "link.tsv").symlink_to("nowhere")
    with pytest.raises(DataError, match="no such file"):
        open_table(tmp_path / "link.tsv")
    with pytest.raises(ConfigError, match="'xlsx' is not a table format"):
        open_table(tmp_path / "t.xlsx")
    with pytest.raises(ConfigError, match="decompress the file first"):
        open_table(tmp_path / "t.tsv.gz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, b"a\n1\n")
    os.chmod(path, 0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        open_table(path)


def test_missing_column(tmp_path: Path) -> None:
    path = write(tmp_path, b"id\tcaptoin\n1\ta dog\n")
    with pytest.raises(
        DataError, match=r"line 1, column 'caption': .*'id', 'captoin'\. Did you mean 'captoin'"
    ):
        open_table(path, fields=("id", "caption"))
    with pytest.raises(DataError, match=r"t\.tsv, line 2, column 'image': .*'id', 'captoin'"):
        open_table(path)[0]["image"]


def test_huge_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = b"A" * 9_000_000
    path = write(tmp_path, b"id\timage\n1\tx\n2\t" + image + b"\n3\ty\n")
    table = open_table(path)
    assert len(table[1]["image"]) == len(image) and table[2]["image"] == "y"
    assert table.matching({"image": lambda value: len(value) == 1}).tolist() == [0, 2]
    monkeypatch.setattr(base, "MAX_RECORD_BYTES", 1_000_000)
    with pytest.raises(DataError, match="line 3: the row has 9000003 bytes, the limit is 1000000"):
        table[1]
    assert table[2]["image"] == "y"


def test_file_without_line_breaks_is_not_loaded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_RECORD_BYTES", 1_000_000)
    with pytest.raises(
        DataError, match=r"line 1: the row has 5000000 bytes.*check that the file is a text table"
    ):
        open_table(write(tmp_path, b"x" * 5_000_000))
