"""Products in generation, by the way of each processor; all of them run on any that has oneDNN."""

import pytest
import torch
import torch.nn.functional as F

from unival.modeling import products
from unival.modeling.layers import channels_last

SHAPES = [(4, 6), (6, 4), (700, 24), (1100, 1000)]  # (N, K)
LEADING = [(), (1,), (5, 1), (2, 4), (3, 17), (0, 3), (70,)]


@pytest.fixture(params=[*products.WAYS.values(), None], ids=[*products.WAYS, "torch"])
def way(request, monkeypatch):
    if request.param and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "WAY", request.param)
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_shapes_are_those_of_torch(way, shape, leading, biased):
    torch.manual_seed(0)
    layer = products.Linear(shape[1], shape[0], bias=biased)
    x = torch.randn(*leading, 2 * shape[1])[..., ::2]  # not contiguous
    with torch.no_grad(), products.generating():
        got, want = layer(x), F.linear(x, layer.weight, layer.bias)
    # measured 2.4e-7, and 2.1e-6 for sums of a thousand
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6 if shape[1] < 100 else 4e-6)


def test_gradients_keep_the_way_of_torch(way):
    layer = products.Linear(8, 12)
    x = torch.randn(5, 8)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    maps = torch.randn(1, 8, 4, 4)
    assert channels_last(maps) is maps
    with torch.no_grad():
        assert channels_last(maps) is maps, "no generation: logits keep the reference's sums"
    with torch.no_grad(), products.generating():
        assert channels_last(maps).is_contiguous(memory_format=torch.channels_last) == (way is not None)


@pytest.mark.parametrize("context", [torch.float32, torch.bfloat16])
def test_other_types_keep_the_way_of_torch(way, context):
    """bfloat16 weights, and float32 weights under autocast."""
    layer = products.Linear(8, 12).to(context)
    x = torch.randn(5, 8).to(context)
    with (
        torch.no_grad(),
        products.generating(),
        torch.autocast("cpu", torch.bfloat16, enabled=context == torch.float32),
    ):
        got, want = layer(x), F.linear(x, layer.weight, layer.bias)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, want)
