"""WebDataset archives are tables that are read in place."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from unival.cli import main
from unival.errors import DataError
from unival.media import MediaError, MediaLoader
from unival.media import tar as archives
from unival.media.tar import Member
from unival.specs import get_spec
from unival.tables import open_table

LONG = "a-folder-whose-name-needs-a-header-of-its-own/" * 4


def picture(width: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 20), (width, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(count: int, first: int = 0, folder: str = "") -> list[tuple[str, bytes]]:
    found = []
    for n in range(first, first + count):
        found.append((f"{folder}{n:05}.png", picture(30 + n)))
        found.append((f"{folder}{n:05}.txt", f" caption {n}\n".encode()))
        found.append((f"{folder}{n:05}.json", json.dumps({"id": f"q{n}", "question": f"what {n}?"}).encode()))
    return found


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", LONG])
def test_rows_in_any_order(tmp_path: Path, form: int, folder: str) -> None:
    path = write(tmp_path / "a.tar", [("readme", b"no sample"), *samples(20, folder=folder)], form)
    table = open_table(path, get_spec("caption").fields)
    assert len(table) == 20
    archives._index.cache_clear()
    for number in (19, 0, 7, -2):
        row, real = table[number], number % 20
        assert row["caption"] == row["txt"] == f"caption {real}" and row["question"] == f"what {real}?"
        assert row["__key__"] == f"{folder}{real:05}" and row["id"] == f"q{real}"
        assert MediaLoader(table.media_root).image(row["image"]).width == 30 + real
        assert row.place == f"{path}, row {real + 1}"
    assert archives._index.cache_info().currsize == 0, (
        "media are read at their places, without an index of names"
    )
    assert MediaLoader().image(str(table[4]["image"])).width == 34, "the plain string means the same"
    copy = pickle.loads(pickle.dumps(table))
    assert dict(copy[5]) == dict(table[5]) and isinstance(copy[5]["image"], Member)
    assert table.matching({"caption": lambda v: v.endswith("7")}).tolist() == [7, 17]
    assert (tmp_path / "a.tar.idx").stat().st_size == 64 + 8 * 21


def test_shards_are_one_table_and_keys_may_repeat(tmp_path: Path) -> None:
    for shard in range(2):
        write(tmp_path / f"{shard:03}.tar", samples(3, folder="x/"))
    table = open_table(tmp_path / "{000..001}.tar", get_spec("caption").fields)
    assert len(table) == 6 and table[4].place.endswith("001.tar, row 2")
    described = open_table({"path": str(tmp_path / "*.tar"), "where": {"caption": "caption 2"}})
    assert [Path(row.path).name for row in described] == ["000.tar", "001.tar"]


def test_videos_sounds_and_other_members(tmp_path: Path) -> None:
    members = [
        ("1.mp4", b"clip"),
        ("1.cls", b"3"),
        ("1.npy", b"numbers"),
        ("2.left.flac", b"sound"),
        ("2.txt", b"rain"),
    ]
    table = open_table(write(tmp_path / "a.tar", members))
    first, second = table[0], table[1]
    assert (
        MediaLoader().open(first["video"]) == b"clip"
        and first["cls"] == "3"
        and first["mp4"] == first["video"]
    )
    assert MediaLoader().open(first["npy"]) == b"numbers"
    assert MediaLoader().open(second["audio"]) == b"sound" and second["caption"] == "rain"
    with pytest.raises(DataError, match=r"row 2, column 'video'"):
        second["video"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("1.png", b"x"), ("2.png", b"x"), ("1.txt", b"x")], "sample '1' do not stand together"),
        ([("readme", b"x")], "holds no samples"),
        ([("1.png", b"x"), ("1.json", b"{")], r"row 1: 1\.json is not valid JSON"),
        ([("1.png", b"x"), ("1.json", b"[1]")], "expected a JSON object"),
        ([("1.png", b"x"), ("1.txt", b"\xff")], r"row 1: 1\.txt is invalid UTF-8 at byte 1"),
    ],
)
def test_bad_archives_are_named(tmp_path: Path, members: list[tuple[str, bytes]], said: str) -> None:
    path = write(tmp_path / "bad.tar", members)
    with pytest.raises(DataError, match=said) as caught:
        open_table(path)
    assert str(path) in str(caught.value)


def test_cut_off_compressed_and_changed_archives(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", samples(5)).read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match="cut off"):
        open_table(tmp_path / "half.tar")
    (tmp_path / "text.tar").write_bytes(b"id\tcaption\n" * 100)
    with pytest.raises(DataError, match="not an uncompressed tar archive"):
        open_table(tmp_path / "text.tar")
    table = open_table(tmp_path / "a.tar")
    reference = table[4]["image"]
    (tmp_path / "a.tar").write_bytes(whole[: reference.offset + 10])
    with pytest.raises(DataError, match="changed while it was open"):
        table[0]
    with pytest.raises(MediaError, match=r"a\.tar/00004\.png: the archive ends after 10 of"):
        MediaLoader().image(reference)


def test_validate_show_and_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = samples(6)
    members[9] = (members[9][0], b"no picture")
    path = write(tmp_path / "a.tar", members)
    assert main(["data", "index", str(path)]) == 0 and "6 samples" in capsys.readouterr().out
    assert main(["data", "validate", str(path), "--task", "caption"]) == 1
    said = capsys.readouterr().out
    assert "6 rows of caption (image), 5 usable" in said and "5 .png" in said
    assert re.search(r"media: .*a\.tar, row 4, .*a\.tar/00003\.png: ", said)
    assert main(["data", "show", str(path), "--task", "caption", "--out", str(tmp_path / "rows.png")]) == 0
    assert Image.open(tmp_path / "rows.png").width > 300


def test_hidden_members_are_no_rows(tmp_path: Path) -> None:
    extra = [("._00000.png", b"x"), ("__MACOSX/._00000.txt", b"x"), (".cache/1.png", b"x")]
    assert len(open_table(write(tmp_path / "a.tar", [*extra, *samples(3)]))) == 3


def test_names_with_dots_are_named(tmp_path: Path) -> None:
    """Two samples of "song 0" would be one row with the first one's picture."""
    members = [
        (f"song 0.{n}.{end}", data) for n in range(2) for end, data in (("png", picture(30)), ("txt", b"a"))
    ]
    with pytest.raises(DataError, match=r"'song 0' up to its first dot.*unival data convert"):
        open_table(write(tmp_path / "a.tar", members))[0]
    views = [("x.left.png", picture(30)), ("x.right.png", picture(31)), ("x.txt", b"a")]
    row = open_table(write(tmp_path / "b.tar", views))[0]
    assert row["caption"] == "a" and {"left.png", "right.png"} <= set(row)
