"""The compute type that a run chooses, and what stays float32 in it."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from unival import build_model
from unival.core import device
from unival.core.device import gains_from_bfloat16
from unival.errors import ConfigError
from unival.tasks.options import TaskOptions
from unival.tasks.precision import batch_norm_kept, choose_precision


def asked(tmp_path, **given) -> Namespace:
    plain = {"bf16": False, "fp16": False, "amp": False, "cpu": True, "precision": "auto"}
    return Namespace(**plain | {"save_dir": str(tmp_path)} | given)


def test_auto_takes_what_is_faster_on_the_processor(tmp_path):
    args = asked(tmp_path)
    choose_precision(args)
    assert args.bf16 == gains_from_bfloat16("cpu")


@pytest.mark.parametrize(
    "vendor, flags, expected",
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("GenuineIntel", "avx512f avx512_bf16", False),  # a virtual machine that hides AMX
        ("AuthenticAMD", "avx512f avx512_bf16", True),
        ("AuthenticAMD", "avx2", False),
        ("", "", False),
    ],
)
def test_which_processors_gain(monkeypatch, vendor, flags, expected):
    monkeypatch.setattr(device, "_said_of_cpu", {"vendor_id": vendor, "flags": flags}.__getitem__)
    assert gains_from_bfloat16("cpu") is expected


@pytest.mark.parametrize(
    "given", [{"precision": None}, {"precision": "float32"}, {"fp16": True}, {"amp": True}]
)
def test_what_is_said_decides(tmp_path, given):
    args = asked(tmp_path, **given)
    choose_precision(args)
    assert not args.bf16


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_goes_on_keeps_its_type(tmp_path, begun):
    torch.save({"model": {}, "cfg": {"common": {"bf16": begun}}}, tmp_path / "checkpoint_last.pt")
    args = asked(tmp_path)
    choose_precision(args)
    assert args.bf16 == begun


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("option", ["save_dir_fallback", "restore_file"])
def test_so_does_one_that_goes_on_from_elsewhere(tmp_path, monkeypatch, begun, option):
    monkeypatch.setattr("unival.tasks.precision.gains_from_bfloat16", lambda device: not begun)
    (tmp_path / "there").mkdir()
    file = tmp_path / "there" / "checkpoint_last.pt"
    torch.save({"model": {}, "cfg": {"common": {"bf16": begun}}}, file)
    given = {option: str(file if option == "restore_file" else file.parent)}
    args = asked(tmp_path, reset_optimizer=False, **given)
    choose_precision(args)
    assert args.bf16 is begun
    if option == "restore_file":  # weights alone
        args = asked(tmp_path, reset_optimizer=True, **given)
        choose_precision(args)
        assert args.bf16 is not begun


def test_other_words_are_refused():
    with pytest.raises(ConfigError, match="--precision half is not one of auto, float32"):
        TaskOptions(precision="half")


def test_statistics_of_batch_norm_stay_as_they_are():
    model = build_model("unival_tiny", 50, resnet_type="resnet10t", image_encoder_name="resnet")
    network = model.encoder.embed_images
    network.bn1.running_mean.uniform_()
    network.bn1.weight.data.uniform_()
    before = {name: value.clone() for name, value in network.bn1.state_dict().items()}
    parameter = network.bn1.weight
    with batch_norm_kept(model):
        model.to(torch.bfloat16)
    assert network.bn1.weight is parameter
    assert all(torch.equal(value, before[name]) for name, value in network.bn1.state_dict().items())
    model.train()
    logits, _ = model(
        torch.tensor([[0, 5, 2]]),
        None,
        torch.tensor([[0, 7]]),
        torch.randn(1, 3, 64, 64, dtype=torch.bfloat16),
    )
    logits.float().sum().backward()
    assert logits.dtype == torch.bfloat16
    assert network.bn1.weight.grad.dtype == torch.float32
