"""On a GPU: real trainings in every precision, resuming, and evaluation and prediction of what they saved."""

from __future__ import annotations

import json
import math

import pytest
import torch

import unival

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PRECISIONS = {
    "float32": (),
    "bf16": ("--bf16",),
    "fp16": ("--fp16", "--fp16-scale-window=512"),
    "memory_efficient_bf16": ("--memory-efficient-bf16",),
    "memory_efficient_fp16": ("--memory-efficient-fp16",),
}


def data(tables):
    return [tables / "caption_train.tsv", tables / "caption_val.tsv"]


def settled(run):
    """The losses of the updates that took place: float16 skips some until its scale fits."""
    losses = run.losses()
    assert losses and all(map(math.isfinite, losses)), run.text
    return losses


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_learns_and_its_checkpoint_is_used(train, tables, world, precision):
    run = train(
        "caption", data(tables), *PRECISIONS[precision], "--max-update=12", "--save-interval-updates=6"
    )
    losses = settled(run.ok())
    assert sum(losses[-3:]) < sum(losses[:3])
    assert run.scores()
    model = unival.load(run.folder / "checkpoint_last.pt", device="cuda")
    pictures = sorted((world / "images").iterdir())[:3]
    here = unival.load(run.folder / "checkpoint_last.pt", device="cpu")
    assert [r.text for r in model.caption(pictures)] == [r.text for r in here.caption(pictures)]


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_stopped_run_goes_on(train, tables, precision):
    options = (*PRECISIONS[precision], "--disable-validation", "--total-num-update=8")
    whole = train("caption", data(tables), *options, "--max-update=8", name="whole").ok()
    train("caption", data(tables), *options, "--max-update=4", name="parts").ok()
    parts = train("caption", data(tables), *options, "--max-update=8", name="parts").ok()
    assert settled(parts)[-1] == pytest.approx(settled(whole)[-1], rel=2e-2)


@pytest.mark.parametrize("task", ["video_caption", "audio_caption", "vqa_gen", "refcoco"])
def test_every_modality_trains(train, tables, task):
    name = {"vqa_gen": "vqa", "refcoco": "grounding"}.get(task, task)
    networks = {
        "video_caption": ["--video-encoder-name=all_resnext50"],
        "audio_caption": ["--audio-encoder-name=pann_cnn6"],
    }
    files = [tables / f"{name}_train.tsv", tables / f"{name}_val.tsv"]
    settled(train(task, files, *networks.get(task, []), "--bf16", "--max-update=4").ok())


def test_evaluation_scores_equal_the_cpu(train, tables, world, runner, tmp_path):
    run = train("caption", data(tables), "--max-update=4").ok()
    scores = []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        words = [run.folder / "checkpoint_last.pt", tables / "caption_val.tsv", "--image-dir", world]
        words = ["evaluate", *words, "--device", device, "--out", out]
        runner.start(words, out, program="unival.cli").finish().ok()
        scores.append(json.loads((out / "result.json").read_text())["metrics"]["cider"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
