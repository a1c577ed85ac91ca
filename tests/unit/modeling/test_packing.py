"""Copies of large weights in generation: when they come, that they follow their weights, when they go."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from unival.modeling import copies, packing, products

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="this torch has no oneDNN"
)
TYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """On any processor, for weights of any size, from the first product on."""
    monkeypatch.setattr(products, "WAY", products.on_intel)
    monkeypatch.setattr(packing, "NUMBERS", 0)
    monkeypatch.setattr(packing, "USES", 0)
    copies.release()
    yield
    copies.release()


@pytest.fixture(params=TYPES, ids=["float32", "bfloat16"])
def layer(request):
    if request.param == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    torch.manual_seed(0)
    return products.Linear(40, 70).to(request.param)


def search(layer, x):
    """One product in a search of its own."""
    with torch.no_grad(), products.generating():
        return layer(x)


def check(layer, x):
    """As float32 says, to rounding."""
    exact = F.linear(x.float(), layer.weight.detach().float(), layer.bias.detach().float())
    atol = 2e-6 if x.dtype == torch.float32 else 0.02  # measured 4e-7, and bfloat16's own rounding
    torch.testing.assert_close(search(layer, x).float(), exact, rtol=0, atol=atol)


def copy_of(layer):
    found = copies._copies.get(layer.weight)
    return None if found is None else found.made


@pytest.mark.parametrize("leading", [(1,), (2,), (3,), (5, 1), (2, 4), (packing.ROWS,), (packing.ROWS + 1,)])
def test_values_are_those_of_the_weight(layer, leading):
    x = torch.randn(*leading, 40).to(layer.weight.dtype)
    without = products.of_onednn(x, layer.weight.detach(), layer.bias.detach())
    check(layer, x)
    rows = x.numel() // 40
    pays = packing.LEAST[x.dtype] <= rows <= packing.ROWS
    assert (copy_of(layer) is not None) == pays
    if pays:
        assert torch.equal(search(layer, x), without), "with a copy as without"


def test_a_copy_comes_when_it_has_paid(layer, monkeypatch):
    monkeypatch.setattr(packing, "USES", 4)
    x = torch.randn(5, 40).to(layer.weight.dtype)
    for _ in range(4 * layer.weight.element_size()):
        check(layer, x)
        assert copy_of(layer) is None
    check(layer, x)
    first = copy_of(layer)
    assert first is not None and first.is_mkldnn
    check(layer, x)
    assert copy_of(layer) is first, "searches share it"


def traceless(weight, how):
    """Change a weight as averages and optimizers of the engine do: its count of changes stays."""
    count = weight._version
    if how == "values":
        weight.data[3, 7] += 1
    elif how == "rows":
        weight.data[:] = weight.data.flip(0)
    elif how == "storage":
        weight.data = weight.data * 2
    assert weight._version == count


@pytest.mark.parametrize("how", ["values", "rows", "storage", "counted"])
def test_a_changed_weight_is_seen_by_the_next_search(layer, how):
    x = torch.randn(5, 40).to(layer.weight.dtype)
    check(layer, x)
    first = copy_of(layer)
    if how == "counted":
        with torch.no_grad():
            layer.weight.mul_(-1)
    else:
        traceless(layer.weight, how)
    check(layer, x)
    assert copy_of(layer) is not first


def test_weights_made_for_one_product_are_not_confused(layer):
    """Adapters add to a weight in every product: the sums follow each other at the same place in memory."""
    x = torch.randn(5, 40).to(layer.weight.dtype)
    with torch.no_grad(), products.generating():
        for number in range(6):
            weight = layer.weight.detach() * number
            got = products.linear(x, weight, None)
            torch.testing.assert_close(got, F.linear(x, weight), rtol=0, atol=0.05)
            del weight


def test_memory_goes_with_the_weight_and_on_demand(layer):
    x = torch.randn(5, 40).to(layer.weight.dtype)
    check(layer, x)
    gone = weakref.ref(copy_of(layer))
    copies.release()
    gc.collect()
    assert gone() is None
    check(layer, x)
    gone = weakref.ref(copy_of(layer))
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    gc.collect()
    assert gone() is None


def test_nothing_else_is_copied(layer):
    x = torch.randn(5, 40).to(layer.weight.dtype)
    with torch.no_grad():
        layer(x)
    with products.generating():
        layer(x).sum().backward()
    with torch.inference_mode():
        weight = layer.weight.clone()
    with torch.no_grad(), products.generating():
        for other in (weight, layer.weight.t().contiguous().t()):
            for _ in range(3):
                products.linear(x, other, None)
    assert not len(copies._copies)


def test_a_weight_within_other_memory_is_followed(layer):
    """Its rows cannot be read by the longest words."""
    x = torch.randn(5, 40).to(layer.weight.dtype)
    flat = torch.zeros(1 + layer.weight.numel(), dtype=x.dtype)
    inner = flat[1:].view_as(layer.weight)
    with torch.no_grad():
        for values in (layer.weight, -layer.weight):
            inner.data.copy_(values)
            with products.generating():
                got = products.linear(x, inner, None)
            torch.testing.assert_close(got, F.linear(x, values), rtol=0, atol=0.05)
            assert copies._copies[inner].made is not None


def test_without_memory_for_a_copy_products_go_on(layer, monkeypatch):
    x = torch.randn(5, 40).to(layer.weight.dtype)
    want = search(layer, x)
    asked = []

    def refused(*_):
        asked.append(1)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    copies.release()
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refused)
    for _ in range(3):
        assert torch.equal(search(layer, x), want)
    assert len(asked) == 1


def test_a_validation_gives_the_memory_back(layer):
    """The training that goes on would keep copies of weights that are no more."""
    pytest.importorskip("fairseq")
    from argparse import Namespace

    from unival.tasks.validation import Validation

    check(layer, torch.randn(5, 40).to(layer.weight.dtype))
    assert copy_of(layer) is not None
    Validation([], None, Namespace()).scores()
    assert not len(copies._copies)
