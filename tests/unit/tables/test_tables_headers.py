"""Headers as people write them: other capitals and blanks are understood, other names and separators are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from unival.errors import DataError
from unival.specs import get_spec
from unival.tables import Table, open_table

CAPTION, GROUNDING, VQA = (get_spec(name) for name in ("caption", "grounding", "vqa"))


def opened(path: Path, text: str, spec: object = CAPTION) -> Table:
    path.write_text(text)
    return open_table(str(path), spec.fields, spec.layout_name)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("t.csv", "Image,Caption"),
        ("t.csv", "IMAGE, caption "),
        ("t.csv", " image,caption"),
        ("t.tsv", "image\tCAPTION "),
    ],
)
def test_capitals_and_blanks(name: str, header: str, tmp_path: Path) -> None:
    row = opened(tmp_path / name, f"{header}\na.jpg{',' if name == 't.csv' else chr(9)}a dot\n")[0]
    assert (row["image"], row["caption"]) == ("a.jpg", "a dot")


def test_a_column_of_the_right_name_is_not_replaced(tmp_path: Path) -> None:
    row = opened(tmp_path / "t.csv", "Image,image,caption\nb.jpg,a.jpg,a dot\n")[0]
    assert (row["Image"], row["image"]) == ("b.jpg", "a.jpg")


REFUSED = {
    "file": ("t.csv", "file,caption\na.jpg,a\n", CAPTION, "lacks 'image'; it has 'file', 'caption'.*--columns"),
    "file beside others": ("t.csv", "file,caption,width,height,source\na.jpg,a,1,2,x\n", CAPTION, "lacks 'image'; it"),
    "usual names": ("t.csv", "filename,sentence,width,height,source\na.jpg,a,1,2,x\n", CAPTION,
                    "lacks 'image', 'caption'; it has 'filename'"),
    "hint for Excel": ("t.csv", "sep=,\nimage,caption\na.jpg,a\n", CAPTION, "tells Excel.*remove it"),
    "another hint": ("t.csv", "sep=;\nimage;caption\na.jpg;a\n", CAPTION, "tells Excel.*remove it"),
    "semicolons": ("t.csv", "image;caption\na.jpg;a\n", CAPTION, "separated by semicolons: save it with commas"),
    "commas in TSV": ("t.tsv", "image,caption\na.jpg,a\n", CAPTION, "separated by commas: save it with tabs"),
    "tabs in CSV": ("t.csv", "image\tcaption\na.jpg\ta\n", CAPTION, "separated by tabs"),
    "box": ("t.csv", "image,text,bbox\na.jpg,a,1\n", GROUNDING, "lacks 'box'"),
    "vqa": ("t.csv", "img,question,answer\na.jpg,a,1\n", VQA, "lacks 'image'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_header_lacks_is_named(case: str, tmp_path: Path) -> None:
    """The message was about column numbers of a reference file."""
    name, text, spec, message = REFUSED[case]
    with pytest.raises(DataError, match=rf"line 1: .*{message}"):
        opened(tmp_path / name, text, spec)


def test_rows_of_reference_files_are_no_headers(tmp_path: Path) -> None:
    row = "7\t9\timage\tobject\tAAAA" * 1
    table = opened(tmp_path / "t.tsv", f"{row}\n8\t9\tcaption\tx\tBBBB\n")
    assert [r["caption"] for r in table] == ["image", "caption"] and len(table) == 2
