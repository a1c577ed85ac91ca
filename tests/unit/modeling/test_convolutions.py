"""Convolutions in forms of our own are torch's: values and all gradients, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unival.modeling.audio import build_audio_encoder
from unival.modeling.config import ModelConfig
from unival.modeling.convolutions import (
    GroupedConv3d,
    NarrowConv2d,
    PointwiseConv3d,
    StridedConv2d,
    WideConv3d,
)
from unival.modeling.video import ResNeXt3D

# form, channels in and out, batch and size of the maps, arguments
CASES = {
    "stride": (StridedConv2d, 6, 10, (2, 8, 12), {"kernel_size": 1, "stride": 2}),
    "stride, odd": (StridedConv2d, 6, 10, (3, 9, 7), {"kernel_size": 1, "stride": 2}),
    "stride 1": (StridedConv2d, 6, 10, (3, 9, 7), {"kernel_size": 1}),
    "stride with bias": (StridedConv2d, 6, 10, (1, 5, 6), {"kernel_size": 1, "stride": (2, 3), "bias": True}),
    # oneDNN's own of the next six are no numbers, or any, in bfloat16 on processors with AMX
    "stride, narrow": (StridedConv2d, 64, 64, (1, 14, 1), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "stride, narrow, 7": (StridedConv2d, 3, 64, (1, 32, 4), {"kernel_size": 7, "stride": 2, "padding": 3}),
    "clip, stride": (PointwiseConv3d, 64, 128, (1, 2, 28, 28), {"kernel_size": 1, "stride": 2}),
    "clip, large maps": (PointwiseConv3d, 128, 256, (1, 2, 40, 40), {"kernel_size": 1}),
    "clip, larger maps": (PointwiseConv3d, 64, 128, (2, 1, 56, 56), {"kernel_size": 1, "bias": True}),
    "clip, one frame": (
        WideConv3d,
        3,
        64,
        (1, 1, 16, 16),
        {"kernel_size": 7, "stride": (1, 2, 2), "padding": 3},
    ),
    "narrow": (NarrowConv2d, 5, 7, (2, 9, 2), {"kernel_size": 3, "padding": 1}),
    "narrower": (NarrowConv2d, 5, 7, (1, 4, 1), {"kernel_size": 3, "padding": 1}),
    "as wide as the kernel": (NarrowConv2d, 5, 7, (2, 9, 3), {"kernel_size": 3, "padding": 1}),
    "narrow with bias": (NarrowConv2d, 5, 7, (2, 9, 2), {"kernel_size": 3, "padding": 1, "bias": True}),
    "narrow for 5": (NarrowConv2d, 5, 7, (2, 9, 4), {"kernel_size": 5, "padding": 2}),
    "small groups": (GroupedConv3d, 32, 32, (2, 3, 6, 5), {"groups": 8}),
    "small groups, stride": (GroupedConv3d, 32, 64, (1, 4, 7, 6), {"groups": 8, "stride": 2}),
    "tiny groups": (GroupedConv3d, 16, 16, (1, 3, 4, 4), {"groups": 16}),
    "groups that do not join": (GroupedConv3d, 24, 24, (1, 3, 4, 4), {"groups": 6}),
    "narrow groups, one frame, stride": (GroupedConv3d, 512, 512, (1, 1, 3, 2), {"groups": 32, "stride": 2}),
    "narrow groups, stride": (GroupedConv3d, 64, 64, (1, 4, 5, 1), {"groups": 8, "stride": 2}),
    "wide groups": (GroupedConv3d, 32, 32, (1, 2, 6, 5), {"groups": 4}),
    # oneDNN's own weight gradients of these are wrong in bfloat16
    "two frames": (GroupedConv3d, 64, 64, (1, 2, 8, 8), {"groups": 4}),
    "two frames, joined": (GroupedConv3d, 32, 32, (1, 2, 8, 8), {"groups": 8}),
    "one row, stride": (GroupedConv3d, 64, 64, (1, 4, 1, 5), {"groups": 4, "stride": 2}),
    "one frame": (GroupedConv3d, 32, 32, (2, 1, 6, 5), {"groups": 8}),
    "one frame, stride": (GroupedConv3d, 32, 32, (1, 1, 7, 6), {"groups": 4, "stride": 2, "bias": True}),
}


def layer_of(case):
    form, channels, out, _, arguments = CASES[case]
    if form is GroupedConv3d:
        arguments = {"kernel_size": 3, "padding": 1, **arguments}
    torch.manual_seed(1)
    return form(channels, out, **{"bias": False, **arguments})


def results(layer, call, x, dtype):
    """Values, gradient of the input, gradients of the parameters."""
    x = x.detach().to(dtype).requires_grad_()
    layer = layer.to(dtype)
    y = call(layer, x)
    gradient = torch.linspace(-1, 1, y.numel()).view(y.shape).to(dtype)
    found = [y, *torch.autograd.grad(y, [x, *layer.parameters()], gradient)]
    return [value.detach().double() for value in found]


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 2e-6), (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_plain_form(case, dtype, limit):
    layer, (form, channels, _, (batch, *size), _) = layer_of(case), CASES[case]
    x = torch.randn(batch, channels, *size).to(dtype)
    layer.to(dtype)
    # the truth from the same rounded weights
    truth = results(layer, form.__bases__[0].forward, x, torch.float64)
    own = results(layer, lambda module, value: module(value), x, dtype)
    for expected, found in zip(truth, own, strict=True):
        assert found.shape == expected.shape and found.isfinite().all()
        assert (found - expected).abs().max() <= limit * expected.abs().max()


@pytest.mark.parametrize("case", ["stride", "narrow", "small groups", "one frame"])
def test_maps_of_the_other_order_and_cut_out_ones(case):
    layer, (form, channels, _, (batch, *size), _) = layer_of(case), CASES[case]
    order = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    x = torch.randn(batch, channels, *[2 * edge for edge in size])[..., : size[-1]]
    x = x[:, :, : size[0]] if len(size) == 2 else x[:, :, : size[0], : size[1]]
    expected = form.__bases__[0].forward(layer, x)
    for maps in (x, x.contiguous(memory_format=order)):
        torch.testing.assert_close(layer(maps), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["stride", "small groups"])
def test_without_gradients_nothing_changes(case):
    layer, (form, channels, _, (batch, *size), _) = layer_of(case), CASES[case]
    x = torch.randn(batch, channels, *size)
    with torch.no_grad():
        assert torch.equal(layer(x), form.__bases__[0].forward(layer, x))
    layer.requires_grad_(False)
    assert torch.equal(layer(x.requires_grad_()), form.__bases__[0].forward(layer, x))


def test_no_zeros_are_multiplied_for_a_single_frame():
    layer = layer_of("one frame")
    x = torch.randn(2, 32, 1, 6, 5)
    layer(x).square().sum().backward()
    assert layer.weight.grad[:, :, 1].abs().min() > 0
    assert not layer.weight.grad[:, :, ::2].any()
    with torch.no_grad():
        layer.weight[:, :, ::2] = torch.nan  # 0 times nan is nan
    assert layer(x).isfinite().all()


def test_the_network_of_sounds_meets_narrow_maps():
    network = build_audio_encoder(ModelConfig.from_options(audio_encoder_name="pann_cnn14").audio)
    seen = []
    for block in (network.conv_block5, network.conv_block6):
        block.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].size(3)))
    network.eval()(torch.randn(1, network.min_samples))
    assert seen == [4, 2]
    assert network.conv_block6.conv2.kernel_size == (3, 3)


def test_a_block_diagonal_weight_is_the_grouped_one():
    from unival.modeling.convolutions import _block_diagonal

    weight = torch.arange(8.0 * 2).view(8, 2, 1, 1, 1)  # 4 groups of 2 channels in and out
    dense = _block_diagonal(weight, groups=4, joined=2)
    assert dense.shape == (8, 4, 1, 1, 1)
    assert dense[:2, 2:].abs().sum() == dense[2:4, :2].abs().sum() == 0
    x = torch.randn(1, 8, 1, 2, 2)
    torch.testing.assert_close(F.conv3d(x, dense, groups=2), F.conv3d(x, weight, groups=4))


@pytest.mark.parametrize("case", ["two frames", "two frames, joined", "small groups"])
def test_gradients_under_autocast(case):
    layer, (_, channels, _, (batch, *size), _) = layer_of(case), CASES[case]
    x = torch.randn(batch, channels, *size)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    own = layer.weight.grad.clone()
    layer.weight.grad = None
    torch.nn.Conv3d.forward(layer, x).sum().backward()
    assert (own - layer.weight.grad).abs().max() <= 1e-2 * layer.weight.grad.abs().max()


def test_a_compiled_sound_network_learns():
    """The gradient of a map has the order that its own operation expects."""
    block = torch.nn.Sequential(NarrowConv2d(4, 6, 3, padding=1, bias=False), torch.nn.BatchNorm2d(6))
    x = torch.randn(2, 4, 9, 2)
    compiled = torch.compile(block, backend="aot_eager")
    compiled(x).square().sum().backward()
    own = block[0].weight.grad.clone()
    block.zero_grad()
    block(x).square().sum().backward()
    torch.testing.assert_close(own, block[0].weight.grad)


@pytest.mark.parametrize("frames, pixels", [(8, 128), (4, 224), (1, 96), (5, 40)])
def test_clips_learn_in_bfloat16(frames, pixels):
    """Gradients of the whole network, norms in evaluation mode: those of training magnify any rounding."""
    torch.manual_seed(0)
    network = ResNeXt3D((1, 1, 1, 1), 4).eval()
    clip = torch.randn(1, 3, frames, pixels, pixels)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        network = network.to(dtype)
        values = network(clip.to(dtype))
        values.float().square().mean().backward()
        found.append([parameter.grad.float() for parameter in network.parameters()])
        network.zero_grad()
    for (name, _), want, got in zip(network.named_parameters(), *found, strict=True):
        assert (got - want).norm() <= 0.2 * want.norm(), name
