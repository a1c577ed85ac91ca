"""Cells of scored files: what stands in them is scored, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unival.cli import main
from unival.errors import DataError
from unival.metrics import io

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c"
KEPT = {
    "quotes in TSV": ("t.tsv", 'id\tcaption\n1\t"a red square\n2\ta 5" dot\n3\tsaid "so"\n'),
    "separators in TSV": ("t.tsv", f"id\tcaption\n1\t{SEPARATORS}\n2\tb\n"),
    "separators in CSV": ("t.csv", f"id,caption\n1,a{SEPARATORS}b\n2,b\n"),
    "CRLF": ("t.tsv", "id\tcaption\r\n1\ta\r\n\r\n2\tb\r\n"),
    "carriage returns alone": ("t.csv", "id,caption\r1,a\r2,b\r"),
    "quoted line break": ("t.csv", 'id,caption\n1,"a\nb, ""c"""\n2,d\n'),
    "commas at line ends": ("t.csv", "id,caption,,\n1,a,,\n2,b,,\n"),
    "blanks in the header": ("t.csv", "id, caption\n1,a\n2,b\n"),
    "base64": ("t.tsv", f"id\timage\tcaption\n1\t{'A' * 200_000}\ta\n2\tx\tb\n"),
    "base64 in CSV": ("t.csv", f"id,image,caption\n1,{'A' * 200_000},a\n2,x,b\n"),
    "BOM": ("t.csv", "\ufeffid,caption\n1,a\n2,b\n"),
}


@pytest.mark.parametrize("name", KEPT)
def test_cells_that_count(name: str, tmp_path: Path) -> None:
    file, text = KEPT[name]
    (tmp_path / file).write_bytes(text.encode())
    found = io.read_predictions(tmp_path / file, "caption")
    assert list(found) == ["1", "2", "3"][: len(found)] and len(found) == (3 if "quotes in" in name else 2)
    if name == "quotes in TSV":
        assert found == {"1": '"a red square', "2": 'a 5" dot', "3": 'said "so"'}
    if name == "quoted line break":
        assert found["1"] == 'a\nb, "c"'
    if "separators" in name:
        assert SEPARATORS in found["1"]


REFUSED = {
    "comma": ("t.csv", "id,caption\n1,a\n2,a red square, left\n", "line 3.*expected 2 cells.*found 3.*quotes"),
    "comma after lines": ("t.csv", 'id,caption\n1,"a\nb"\n2,a,b\n', "line 4.*found 3"),
    "tab": ("t.tsv", "id\tcaption\n1\ta\tb\n", "line 2.*a tab inside a text"),
    "missing cell": ("t.tsv", "id\tcaption\n1\ta\n2\n", "line 3.*found 1: a cell is missing"),
    "open quote": ("t.csv", 'id,caption\n1,a\n2,"a\n3,b\n', "line 3.*not valid CSV"),
    "text behind a quote": ("t.csv", 'id,caption\n1,"a" b\n', "line 2.*not valid CSV"),
    "hint for Excel": ("t.csv", "sep=,\nid,caption\n1,a\n", "line 1.*tells Excel"),
    "semicolons": ("t.csv", "id;caption\n1;a\n", "line 1.*separated by semicolons: save the file with commas"),
    "tabs in csv": ("t.csv", "id\tcaption\n1\ta\n", "separated by tabs"),
    "commas in tsv": ("t.tsv", "id,caption\n1,a\n", "separated by commas: save the file with tabs"),
    "column twice": ("t.csv", "id,caption,caption\n1,a,b\n", "line 1, column 'caption': two columns"),
    "nan": ("t.jsonl", '{"id": 1, "caption": NaN}\n{"id": 2, "caption": "a"}\n', "line 1.*'nan' .float., not text"),
    "null": ("t.jsonl", '{"id": 1, "caption": "a"}\n{"id": 2, "caption": null}\n', "line 2.*NoneType"),
    "true": ("t.json", '[{"id": 1, "caption": true}]', "of id 1 is 'True'"),
    "object": ("t.json", '[{"id": 1, "caption": {"en": "a"}}]', "not text"),
    "list": ("t.json", '[{"id": 1, "prediction": ["a"]}]', "not text"),
    "an id twice": ("t.json", '{"a": "x", "b": "y", "a": "z"}', "the key 'a' stands twice"),
    "deep": ("t.json", "[" * 100_000, "not usable JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_cells_that_would_be_cut_or_guessed_are_refused(name: str, tmp_path: Path) -> None:
    """They were cut at the comma, swallowed by a quote, or scored as the text of a Python value."""
    file, text, expected = REFUSED[name]
    (tmp_path / file).write_bytes(text.encode())
    with pytest.raises(DataError, match=expected):
        io.read_predictions(tmp_path / file, "caption")


@pytest.mark.parametrize("value", ["NaN", "null", "true", '[{"raw": "a"}]', "[NaN]", '["a", null]'])
def test_references_that_are_no_text(value: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(f'{{"id": 1, "caption": {value}}}\n{{"id": 2, "caption": "b"}}\n')
    with pytest.raises(DataError, match=r"r\.jsonl, line 1"):
        io.read_references(tmp_path / "r.jsonl", "caption")


@pytest.mark.parametrize("value", ["NaN", "true", "null"])
def test_answers_that_are_none(value: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(f'{{"id": 1, "answer": {value}}}\n{{"id": 2, "answer": "b"}}\n')
    with pytest.raises(DataError, match=r"r\.jsonl, line 1"):
        io.read_references(tmp_path / "r.jsonl", "vqa")


def test_a_quote_does_not_swallow_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same quirk on both sides: 4 of 6 items were scored without a word."""
    rows = ["id\tcaption", *(f"{n}\t{chr(34) if n in (2, 4) else ''}a red square" for n in range(6))]
    for name in ("p.tsv", "r.tsv"):
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    files = [str(tmp_path / name) for name in ("p.tsv", "r.tsv")]
    assert main(["score", *files, "--task", "caption", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 6


def test_shares_beside_pixels(tmp_path: Path) -> None:
    from unival.metrics import box_accuracy

    pixels = {"a": (10, 20, 60, 90), "b": (0, 0, 1, 1)}
    shares = {"a": (0.1, 0.2, 0.6, 0.9), "b": (0.0, 0.0, 0.5, 1.0)}
    for sides, which in (((shares, pixels), "predicted"), ((pixels, shares), "reference")):
        with pytest.raises(DataError, match=f"all {which} boxes lie in 0..1.*width"):
            box_accuracy(*sides)
    assert box_accuracy(shares, shares).corpus["acc@0.5"] == 1.0
    assert box_accuracy({"a": (0, 0, 0, 0), "b": (0, 0, 1, 1)}, pixels).corpus["acc@0.5"] == 0.5


@pytest.mark.parametrize("images", [[{"id": {}}], [{"id": None}], [3], {"a": 1}])
def test_images_without_an_id(images: object, tmp_path: Path) -> None:
    content = {"images": images, "annotations": [{"image_id": 0, "id": 0, "caption": "a"}]}
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="image"):
        io.read_references(tmp_path / "r.json", "caption")
