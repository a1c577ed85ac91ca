"""Training reads Parquet, saved data sets and WebDataset archives exactly as it reads the TSV they were made from."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from unival.media import MediaLoader
from unival.tables import open_table

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def rows(path: Path, world: Path) -> list[tuple[str, str, bytes]]:
    """(id, caption, content of the image) of a world's table."""
    table = open_table(path, ("id", "image", "caption"), "caption", media_root=str(world))
    media = MediaLoader(table.media_root)
    return [(row["id"], row["caption"], Path(media.open(row["image"])).read_bytes()) for row in table]


def to_parquet(found: list[tuple[str, str, bytes]], path: Path) -> Path:
    images = [{"bytes": data, "path": None} for _, _, data in found]
    columns = {"id": [f[0] for f in found], "caption": [f[1] for f in found], "image": images}
    parquet.write_table(pa.table(columns), path, row_group_size=10)
    return path


def to_tar(found: list[tuple[str, str, bytes]], path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, (name, caption, data) in enumerate(found):
            texts = {"jpg": data, "txt": caption.encode(), "json": f'{{"id": "{name}"}}'.encode()}
            for ending, content in texts.items():
                info = tarfile.TarInfo(f"{number:06}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_losses_and_scores_are_those_of_the_tsv(train, world, tables, tmp_path) -> None:
    learn, check = (rows(tables / f"caption_{split}.tsv", world) for split in ("train", "val"))
    options = ("--max-update=3", "--num-workers=2")
    known = train(
        "caption", [tables / "caption_train.tsv", tables / "caption_val.tsv"], *options, name="tsv"
    ).ok()
    other = train(
        "caption",
        [to_parquet(learn, tmp_path / "train.parquet"), to_tar(check, tmp_path / "val.tar")],
        *options,
        name="others",
    ).ok()
    assert other.losses() == known.losses() and len(known.losses()) == 3
    scores = [{k: v for k, v in run.scores()[-1].items() if k != "time"} for run in (known, other)]
    assert scores[0] == scores[1] and "cider" in scores[0]


def test_bad_rows_stop_the_run_with_their_place(train, world, tables, tmp_path) -> None:
    learn = rows(tables / "caption_train.tsv", world)[:8]
    learn[3] = (learn[3][0], "", learn[3][2])
    path = to_parquet(learn, tmp_path / "bad.parquet")
    run = train("caption", [path, tables / "caption_val.tsv"], "--max-update=2", "--num-workers=1")
    assert run.code == 2 and "bad.parquet, row 4, column 'caption'" in run.err, run.text
