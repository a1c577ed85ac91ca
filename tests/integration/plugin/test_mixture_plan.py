"""Mixtures in real runs: the plan, which networks are built, any subset of sources on two ranks, refused options."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.integration.plugin.test_distributed import two_ranks
from tests.support.checks import refused, weights

NETWORKS = ("--video-encoder-name=all_resnext14", "--audio-encoder-name=pann_cnn6")
# a single clip in a batch gives BatchNorm one value a channel at this size
RUN = ("--disable-validation", "--max-update=2", "--batch-size=2", "--freeze-batchnorm")


@pytest.fixture
def mixture(tables, tmp_path):
    """Return write(*names) -> path of a mixture of these sources."""
    image, video = str(tables / "pretrain_image.tsv"), str(tables / "pretrain_video.tsv")

    def rows(path: str, kind: str, **more) -> dict:
        return {
            "table": {
                "path": path,
                "layout": "pretrain",
                "where": {"type": kind},
                "media": str(tables.parent),
                **more,
            }
        }

    known = {
        "captions": rows(image, "caption"),
        "questions": rows(image, "qa") | {"weight": 0.5},
        "boxes": rows(image, "visual_grounding"),
        "clips": rows(video, "video_caption"),
        "sounds": {"table": str(tables / "pretrain_audio.tsv")},
        "texts": rows(image, "caption", fields={"text": "caption"}) | {"task": "infilling"},
    }

    def write(*names: str, **change) -> str:
        path = tmp_path / f"{'-'.join(names)}.yaml"
        path.write_text(yaml.safe_dump([{"name": name, **known[name], **change} for name in names]))
        return path

    return write


def networks(folder) -> set[str]:
    found = {re.match(r"encoder\.embed_(image|video|audio)s\.", key) for key in weights(folder)["model"]}
    return {match[1] for match in found if match}


def test_plan_and_networks_of_a_mixture(train, mixture):
    run = train(
        "unify_task", mixture("captions", "questions", "clips"), *NETWORKS, *RUN, "--update-freq=3"
    ).ok()
    assert networks(run.folder) == {"image", "video"}
    assert "no audio network: no source has audio rows (--build-unused-encoders builds it)" in run.out
    lines = run.out[run.out.index("plan: balanced mixing") :].splitlines()
    assert lines[1].split() == ["source", "rows", "weight", "update", "epoch", "passes", "what"]
    captions, questions, clips = (line.split() for line in lines[2:5])
    assert captions[:4] == ["captions", "46", "1", "2.4"] and captions[6:9] == ["pretrain", "(image)", "in"]
    assert questions[2:4] == ["0.5", "1.2"] and clips[3] == "2.4" and clips[7] == "(video)"
    assert 46 <= float(captions[4]) <= 48 and float(captions[5]) == pytest.approx(1.0, abs=0.05)
    assert lines[5].strip() == "1 rank(s) x 2 rows x 3 accumulated = 6 rows an update"
    # 58 batches of two rows in 20 updates of three: the last one is short by two
    assert "20 updates an epoch, 2 updates, 3.33% of an epoch's places for rows stay empty" in lines[6]


def test_networks_are_built_when_asked_for_and_needed_ones_must_be_named(train, mixture):
    asked = train(
        "unify_task", mixture("sounds"), *NETWORKS, *RUN, "--build-unused-encoders", name="asked"
    ).ok()
    assert networks(asked.folder) == {"image", "video", "audio"}
    alone = train("unify_task", mixture("texts"), *NETWORKS, *RUN, name="alone").ok()
    assert networks(alone.folder) == set() and alone.losses()[0] > 0
    refused(
        train("unify_task", mixture("captions", "clips"), *RUN),
        "source 'clips' has rows with video",
        "--video-encoder-name",
    )


@pytest.mark.parametrize(
    "names",
    [
        ("captions", "clips"),
        ("clips", "sounds"),
        ("texts", "sounds"),
        ("captions", "questions", "boxes", "clips", "sounds", "texts"),
    ],
)
def test_any_subset_on_two_ranks(train, mixture, names):
    """One row a rank and update, so that the ranks hold different modalities; no backend is named."""
    run = two_ranks(train, "unify_task", mixture(*names), *NETWORKS, *RUN, "--max-update=4", "--batch-size=1")
    assert len(run.losses()) == 4 and all(loss > 0 for loss in run.losses())
    assert "2 rank(s) x 1 rows x 1 accumulated = 2 rows an update" in run.out


def test_streams_of_the_reference_are_a_mixture(train, tables):
    """The options of its second stage, audio beside them; counts become weights."""
    streams = [
        f"--video-data={tables / 'pretrain_video.tsv'}",
        "--video-cnt=1",
        "--video-selected-cols=0,1,2,3,4,5,6,7",
    ]
    streams += [
        f"--audio-data={tables / 'pretrain_audio.tsv'}",
        "--audio-cnt=4",
        f"--image-text-data={tables / 'pretrain_image.tsv'}",
    ]
    run = train(
        "unify_task", tables / "pretrain_image.tsv", *streams, *NETWORKS, *RUN, "--batch-size=11"
    ).ok()
    shares = {line.split()[0]: line.split()[2:4] for line in run.out.split("plan:")[1].splitlines()[2:6]}
    assert shares == {
        "main": ["1", "4"],
        "image_text": ["0.5", "2"],
        "video": ["1", "4"],
        "audio": ["0.25", "1"],
    }
    assert networks(run.folder) == {"image", "video", "audio"}


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("--only-video-data", "list only those tables in a mixture"),
        ("--only-audio-data", "list only those tables in a mixture"),
        ("--audio-with-video", "list a video and an audio source"),
        ("--init-text-data=x.tsv", "task: infilling"),
        ("--init-image-text-data=x.tsv", "--finetune-from-model"),
        ("--init-dataset-epoch=3", "--finetune-from-model"),
        ("--other-data-cnt=8", "'weight'"),
        ("--pretrain-seed=7", "--seed"),
        ("--unconstrained-training", "--ans2label-file"),
        ("--steps-per-epoch=0", "must be at least 1"),
        ("--mask-length=span", "Did you mean 'span-poisson'"),
    ],
)
def test_options_that_did_nothing_say_what_to_use(train, tables, option, instead):
    refused(train("unify_task", tables / "pretrain_image.tsv", *RUN, option), instead)
