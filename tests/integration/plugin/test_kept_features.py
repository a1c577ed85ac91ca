"""Frozen networks run once: kept features give the run that pixels give, and later runs find them."""

from __future__ import annotations

import pytest

from tests.integration.plugin.test_initial_weights import data
from tests.support.checks import refused
from tests.support.plugin_runs import two_ranks
from unival.cli import main
from unival.media.features import listed

FROZEN = (
    "--image-encoder-name=timm", "--image-backbone=resnet10t", "--freeze-image-encoder", "--max-epoch=3",
    "--best-checkpoint-metric=cider", "--dropout=0.1",
)  # fmt: skip


def media_of(table):
    return {line.split("\t")[1] for line in table.read_text().splitlines()[1:]}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


def test_the_run_is_the_same_and_each_medium_is_kept_once(train, tables, folder, capsys):
    keep = f"--keep-features={folder}"
    plain = train("caption", data(tables), *FROZEN, name="plain").ok()
    first = train("caption", data(tables), *FROZEN, keep, name="first").ok()
    assert first.losses() == pytest.approx(plain.losses(), rel=1e-5)
    assert first.scores()[-1]["cider"] == pytest.approx(plain.scores()[-1]["cider"])
    (book,) = listed(folder)
    assert book.shape == (512, 1, 1) and book.size == book.media * 512 * 4
    images = {p.name for t in data(tables) for p in (t.parent.parent / "images").glob("*")}
    assert 0 < book.media <= len(images)
    again = train("caption", data(tables), *FROZEN, keep, "--num-workers=2", name="again").ok()
    assert again.losses() == pytest.approx(plain.losses(), rel=1e-5)
    assert listed(folder) == [book]  # nothing went through the network again
    assert main(["data", "features", str(folder), "--delete"]) == 0
    assert f"{book.media} media, 512 x 1 x 1 float32" in capsys.readouterr().out and not listed(folder)


def test_ranks_and_workers_share_a_folder_and_its_limit(train, tables, folder):
    keep = (f"--keep-features={folder}", "--num-workers=1", "--ddp-backend=legacy_ddp")
    run = two_ranks(train, "caption", data(tables), *FROZEN, *keep, name="two").ok()
    assert len(run.losses()) > 2
    before = [each.media for each in listed(folder)]
    assert before and before[0] > 0
    small = train(
        "caption", data(tables), *FROZEN, "--patch-image-size=64", f"--keep-features={folder}",
        "--keep-features-limit=1e-6", name="small",
    ).ok()  # fmt: skip
    assert "no more are kept" in small.text and [each.media for each in listed(folder)] == before


def test_what_trains_is_not_kept(train, tables, folder):
    run = train("caption", data(tables), f"--keep-features={folder}", "--max-update=1")
    refused(run, "--keep-features needs a frozen network")
    run = train("caption", data(tables), *FROZEN, f"--keep-features={folder}", "--use-dataaug", name="crops")
    refused(run, "contradict each other: give --no-use-dataaug")
