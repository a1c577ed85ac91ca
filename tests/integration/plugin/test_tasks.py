"""Every task trains, validates by generation and picks its best checkpoint."""

from __future__ import annotations

import math

import pytest
import yaml

from tests.support.checks import weights

VIDEO = ("--video-encoder-name=all_resnext14", "--freeze-video-encoder")
AUDIO = ("--audio-encoder-name=pann_cnn6", "--freeze-audio-encoder")
SHORT = ("--max-update=4", "--save-interval-updates=2", "--keep-interval-updates=1")
CASES = {
    "caption": ("caption", "tsv", "cider", ()),
    "video_caption": ("video_caption", "tsv", "cider", VIDEO),
    "audio_caption": ("audio_caption", "tsv", "cider", AUDIO),
    "vqa_gen": (
        "vqa",
        "tsv",
        "vqa_score",
        ("--ans2label-file={world}/answers/vqa.txt", "--prompt-type=prev_output"),
    ),
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
    best = weights(run.folder, "checkpoint_best.pt")["extra_state"]["best"]
    assert best == max(r[metric] for r in run.scores())
    assert "nan" not in run.text.lower() and "Traceback" not in run.text


def test_pretraining_mixture_with_validation_per_source(train, tables, tmp_path):
    """Each validation source is scored by its own task; a metric is named after its source."""
    mixture = [
        {"name": "pictures", "table": str(tables / "pretrain_image.tsv")},
        {"name": "clips", "table": str(tables / "pretrain_video.tsv"), "weight": 0.5},
        {"name": "held", "table": str(tables / "caption_val.tsv"), "task": "caption", "split": "valid"},
        {"name": "answers", "table": str(tables / "vqa_val.tsv"), "task": "vqa", "split": "valid"},
    ]
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump(mixture))
    options = (*VIDEO, *SHORT, "--steps-per-epoch=3", "--val-inference-type=open")
    run = train("unify_task", path, *options, "--best-checkpoint-metric=answers_vqa_score").ok()
    assert {"held_cider", "answers_vqa_score", "loss"} <= set(run.scores()[-1])
    best = weights(run.folder, "checkpoint_best.pt")["extra_state"]["best"]
    assert best == max(r["answers_vqa_score"] for r in run.scores())
    assert all("loss_v1" in r and "loss_v2" in r for r in run.records if r["split"] == "train")


def test_pretraining_by_the_options_of_the_reference(train, tables):
    """Main table, a stream read every second row, several main tables in turn, validation by the loss."""
    stream = (
        f"--video-data={tables / 'pretrain_video.tsv'}",
        "--video-cnt=2",
        *VIDEO,
        "--read-from-img-path",
    )
    main = [tables / "pretrain_image.tsv"] * 2
    run = train("unify_task", main, *stream, "--batch-size=96", "--max-epoch=2", "--validate-interval=1").ok()
    assert "\n  video " in run.text and "--read-from-img-path changes nothing" in run.text
    best = weights(run.folder, "checkpoint_best.pt")["extra_state"]["best"]
    assert best == pytest.approx(min(r["loss"] for r in run.scores()))
    assert (run.folder / "checkpoint_last.pt").is_file()
