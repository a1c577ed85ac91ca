"""A run that is over stays over, patience outlives a stop, and the first update says what does not train."""

from __future__ import annotations

import hashlib

import pytest

from unival.tasks.parameters import grouped

OPTIONS = ("--lr=0", "--freeze-batchnorm", "--patience=3", "--save-interval-updates=1", "--no-eval-generate")


def data(tables):
    return [tables / "caption_train.tsv", tables / "caption_val.tsv"]


def contents(folder) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}


@pytest.mark.parametrize(
    ("limit", "reason"), [("--max-update=3", "update 3 of 3"), ("--max-epoch=1", "all 1 epochs")]
)
def test_a_finished_run_does_nothing(train, tables, limit, reason):
    """It trained one more update each time, and wrote its checkpoints anew."""
    first = train("caption", data(tables), limit, "--disable-validation").ok()
    before = contents(first.folder)
    again = train("caption", data(tables), limit, "--disable-validation").ok()
    assert f"this run is finished ({reason}; a larger {limit.partition('=')[0]} goes on)" in again.out
    assert contents(first.folder) == before
    more = train("caption", data(tables), "--max-update=8", "--disable-validation").ok()
    assert more.records[-1]["update"] == 8 and more.losses()[: len(first.losses())] == first.losses()
    assert all(record["gnorm"] > 0 for record in more.records)


def test_patience_survives_a_stop(train, tables):
    """The count began anew: the run would have stopped at update 7."""
    whole = train("caption", data(tables), *OPTIONS, "--max-update=20", name="whole").ok()
    train("caption", data(tables), *OPTIONS, "--max-update=3", name="parts").ok()
    parts = train("caption", data(tables), *OPTIONS, "--max-update=20", name="parts").ok()
    ends = [max(r["update"] for r in run.records) for run in (whole, parts)]
    assert ends == [4, 4]
    again = train("caption", data(tables), *OPTIONS, "--max-update=20", name="parts").ok()
    assert "3 validations without progress, --patience 3" in again.out


def test_parameters_that_do_not_train_are_named(train, tables):
    options = ("--audio-encoder-name=pann_cnn6", "--freeze-decoder-embedding", "--freeze-encoder-embedding")
    run = train("caption", data(tables), *options, "--max-update=1", "--disable-validation").ok()
    [unused] = [line for line in run.out.splitlines() if "no gradient in the first update" in line]
    assert "encoder.embed_audios.*" in unused and "encoder.embed_images" not in unused
    [frozen] = [line for line in run.out.splitlines() if "frozen by the options" in line]
    assert "embed_tokens" in frozen


def test_names_are_grouped():
    among = ["a.b.x", "a.b.y", "a.c", "d.x", "d.y", "e"]
    assert grouped(["a.b.x", "a.b.y", "d.x", "e"], among) == "a.b.* (2 tensors), d.x, e"


def test_the_last_epoch_is_saved_whatever_the_interval(train, tables):
    """Nothing was: the engine saves every third epoch, and a run of one ended without a checkpoint."""
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    run = train("caption", data, "--max-epoch=1", "--save-interval=3", "--disable-validation").ok()
    assert (run.folder / "checkpoint_last.pt").is_file()
    again = train("caption", data, "--max-epoch=1", "--save-interval=3", "--disable-validation").ok()
    assert "this run is finished (all 1 epochs" in again.out


def test_a_last_batch_of_one_row_whose_features_are_one_number(train, tables, tmp_path):
    """It ended in a traceback of BatchNorm."""
    table = tmp_path / "nine.tsv"
    table.write_text("".join((tables / "caption_train.tsv").read_text().splitlines(keepends=True)[:9]))
    data = [table, tables / "caption_val.tsv"]
    options = ("--patch-image-size=16", "--max-epoch=1", "--disable-validation", "--no-save")
    assert len(train("caption", data, *options).ok().losses()) == 2
