"""Networks of modalities are never random by accident: a run stops, and later uses know what nobody trained."""

from __future__ import annotations

import pytest
import torch

from tests.integration.plugin.test_initial_weights import SIZES, STILL, data
from tests.support.checks import refused, weights
from unival.cli import main
from unival.core.torchfile import read_fairseq
from unival.errors import CheckpointError
from unival.merge.recipe import MergeRecipe
from unival.merge.run import merge
from unival.modeling.build import build_model

CAREFUL = "--no-networks-from-scratch"
VIDEO = ("--video-encoder-name=resnext14",)


@pytest.fixture(scope="module")
def images(runner, world, tables, tmp_path_factory):
    """A checkpoint whose run built a video network that no row used: random weights, as in finetuning on images."""
    from tests.support.plugin_runs import command

    folder = tmp_path_factory.mktemp("images")
    run = runner.start(command("caption", data(tables), world, folder, *STILL, *VIDEO), folder).finish().ok()
    assert "the image network starts from random weights (--networks-from-scratch)" in run.text
    return folder / "checkpoint_last.pt"


def videos(tables):
    return [tables / "video_caption_train.tsv", tables / "video_caption_val.tsv"]


def test_without_any_file(train, tables, tmp_path):
    run = train("caption", data(tables), *STILL, CAREFUL, name="none")
    refused(
        run, "task 'caption' needs the image network, and no file holds it: the run starts from no checkpoint"
    )
    assert "--networks-from-scratch" in run.text and not (run.folder / "checkpoint_last.pt").exists()
    donor = build_model("unival_tiny", 500, **SIZES)
    torch.save(donor.encoder.embed_images.state_dict(), tmp_path / "resnet18.pth")
    train("caption", data(tables), *STILL, CAREFUL, f"--resnet-model-path={tmp_path / 'resnet18.pth'}").ok()


def test_a_run_that_is_given_no_file_is_from_scratch_and_one_that_is_given_another_stops(
    world, tables, tmp_path, runner
):
    from tests.support.plugin_runs import command

    words = [
        w
        for w in command("caption", data(tables), world, tmp_path / "a", *STILL)
        if w != "--networks-from-scratch"
    ]
    run = runner.start(words, tmp_path / "a").finish().ok()
    assert "the image network starts from random weights" in run.text
    model = build_model("unival_tiny", 500, **SIZES, video_encoder_name="resnext14")
    torch.save({"state_dict": model.encoder.embed_videos.state_dict()}, tmp_path / "video.pth")
    more = (*VIDEO, f"--video-model-path={tmp_path / 'video.pth'}")
    words = [
        w
        for w in command("caption", data(tables), world, tmp_path / "b", *STILL, *more)
        if w != "--networks-from-scratch"
    ]
    refused(runner.start(words, tmp_path / "b").finish(), "needs the image network, and no file holds it")


def test_a_mixture_names_the_source(train, tables, tmp_path):
    (tmp_path / "mixture.yaml").write_text(
        f"- {{name: pictures, table: '{tables / 'pretrain_image.tsv'}'}}\n"
    )
    run = train("unify_task", tmp_path / "mixture.yaml", *STILL, CAREFUL)
    refused(run, "source 'pictures' needs the image network, and no file holds it")


def test_a_network_that_nothing_trained_counts_as_absent(images, train, tables, world, capsys):
    assert weights(images.parent)["task_state"]["unival"]["untrained"] == ["video"]
    assert not any("video" in key for key in read_fairseq(images).model)
    start = (*STILL, *VIDEO, f"--finetune-from-model={images}")
    run = train("video_caption", videos(tables), *start, CAREFUL, name="videos")
    refused(run, f"task 'video_caption' needs the video network, and no file holds it: '{images}' has none")
    wanted = train("video_caption", videos(tables), *start, name="wanted").ok()
    assert "the video network starts from random weights" in wanted.text
    state = weights(wanted.folder)["task_state"]["unival"]
    assert state["untrained"] == []
    again = train("video_caption", videos(tables), *start, CAREFUL, "--max-update=2", name="wanted")
    assert again.ok().losses()[-1:], "what the run has trained itself is in its own file"
    table = str(tables / "video_caption_val.tsv")
    assert main(["evaluate", str(images), table, "--task", "video_caption", "--image-dir", str(world)]) == 2
    assert "the checkpoint has no video network (it has: image)" in capsys.readouterr().err


def test_merging_keeps_the_networks_of_the_tasks(images, train, tables, tmp_path):
    video = train("video_caption", videos(tables), *STILL, *VIDEO, f"--finetune-from-model={images}").ok()
    models = tuple({"path": str(p), "name": n} for n, p in
                   (("still", images), ("moving", video.folder / "checkpoint_last.pt")))  # fmt: skip
    with pytest.raises(
        CheckpointError, match="'only_some: drop' would leave out the video network, which the task of"
    ):
        merge(MergeRecipe(str(tmp_path / "m"), models, weights="raw", only_some="drop"))
    merge(MergeRecipe(str(tmp_path / "m"), models, weights="raw", only_some="keep"))


@pytest.mark.parametrize(
    "backbone", ["resnet10t", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"]
)
def test_any_network_of_timm_trains_and_is_used(train, tables, world, backbone, capsys):
    """A few updates of each kind, from its run to captions, the options coming from the checkpoint alone."""
    options = ("--image-encoder-name=timm", f"--image-backbone={backbone}", "--max-update=3")
    run = train("caption", data(tables), *options, "--best-checkpoint-metric=cider").ok()
    assert len(run.losses()) == 3 and all(loss < 50 for loss in run.losses())
    from unival import load

    captions = load(run.folder / "checkpoint_last.pt").caption(
        [world / "images" / name for name in sorted(p.name for p in (world / "images").iterdir())[:2]]
    )
    assert len(captions) == 2
