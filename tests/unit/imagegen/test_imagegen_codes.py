"""``unival data codes`` on real picture files: layout, broken ones, going on, folders, the task that reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.imagegen_fixtures import CODES, tiny_vqgan, vqgan_file
from unival.cli import main
from unival.datatools.codes import CodeTable, Pictures
from unival.errors import ConfigError
from unival.imagegen.grid import read_codes
from unival.media import MediaLoader
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table
from unival.vocabulary import Vocabulary

NAMES = ("a.png", "b.jpg", "c.png", "broken.png", "d.gif")


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for name in NAMES:
        pixels = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    whole = (tmp_path / "pictures/broken.png").read_bytes()
    (tmp_path / "pictures/broken.png").write_bytes(whole[: len(whole) // 3])
    rows = [f"{k}\timg{k}\ta picture, {k}\t\tpictures/{name}\n" for k, name in enumerate(NAMES)]
    (tmp_path / "captions.tsv").write_text("".join(rows))
    return tmp_path


def codes(folder: Path, source: str, *options: str) -> int:
    path = folder / "vqgan.pt"
    if not path.exists():
        vqgan_file(folder)
    weights = f"--vqgan-model-path={path}"
    return main(
        ["data", "codes", str(folder / source), f"--out={folder / 'codes.tsv'}", weights,
         "--code-image-size=32", *options]
    )  # fmt: skip


def table_of(folder: Path) -> list[list[str]]:
    return [line.split("\t") for line in (folder / "codes.tsv").read_text().splitlines()]


def test_a_table_in_the_released_layout_becomes_one(folder, capsys):
    assert codes(folder, "captions.tsv") == 2
    said = capsys.readouterr().err
    assert "1 of 5 pictures cannot be read" in said and "captions.tsv, line 4" in said
    assert "--max-broken-share" in said and not (folder / "codes.tsv").exists()
    assert codes(folder, "captions.tsv", "--max-broken-share=0.5") == 0
    said = capsys.readouterr()
    assert (
        "left out: " in said.err and "broken.png" in said.err and "4 rows, 1 pictures unreadable" in said.out
    )
    rows = table_of(folder)
    assert [(row[0], row[2]) for row in rows] == [(str(k), f"a picture, {k}") for k in (0, 1, 2, 4)]
    model, pictures = tiny_vqgan(), Pictures(str(folder / "captions.tsv"))
    for row in rows:
        pixels = pictures.read(pictures[int(row[0])], 32)
        assert read_codes(row[1]) == model.encode(pixels[None]).flatten().tolist()
    assert len({row[1] for row in rows}) == 4
    report = json.loads((folder / "codes.tsv.json").read_text())
    assert report["rows"] == 4 and len(report["unreadable"]) == 1 and len(report["vqgan_sha256"]) == 64

    vocabulary = Vocabulary.train(["a picture"], 256, CODES, 10)
    spec, options = get_spec("image_gen"), SpecOptions(code_image_size=32)
    table = open_table(folder / "codes.tsv", spec.fields, spec.layout_name)
    example = spec.examples(table[1], MediaLoader(), options, vocabulary, training=True)[0]
    wanted = [vocabulary.code_offset + code for code in read_codes(rows[1][1])]
    assert example.target.tolist() == [*wanted, vocabulary.eos]


def test_the_result_does_not_depend_on_batches_shares_and_stops(folder):
    allow = "--max-broken-share=1"
    assert codes(folder, "captions.tsv", allow, "--batch-size=1") == 0
    alone = (folder / "codes.tsv").read_bytes()
    assert codes(folder, "captions.tsv", allow, "--batch-size=16", "--num-workers=1") == 0
    assert (folder / "codes.tsv").read_bytes() == alone
    (folder / "codes.tsv").unlink()
    for shard in (1, 0):
        assert codes(folder, "captions.tsv", f"--shard={shard}", "--num-shards=2") == 0
    parts = folder / "codes.tsv.parts/parts"
    assert not (folder / "codes.tsv").exists() and len(list(parts.iterdir())) == 2
    torn = parts / "0-of-2.jsonl"  # killed while writing
    torn.write_bytes(torn.read_bytes()[:-20])
    assert codes(folder, "captions.tsv", allow) == 0
    assert (folder / "codes.tsv").read_bytes() == alone and not (folder / "codes.tsv.parts").exists()


def test_parts_of_another_run_are_not_mixed_in(folder):
    pictures = Pictures(str(folder / "captions.tsv"))
    first = CodeTable(pictures, folder / "out.tsv", 32, {"vqgan_sha256": "one"})
    first.encode(tiny_vqgan())
    second = CodeTable(pictures, folder / "out.tsv", 32, {"vqgan_sha256": "two"})
    with pytest.raises(ConfigError, match="vqgan_sha256"):
        second.encode(tiny_vqgan())
    second.restart()
    second.encode(tiny_vqgan())
    assert second.finish(1.0)["vqgan_sha256"] == "two"


def test_a_folder_gives_names_as_captions(folder, capsys):
    pictures = folder / "pictures"
    (pictures / "sub").mkdir()
    (pictures / "a.png").rename(pictures / "sub/red-fox_at night.PNG")
    (pictures / "b.txt").write_text("one\tcaption\nof two lines")
    (pictures / "broken.png").unlink()
    assert codes(folder, "pictures") == 0
    found = {row[0]: row[2] for row in table_of(folder)}
    assert found == {
        "b.jpg": "one caption of two lines",
        "c.png": "c",
        "d.gif": "d",
        "sub/red-fox_at night.PNG": "red fox at night",
    }
    assert all(len(row) == 3 and max(read_codes(row[1])) < CODES for row in table_of(folder))
    (folder / "empty").mkdir()
    assert codes(folder, "empty") == 2
    assert "there are no pictures" in capsys.readouterr().err


def test_a_codebook_trained_on_a_folder_encodes_it(folder, capsys):
    (folder / "pictures/broken.png").unlink()
    sizes = ["--ch=4", "--ch-mult=1,1,1,2", "--num-res-blocks=1", "--groups=2", "--z-channels=8"]
    command = ["data", "codebook", str(folder / "pictures"), f"--out={folder / 'vqgan.pt'}", *sizes]
    options = ["--n-embed=16", "--code-image-size=16", "--updates=3", "--batch-size=2", "--attn-resolutions="]
    assert main([*command, *options]) == 0
    said = capsys.readouterr().out
    assert "update 3: loss" in said and "of 16 codes used" in said and "mean picture" in said
    assert codes(folder, "pictures", "--code-image-size=16") == 0
    assert all(len(read_codes(row[1])) == 4 for row in table_of(folder))
    again = [*command[:4], f"--init-from={folder / 'vqgan.pt'}", "--code-image-size=16", "--updates=1"]
    assert main(again) == 0 and "of 16 codes used" in capsys.readouterr().out
    assert main([*again, "--ch=8"]) == 2
    assert "leave out ch" in capsys.readouterr().err
    assert main([*command, *options, "--ch=3"]) == 2
    assert "groups 2 must divide" in capsys.readouterr().err


def test_hidden_pictures_are_passed_over(tmp_path: Path) -> None:
    from unival.datatools.codes import Pictures

    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a.png", "sub/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert len(Pictures(str(tmp_path))) == 2
