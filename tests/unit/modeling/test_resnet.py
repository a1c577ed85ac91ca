"""Our ResNets are timm's: names, initial draws, features, gradients, running statistics, dropped paths."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from unival.modeling.config import ModelConfig
from unival.modeling.convolutions import StridedConv2d
from unival.modeling.image import build_image_encoder
from unival.modeling.resnet import LAYOUTS, ResNet

DROP_PATH = 0.3


def twins(name):
    import timm  # takes seconds, and every test process collects this file

    made = []
    for build in (
        lambda: ResNet(LAYOUTS[name], DROP_PATH),
        lambda: timm.create_model(name, num_classes=1000, drop_path_rate=DROP_PATH),
    ):
        torch.manual_seed(3)
        made.append(build())
        made[-1].following = torch.rand(1)  # whoever draws next gets the same
    return made


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_shapes_order_and_channels(name):
    import timm

    with torch.device("meta"):
        ours, theirs = ResNet(LAYOUTS[name]), timm.create_model(name, num_classes=1000)
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]
    # the order of optimizer states
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    assert ours.stage_channels == [info["num_chs"] for info in theirs.feature_info[1:]]


@pytest.mark.parametrize("name", ["resnet10t", "resnet14t", "resnet18", "resnet26", "test_resnet"])
def test_a_step_is_the_same_to_the_last_bit(name, monkeypatch):
    # shortcuts are products of their own on a CPU, equal to rounding (test_convolutions.py)
    monkeypatch.setattr(StridedConv2d, "forward", torch.nn.Conv2d.forward)
    ours, theirs = twins(name)
    assert torch.equal(ours.following, theirs.following)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    pixels = torch.randn(3, 3, 80, 72)
    results = []
    for network in (ours, theirs):
        with torch.no_grad():  # a last norm of zero would hide the branches
            for value in network.parameters():
                if value.dim() == 1:
                    value.add_(0.5)
        torch.manual_seed(4)
        features = network.train().forward_features(pixels)
        features.square().sum().backward()
        results.append((features, {key: value.grad for key, value in network.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    for key, gradient in results[1][1].items():
        own = results[0][1][key]
        assert gradient is own is None or torch.equal(own, gradient), key
    for key, value in theirs.named_buffers():
        assert torch.equal(ours.get_buffer(key), value), key
    with torch.no_grad():
        assert torch.equal(ours.eval().forward_features(pixels), theirs.eval().forward_features(pixels))


def test_other_names_are_timms():
    import timm

    with torch.device("meta"):
        network = build_image_encoder(
            ModelConfig.from_options(image_encoder_name="resnet", resnet_type="resnet26d").image
        )
        theirs = timm.create_model("resnet26d", num_classes=1000)
    assert type(network) is type(theirs) and (network.out_channels, network.stride) == (1024, 16)


def test_a_start_imports_neither_timm_nor_torchvision():
    """They took longer than importing torch itself."""
    program = (
        "import sys, unival\n"
        "unival.build_model('unival_tiny', vocab_size=600, video_encoder_name='all_resnext18')\n"
        "print([name for name in ('timm', 'torchvision', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
