"""Averaged weights, freezing, schedules, criterions, precision, logging."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

import unival
from tests.support.checks import same, weights
from unival.losses import LossOptions
from unival.models.ema import WeightAverage
from unival.tasks.schedule import plan_schedule

PARITY = json.loads((Path(__file__).parent / "data" / "schedule.json").read_text())
SMALL = {
    "encoder_embed_dim": 32,
    "decoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 64,
    "decoder_ffn_embed_dim": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "image_encoder_name": "resnet",
    "resnet_type": "resnet18",
}


def data(tables):
    return [tables / "caption_train.tsv", tables / "caption_val.tsv"]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masters", [False, True])
def test_average_of_weights(kind, masters):
    """Every tensor decays once an update, tied ones too; integer buffers are copied."""
    torch.manual_seed(0)
    model = unival.build_model("unival_tiny", 300, **SMALL).to(kind)
    config = SimpleNamespace(
        ema_decay=0.8, ema_start_update=2, ema_fp32=masters, ema_seed_model=None, ema_update_freq=1
    )
    average = WeightAverage(model, config)
    expected = {k: v.clone().float() for k, v in model.state_dict().items() if v.is_floating_point()}
    for update in range(1, 5):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(torch.randn_like(value) if value.is_floating_point() else 1)
        average.step(model, update)
        for key, value in expected.items():
            decay = 0.0 if update < 2 else 0.8
            value.mul_(decay).add_(model.state_dict()[key].float(), alpha=1 - decay)
            if not masters:
                value.copy_(value.to(kind).float())
    got = average.get_model().state_dict()
    tolerance = (
        1e-5 if kind == torch.float32 else 0.03
    )  # bf16 has 8 bits: lerp rounds once, the formula twice
    for key, value in expected.items():
        assert torch.allclose(got[key].float(), value, atol=tolerance, rtol=tolerance), key
        if masters:
            assert torch.allclose(average.fp32_params[key], value, atol=1e-5), key
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            assert torch.equal(got[key], value), key
    tied = [got[k] for k in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")]
    assert torch.equal(*tied)


def test_validation_uses_the_averaged_weights(train, tables):
    options = ("--max-update=3", "--store-ema", "--ema-fp32")
    raw = train("caption", data(tables), *options, "--ema-decay=0.0", name="raw").ok()
    first = train("caption", data(tables), *options, "--ema-decay=1.0", "--uses-ema", name="first").ok()
    last = train("caption", data(tables), *options, "--ema-decay=0.0", "--uses-ema", name="last").ok()
    assert last.scores()[-1] == raw.scores()[-1]
    assert first.scores()[-1]["loss"] != raw.scores()[-1]["loss"]


@pytest.mark.parametrize(
    ("options", "frozen", "open_"),
    [
        (["--freeze-image-encoder"], "encoder.embed_images.", "encoder.image_proj.weight"),
        (["--freeze-encoder"], "encoder.layers.", "encoder.embed_images.conv1.0.weight"),
        (["--freeze-decoder"], "decoder.layers.", "encoder.layers.0.fc1.weight"),
        (
            ["--freeze-encoder-embedding", "--freeze-decoder-embedding"],
            "encoder.embed_tokens.weight",
            "decoder.layers.0.fc1.weight",
        ),
        (["--freeze-batchnorm"], "encoder.embed_images.bn1.", "encoder.embed_images.conv1.0.weight"),
    ],
)
def test_frozen_is_frozen(train, tables, options, frozen, open_):
    one = weights(train("caption", data(tables), "--max-update=1", *options, name="one").ok().folder)["model"]
    four = weights(train("caption", data(tables), "--max-update=4", *options, name="four").ok().folder)[
        "model"
    ]
    held = {key: value for key, value in one.items() if key.startswith(frozen)}
    assert held
    same(held, {key: four[key] for key in held})
    assert not torch.equal(one[open_], four[open_])


def test_warm_up_share_gives_the_recorded_learning_rates():
    from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
        PolynomialDecayLRSchedule,
        PolynomialDecayLRScheduleConfig,
    )

    recorded = PARITY["lr_schedule"]
    scheduler = OmegaConf.structured(PolynomialDecayLRScheduleConfig(lr=[recorded["lr"]], total_num_update=0))
    cfg = OmegaConf.create(
        {
            "distributed_training": {"distributed_world_size": 2},
            "dataset": {"batch_size": 4},
            "optimization": {"update_freq": [2], "max_update": 0, "max_epoch": 10},
        }
    )
    cfg.lr_scheduler = scheduler
    task = SimpleNamespace(
        batches_per_epoch=lambda batch_size, epoch: 400,
        cfg=SimpleNamespace(warmup_ratio=recorded["warmup_ratio"]),
    )
    assert plan_schedule(cfg, task) == (100, 1000)
    assert cfg.lr_scheduler.warmup_updates == recorded["warmup_updates"]
    optimizer = _Optimizer()
    schedule = PolynomialDecayLRSchedule(cfg.lr_scheduler, optimizer)
    for update, rate in recorded["lr_after_step_update_n"].items():
        schedule.step_update(int(update))
        assert optimizer.lr == pytest.approx(rate, rel=1e-12, abs=1e-20)


def _Optimizer():
    from fairseq.optim import FairseqOptimizer

    class Recorder(FairseqOptimizer):
        lr = 0.0

        def __init__(self) -> None:
            pass

        def set_lr(self, lr: float) -> None:
            self.lr = lr

        def get_lr(self) -> float:
            return self.lr

    return Recorder()


def test_adam_takes_the_recorded_steps():
    from fairseq.optim.adam import Adam

    recorded = PARITY["adam"]
    parameter = torch.nn.Parameter(torch.tensor(recorded["p0"]))
    names = ("lr", "betas", "eps", "weight_decay")
    adam = Adam([parameter], **{name: recorded[name] for name in names})
    for step in recorded["steps"]:
        parameter.grad = torch.tensor(step["grad"])
        adam.step()
        assert torch.allclose(parameter.data, torch.tensor(step["p"]), atol=1e-7)


def test_every_option_of_the_criterions_is_a_flag():
    from unival.train import known_options

    for criterion in ("adjust_label_smoothed_cross_entropy", "adjust_label_smoothed_encouraging_loss"):
        flags = known_options({"task": "caption", "arch": "unival_tiny", "criterion": criterion})
        for name in LossOptions.__dataclass_fields__:
            assert name == "encouraging" or "--" + name.replace("_", "-") in flags, name


def test_loss_options_run_through_the_plugin(train, world, tables):
    rows = [tables / "vqa_train.tsv", tables / "vqa_val.tsv"]
    closed = (f"--ans2label-file={world / 'answers/vqa.txt'}", "--prompt-type=prev_output")
    losses = {}
    for name, options in {
        "plain": (),
        "rdrop": ("--use-rdrop", "--reg-alpha=0.5", "--dropout=0.1"),
        "dropped": ("--drop-worst-ratio=0.3", "--drop-best-ratio=0.1", "--report-accuracy"),
        "averaged": ("--sentence-avg", "--ignore-eos"),
        "encouraging": ("--criterion=adjust_label_smoothed_encouraging_loss", "--log-end=0.75"),
    }.items():
        run = train(
            "vqa_gen", rows, *closed, "--label-smoothing=0.1", "--max-update=2", *options, name=name
        ).ok()
        losses[name] = run.losses()
    assert len({tuple(values) for values in losses.values()}) == len(losses), losses
    assert losses["encouraging"][0] < losses["plain"][0]  # the bonus is negative
    assert losses["dropped"][1] < losses["plain"][1]


def test_criterion_equals_the_pure_loss(world):
    from argparse import Namespace

    from unival.criterions.label_smoothed import LabelSmoothedCrossEntropy
    from unival.losses import label_smoothed_loss

    torch.manual_seed(0)
    logits, target = torch.randn(3, 5, 40), torch.randint(4, 40, (3, 5))
    target[1, 3:] = 1
    chosen = SimpleNamespace(scst=False, scst_args=None)
    task = SimpleNamespace(vocabulary=SimpleNamespace(pad=1, eos=2), cfg=chosen)
    cfg = Namespace(label_smoothing=0.1, report_accuracy=True)
    criterion = LabelSmoothedCrossEntropy.build_criterion(cfg, task)
    sample = {"net_input": {}, "target": target, "conf": None, "allowed": None, "group": "image"}
    loss, size, log = criterion(lambda: (logits, {}), sample)
    pure = label_smoothed_loss(logits, target, LossOptions(label_smoothing=0.1, report_accuracy=True))
    assert float(loss) == float(pure.loss) and size == pure.sample_size == 13
    assert log["loss"] == pytest.approx(float(pure.loss)) and log["total"] == 13
    video = {**sample, "group": "video", "target": target[:, :2]}
    both, size, log = criterion(lambda: (logits[:, : target.shape[1]], {}), [sample])
    assert size == 1 and float(both) == pytest.approx(float(pure.loss) / 13)
    assert log["loss_v1"] > 0 and log["loss_v2"] == 0 and video["group"] == "video"


def test_bfloat16_sound_and_tensorboard(train, tables, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = [tables / "audio_caption_train.tsv", tables / "audio_caption_val.tsv"]
    options = ("--audio-encoder-name=pann_cnn6", "--freeze-audio-encoder", "--bf16", "--max-update=2")
    train("audio_caption", rows, *options, f"--tensorboard-logdir={tmp_path / 'board'}").ok()
    events = EventAccumulator(str(tmp_path / "board" / "train_inner"))
    events.Reload()
    assert "loss" in events.Tags()["scalars"]
    events = EventAccumulator(str(tmp_path / "board" / "valid"))
    events.Reload()
    assert "cider" in events.Tags()["scalars"]


def test_the_terminal_is_readable(train, tables):
    run = train("caption", data(tables), "--max-update=2").ok()
    assert max(len(line) for line in run.text.splitlines()) < 700
    assert len(run.text.splitlines()) < 40
    for noise in ("shared parameter", "Warning", "Namespace(", "UnivalModel("):
        assert noise not in run.text
    assert "plan:" in run.text and "46 rows of caption (image)" in run.text


def test_workers_of_short_epochs_do_not_complain(train, tables):
    """A loader of an epoch before, destroyed in a new worker, printed "can only test a child process"."""
    options = ("--max-update=24", "--num-workers=1", "--validate-interval=2", "--no-save")
    run = train("caption", data(tables), *options).ok()
    assert len(run.losses()) == 24
    assert "Exception ignored" not in run.text
