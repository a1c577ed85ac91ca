"""What an update of a real run asks the device: the numbers of each batch, and the norm of its gradients."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.support.plugin_runs import command

SOUNDS = "--audio-encoder-name=pann_cnn6"
CLIPS = "--video-encoder-name=all_resnext14"
RUNS = {
    "accumulated": ("caption", "caption_train", "--update-freq=2", "--store-ema"),
    "grounding": ("refcoco", "grounding_train", "--bf16"),
    "answers": ("vqa_gen", "vqa_train", "--ans2label-file={world}/answers/vqa.txt", "--use-rdrop"),
    "mixture": ("unify_task", "", SOUNDS, CLIPS, "--freeze-batchnorm"),
}
BATCH, NORM = "tasks/numbers.py, host_numbers: tolist", "tasks/trainer.py, clip_grad_norm: cpu"


@pytest.mark.parametrize("name", RUNS)
def test_an_update_asks_for_its_numbers_alone(name, runner, world, tables, tmp_path):
    task, table, *options = RUNS[name]
    data = tables / f"{table}.tsv"
    if not table:
        data = tmp_path / "mixture.yaml"
        sources = [
            {"name": kind, "table": str(tables / f"pretrain_{kind}.tsv")}
            for kind in ("image", "video", "audio")
        ]
        data.write_text(yaml.safe_dump(sources))
    folder = tmp_path / "run"
    options = [option.format(world=world) for option in options]
    words = command(
        task, data, world, folder, "--max-update=4", "--disable-validation", "--no-save", *options
    )
    runner.start(words, folder, program="tests.support.counted_training").finish().ok()
    lines = [json.loads(line) for line in (folder / "stops.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    batches = 2 if "--update-freq=2" in options else 1
    assert lines[1:] == [{BATCH: batches, NORM: 1}] * 3, "the first one reports what trains"
