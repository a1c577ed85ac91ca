"""Every task trains, validates by generation and picks its best checkpoint."""

from __future__ import annotations

import math
from argparse import Namespace

import pytest
import torch
import yaml

VIDEO = ("--video-encoder-name=all_resnext14", "--freeze-video-encoder")
AUDIO = ("--audio-encoder-name=pann_cnn6", "--freeze-audio-encoder")
SHORT = ("--max-update=4", "--save-interval-updates=2", "--keep-interval-updates=1")
CASES = {
    "caption": ("caption", "tsv", "cider", ()),
    "video_caption": ("video_caption", "tsv", "cider", VIDEO),
    "audio_caption": ("audio_caption", "tsv", "cider", AUDIO),
    "vqa_gen": ("vqa", "tsv", "vqa_score", ("--ans2label-file={world}/answers/vqa.txt", "--prompt-type=prev_output")),
    "video_vqa_gen": ("video_vqa", "tsv", "vqa_score", (*VIDEO, "--val-inference-type=open")),
    "refcoco": ("grounding", "tsv", "score", ()),
    "snli_ve": ("entailment", "tsv", "snli_score", ("--val-inference-type=allcand",)),
    "matching": ("matching", "csv", "accuracy", ()),
}


@pytest.mark.parametrize("task", CASES)
def test_task_trains_and_validates(train, world, tables, task):
    table, ending, metric, options = CASES[task]
    options = [option.format(world=world) for option in options]
    data = [tables / f"{table}_train.{ending}", tables / f"{table}_val.{ending}"]
    run = train(task, data, *SHORT, *options, "--eval-args={'beam': 2, 'max_len_b': 40}").ok()
    assert {2, 4} <= {r["update"] for r in run.scores()}
    assert all(math.isfinite(r[metric]) for r in run.scores())
    assert all(math.isfinite(value) for value in run.losses()) and len(run.losses()) == 4
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(run.folder / "checkpoint_best.pt", weights_only=True)
    best = state["extra_state"]["best"]
    assert best == max(r[metric] for r in run.scores())
    assert "nan" not in run.text.lower() and "Traceback" not in run.text
