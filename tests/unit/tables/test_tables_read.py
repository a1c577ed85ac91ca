"""Reading tables: formats, headers, layouts, and what is harmless in a file."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unival.errors import ConfigError, DataError
from unival.tables import ConcatTable, get_layout, open_table
from unival.tables import index as index_module

HEADED = "id\timage\tcaption\n1\ta.jpg\ta black dog\n2\tb.jpg\ttwo “cats”\n"


def write(folder: Path, text: str | bytes, name: str = "t.tsv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return str(path)


def test_rows_of_a_headed_table(tmp_path: Path) -> None:
    path = write(tmp_path, HEADED)
    table = open_table(path, fields=("image", "caption"))
    assert table.columns == ("id", "image", "caption") and len(table) == 2 and table.path == path
    row = table[-1]
    assert dict(row) == {"id": "2", "image": "b.jpg", "caption": "two “cats”"}
    assert (row.path, row.line, row.media_root) == (path, 3, str(tmp_path))
    assert row.get("objects", "none") == "none" and "image" in row and "objects" not in row
    assert [r["id"] for r in table] == ["1", "2"]
    with pytest.raises(IndexError):
        table[2]


@pytest.mark.parametrize(
    "text",
    [
        HEADED.removesuffix("\n"),
        HEADED.replace("\n", "\r\n"),
        HEADED.replace("\n", "\r\n").removesuffix("\n"),
        "\ufeff" + HEADED,
        HEADED + "\n\r\n\n",
    ],
    ids=["no final newline", "CRLF", "final CR only", "BOM", "empty last lines"],
)
@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
def test_harmless_variants_read_alike(tmp_path: Path, text: str, name: str) -> None:
    text = text.replace("\t", ",") if name == "t.csv" else text
    table = open_table(write(tmp_path, text, name))
    assert [(*r.values(), r.line) for r in table] == [
        ("1", "a.jpg", "a black dog", 2),
        ("2", "b.jpg", "two “cats”", 3),
    ]


def test_only_newlines_end_a_row_and_quotes_are_text_in_tsv(tmp_path: Path) -> None:
    caption = 'a\u2028b\x0bc\x85d "quoted" ,'
    table = open_table(write(tmp_path, f'id\tcaption\n1\t{caption}\n2\t"\n'))
    assert [r["caption"] for r in table] == [caption, '"']


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            *[st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"]), max_size=8)]
            * 2
        ),
        min_size=1,
        max_size=12,
    ),
    chunk=st.sampled_from([1, 2, 3, 7, 1 << 20]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_round_trip_whatever_the_chunk(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], chunk: int, ending: str
) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_CHUNK", chunk)
        table = open_table(write(tmp_path_factory.mktemp("csv"), buffer.getvalue(), "t.csv"))
        assert [(r["a"], r["b"]) for r in table] == rows
    lines = [2]
    for cells in rows:
        lines.append(lines[-1] + 1 + sum(cell.count("\n") for cell in cells))
    assert [r.line for r in table] == lines[:-1]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.text(st.characters(exclude_characters="\0\n\r\t\ufeff", exclude_categories=["Cs"])), min_size=1
    ),
    chunk=st.sampled_from([1, 2, 5, 1 << 20]),
)
def test_tsv_round_trip_whatever_the_chunk(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], chunk: int
) -> None:
    text = "".join(f"{i}\t{row}\n" for i, row in enumerate(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_CHUNK", chunk)
        table = open_table(write(tmp_path_factory.mktemp("tsv"), text), header=False)
    assert [(r["0"], r["1"], r.line) for r in table] == [(str(i), row, i + 1) for i, row in enumerate(rows)]


def test_unquoted_and_quoted_csv_with_large_field(tmp_path: Path) -> None:
    image = "A" * 300_000  # more than the csv module's own limit of 131072
    table = open_table(write(tmp_path, f'id,caption,image\n1,"a, b\nc ""d""",{image}\n2,,x\n', "t.csv"))
    assert dict(table[0]) == {"id": "1", "caption": 'a, b\nc "d"', "image": image}
    assert (table[1]["caption"], table[1].line) == ("", 4)


def test_jsonl_keeps_python_values(tmp_path: Path) -> None:
    text = '{"id": 7, "caption": ["a dog", "a black dog"], "box": [1.5, 2, 3, 4]}\r\n'
    text += '{"id": "8", "extra": null}\n'
    table = open_table(write(tmp_path, text, "t.jsonl"), fields=("id",))
    assert table.columns == ("id", "caption", "box")
    assert table[0]["caption"] == ["a dog", "a black dog"] and table[0]["box"] == [1.5, 2, 3, 4]
    assert table[0]["id"] == 7 and table[1]["extra"] is None
    with pytest.raises(DataError, match=r"t\.jsonl, line 2, column 'caption': .*'id', 'extra'"):
        table[1]["caption"]


def test_reference_layout_by_position(tmp_path: Path) -> None:
    path = write(tmp_path, "1\t17\ta dog\tdog&&grass\tx.jpg\n2\t18\ta cat\t\ty.jpg\n")
    table = open_table(path, fields=("image", "caption"), layout="caption")
    assert len(table) == 2 and dict(table[0]) == {"id": "1", "image": "x.jpg", "caption": "a dog"}
    assert open_table(path, layout=get_layout("caption"), selected_cols="1,4,2")[1]["id"] == "18"
    assert open_table(path, layout="caption", selected_cols=[1, 4, 2])[0].line == 1


@pytest.mark.parametrize(
    ("name", "selected", "expected"),
    [
        ("vqa", "0,5,2,3,4", {"id": "c0", "image": "c5", "question": "c2", "answer": "c3", "objects": "c4"}),
        ("grounding", None, {"id": "c0", "image": "c4", "text": "c2", "box": "c3"}),
        ("image_gen", None, {"id": "c0", "text": "c2", "codes": "c1"}),
        ("image_gen", "0,2", {"id": "c0", "text": "c2"}),
        ("image_gen", "0,3,2,1", {"id": "c0", "image": "c3", "text": "c2", "codes": "c1"}),
        ("entailment", None, {"id": "c0", "image": "c2", "hypothesis": "c3", "caption": "c4", "label": "c5"}),
    ],
)
def test_layouts(tmp_path: Path, name: str, selected: str | None, expected: dict[str, str]) -> None:
    path = write(tmp_path, "\t".join(f"c{i}" for i in range(8)) + "\n")
    assert dict(open_table(path, layout=name, selected_cols=selected)[0]) == expected


def test_header_is_found_although_a_layout_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, HEADED)
    assert [r["caption"] for r in open_table(path, layout="caption")] == ["a black dog", "two “cats”"]
    assert len(open_table(path, fields=("image",), layout="caption")) == 2
    assert len(open_table(path, header=False)) == 3  # the explicit word wins
    path = write(tmp_path, "u\tv\tw\n1\t2\t3\n", "n.tsv")
    numbered = open_table(path, ("text",), layout="image_gen", selected_cols="0,2,1", header=True)
    with pytest.raises(DataError, match=r"column 'text'.*'u', 'v', 'w'"):
        open_table(path, ("text",), layout="image_gen", header=True)
    assert dict(numbered[0]) == {"id": "1", "text": "3", "codes": "2", "u": "1", "v": "2", "w": "3"}


class Field:
    def __init__(self, name: str, required: bool) -> None:
        self.name, self.required = name, required


def test_header_of_a_task_that_requires_nothing(tmp_path: Path) -> None:
    fields = [Field(name, False) for name in ("image", "caption", "type", "media")]
    named = open_table(write(tmp_path, "image\tcaption\na.jpg\ta dog\n"), fields, layout="pretrain")
    assert [dict(r) for r in named] == [{"image": "a.jpg", "caption": "a dog"}]
    rows = "1\ta.jpg\ta dog\t\t\t\tcoco\tcaption\n" * 2  # the last cell is also a field's name
    table = open_table(write(tmp_path, rows, "reference.tsv"), fields, layout="pretrain")
    assert len(table) == 2 and (table[0]["media"], table[0]["type"]) == ("a.jpg", "caption")


def test_half_a_header_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "id\timage\tcaptoin\n1\ta.jpg\ta dog\n")
    with pytest.raises(DataError, match=r"line 1: .*looks like a header.*lacks 'caption'"):
        open_table(path, layout="caption")


def test_selection_errors(tmp_path: Path) -> None:
    path = write(tmp_path, "1\t2\t3\n")
    with pytest.raises(DataError, match=r"needs 5 columns .*has 3"):
        open_table(path, layout="caption")
    with pytest.raises(ConfigError, match="picks 2 columns; this layout takes 3"):
        open_table(path, layout="caption", selected_cols="0,1")
    with pytest.raises(ConfigError, match="such as '0,4,2'"):
        open_table(path, layout="caption", selected_cols="0;1")
    with pytest.raises(ConfigError, match="needs a layout"):
        open_table(path, selected_cols="0,1")
    with pytest.raises(ConfigError, match="Did you mean 'caption'"):
        open_table(path, layout="captoin")


def test_concat(tmp_path: Path) -> None:
    one = open_table(write(tmp_path, HEADED))
    two = open_table(write(tmp_path, '{"caption": "c", "id": 3}\n', "u.jsonl"), media_root="/elsewhere")
    both = ConcatTable([one, two, one])
    assert both.columns == ("id", "caption") and both.media_root is None
    assert [r["id"] for r in both] == ["1", "2", 3, "1", "2"]
    assert both[2].media_root == "/elsewhere" and both[2].line == 1 and both[-1].line == 3
    with pytest.raises(ConfigError, match="at least one"):
        ConcatTable([])
    assert [r["id"] for r in pickle.loads(pickle.dumps(both))] == ["1", "2", 3, "1", "2"]
