"""Parquet, Arrow and saved data sets are tables like any other: rows, places, media, checks."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unival.cli import main
from unival.core.provenance import table_hash
from unival.errors import DataError
from unival.media import MediaError, MediaLoader, columnar
from unival.media.columnar import open_columnar
from unival.specs import get_spec
from unival.tables import Table, open_table

pa = pytest.importorskip("pyarrow")
parquet, feather = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.feather")

ROWS, GROUP = 30, 7
HUGGING_FACE = b'{"info": {"features": {"label": {"names": ["yes", "no", "maybe"], "_type": "ClassLabel"}}}}'


def picture(width: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 20), (width, 0, 0)).save(file, "PNG")
    return file.getvalue()


def contents(rows: int = ROWS) -> Any:
    """Rows as Hugging Face's datasets writes them; the medium of every tenth is a path."""
    images = [
        {"bytes": None, "path": "kept.png"} if n % 10 == 9 else {"bytes": picture(30 + n), "path": f"{n}.png"}
        for n in range(rows)
    ]
    table = pa.table(
        {
            "image": images,
            "captions": [[f"a {n}", f"b {n}"] for n in range(rows)],
            "label": [n % 3 for n in range(rows)],
            "split": ["train" if n < 20 else "val" for n in range(rows)],
        }
    )
    return table.replace_schema_metadata({b"huggingface": HUGGING_FACE})


def write(kind: str, folder: Path) -> Path:
    table = contents()
    (folder / "kept.png").write_bytes(picture(99))
    path = (
        folder / f"{kind}.{'parquet' if kind == 'parquet' else 'feather' if kind == 'feather' else 'arrow'}"
    )
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=GROUP)
    elif kind in ("feather", "file"):
        feather.write_feather(
            table, path, compression="lz4" if kind == "feather" else "uncompressed", chunksize=GROUP
        )
    else:
        if kind == "dictionary":
            place = table.schema.get_field_index("split")
            table = table.set_column(place, "split", table["split"].dictionary_encode())
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=GROUP)
    return path


KINDS = ("parquet", "feather", "file", "stream", "dictionary")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("columnar")
    return {kind: write(kind, folder) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_media_and_places(files: dict[str, Path], kind: str) -> None:
    table = open_table(files[kind], ("image", "captions"))
    assert len(table) == ROWS and table.columns == ("image", "captions", "label", "split")
    media = MediaLoader(table.media_root)
    for number in (29, 0, 13, -1, 8):  # any order, across groups
        row = table[number]
        real = number % ROWS
        assert row["captions"] == [f"a {real}", f"b {real}"] and row["split"] in ("train", "val")
        assert row["label"] == ("yes", "no", "maybe")[real % 3]
        assert media.image(row["image"]).width == (99 if real % 10 == 9 else 30 + real)
        assert row.place == f"{files[kind]}, row {real + 1}"
    with pytest.raises(IndexError):
        table[ROWS]
    assert table.matching({"label": lambda v: v == "no", "split": lambda v: v == "val"}).tolist() == [
        22,
        25,
        28,
    ]
    with pytest.raises(DataError, match=r"row 1, column 'lable'.*Did you mean 'label'"):
        table.matching({"lable": bool})
    copy = pickle.loads(pickle.dumps(table))
    assert dict(copy[5]) == dict(table[5])


@pytest.mark.parametrize("kind", ["parquet", "stream"])
def test_a_description_reads_it(files: dict[str, Path], kind: str) -> None:
    described = open_table(
        {"path": str(files[kind]), "where": {"split": "val"}, "fields": {"caption": "captions"}},
        get_spec("caption").fields,
    )
    assert len(described) == 10 and described[0]["caption"] == ["a 20", "b 20"]
    assert described.files == (str(files[kind]),)


def _read(table: Table, numbers: list[int], out: Any) -> None:
    media = MediaLoader(table.media_root)
    out.put([media.image(table[n]["image"]).width for n in numbers])


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_forked_workers_read_what_their_parent_opened(files: dict[str, Path], kind: str) -> None:
    table = open_table(files[kind])
    table[3]
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    worker = context.Process(target=_read, args=(table, [0, 28, 3], out))
    worker.start()
    assert out.get(timeout=60) == [30, 58, 33]
    worker.join(60)
    assert worker.exitcode == 0


def test_several_files_are_one_table(tmp_path: Path) -> None:
    for number in range(3):
        parquet.write_table(contents(4), tmp_path / f"train-{number:03}.parquet")
    for name in ("train-*.parquet", "train-{000..002}.parquet"):
        table = open_table(tmp_path / name, ("image", "captions"))
        assert len(table) == 12 and table[9].place == f"{tmp_path / 'train-002.parquet'}, row 2"
        assert len(table.files) == 3 and len(table_hash(table.path, table.files)) == 64
        assert MediaLoader(table.media_root).image(table[9]["image"]).width == 31
    with pytest.raises(DataError, match="no file matches"):
        open_table(tmp_path / "test-*.parquet")


def test_saved_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    images = [{"bytes": picture(30 + n), "path": None} for n in range(10)]
    made = datasets.Dataset.from_dict(
        {"image": images, "caption": [f"c {n}" for n in range(10)], "label": [n % 2 for n in range(10)]},
        features,
    )
    made.save_to_disk(tmp_path / "one", num_shards=2)
    made.select([7, 2]).save_to_disk(tmp_path / "picked")
    datasets.DatasetDict(train=made, test=made).save_to_disk(tmp_path / "splits")
    made.to_parquet(tmp_path / "one.parquet", batch_size=4)
    for name, expected in (("one", list(range(10))), ("picked", [7, 2]), ("splits/test", list(range(10)))):
        table = open_table(tmp_path / name, get_spec("caption").fields)
        assert [row["caption"] for row in table] == [f"c {n}" for n in expected]
        assert [MediaLoader(table.media_root).image(r["image"]).width for r in table] == [
            30 + n for n in expected
        ]
    assert [row["label"] for row in open_table(tmp_path / "one.parquet")] == list("ab" * 5)
    with pytest.raises(DataError, match=r"several splits; name one: .*train, .*test"):
        open_table(tmp_path / "splits")
    with pytest.raises(
        DataError, match=r"is a folder, not a regular file, and none that datasets\.save_to_disk wrote"
    ):
        open_table(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_cut_off_files_are_refused(files: dict[str, Path], kind: str, tmp_path: Path) -> None:
    whole = files[kind].read_bytes()
    for name, data in (("half", whole[: len(whole) // 2]), ("empty", b""), ("text", b"id\tcaption\n" * 40)):
        path = tmp_path / f"{name}{files[kind].suffix}"
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"is cut off|is empty"):
            open_table(path)
    with pytest.raises(DataError, match="no such file"):
        open_table(tmp_path / f"absent{files[kind].suffix}")


def test_a_damaged_row_group_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(contents(), path, row_group_size=GROUP, compression="zstd")
    column = parquet.ParquetFile(path).metadata.row_group(2).column(2)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = os.urandom(column.total_compressed_size)
    path.write_bytes(data)
    table = open_table(path)
    assert table[0]["captions"] == ["a 0", "b 0"] and table[29]["captions"] == ["a 29", "b 29"]
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}, row 15: rows 15 to 21 cannot be read"):
        table[16]


def test_media_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pair = [{"bytes": picture(30), "path": None}, {"bytes": picture(31), "path": None}]
    rows = {
        "image": [{"bytes": None, "path": None}, {"bytes": b"no picture", "path": "x.png"}],
        "images": [pair, pair[1:]],
        "raw": [picture(40), picture(41)],
    }
    parquet.write_table(pa.table(rows), path)
    table, media = open_table(path), MediaLoader()
    with pytest.raises(MediaError, match=r"a\.parquet/0/image: holds neither content nor a path"):
        media.image(table[0]["image"])
    with pytest.raises(MediaError, match=r"a\.parquet/1/image: "):
        media.image(table[1]["image"])
    with pytest.raises(MediaError, match="holds 2 media, one was expected"):
        media.image(table[0]["images"])
    assert media.image(table[1]["images"]).width == 31 and media.image(table[1]["raw"]).width == 41
    for reference, said in ((f"{path}/9/image", "has 2 rows"), (f"{path}/0/picture", "no such column")):
        with pytest.raises(MediaError, match=said):
            media.image(reference)


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(contents(4), path)
    table = open_table(path)
    parquet.write_table(contents(5), path)
    with pytest.raises(DataError, match="changed while it was open"):
        table[0]


def test_large_row_groups_of_media_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("unival.tables.columnar.LARGE", 1 << 20)
    parquet.write_table(
        pa.table({"image": [os.urandom(1 << 18)] * 8}), tmp_path / "a.parquet", use_dictionary=False
    )
    open_table(tmp_path / "a.parquet")
    assert "2 MB of its row group" in caplog.text
    caplog.clear()
    parquet.write_table(pa.table({"text": [os.urandom(1 << 18).hex()] * 8}), tmp_path / "b.parquet")
    open_table(tmp_path / "b.parquet")
    assert not caplog.text


def test_reading_in_order_reads_a_block_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "KEPT_BYTES", 1)  # not even one block fits
    parquet.write_table(contents(), tmp_path / "a.parquet", row_group_size=GROUP)
    table, read = open_table(tmp_path / "a.parquet"), []
    file = open_columnar(table.path)[0]
    original = file._read
    monkeypatch.setattr(
        file, "_read", lambda block, columns: read.append((block, columns)) or original(block, columns)
    )
    for row in table:
        MediaLoader(table.media_root).open(row["image"])
    assert len(read) == len(set(read)) == 10


def test_memory_stays_within_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "KEPT_BYTES", 4 << 20)
    path = tmp_path / "a.parquet"
    noise = [os.urandom(1 << 17) for _ in range(8)]
    parquet.write_table(pa.table({"image": noise * 14, "n": range(112)}), path, row_group_size=8)
    file = open_columnar(str(path))[0]
    before = pa.total_allocated_bytes()
    for number in (*range(0, 112, 5), 3, 111):
        assert file.cell(number, "image") == noise[number % 8]
    assert pa.total_allocated_bytes() - before <= (4 << 20) + (2 << 20)


def test_validate_and_show(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tmp_path / "table.yaml"
    description.write_text(f"path: {files['parquet']}\nfields: {{caption: captions}}\n", encoding="utf-8")
    assert main(["data", "validate", str(description), "--task", "caption"]) == 0
    said = capsys.readouterr().out
    assert "30 rows of caption (image), 30 usable" in said and "30 .parquet" in said
    assert (
        main(["data", "show", str(description), "--task", "caption", "--out", str(tmp_path / "rows.html")])
        == 0
    )
    assert (tmp_path / "rows.html").read_text(encoding="utf-8").count("data:image/") >= 20
    assert main(["data", "index", str(files["parquet"])]) == 0 and "needs no index" in capsys.readouterr().out
