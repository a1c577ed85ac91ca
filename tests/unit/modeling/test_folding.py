"""Convolution and norm as one pass in generation: values, what follows whom, and where torch's own passes stay."""

import gc
import itertools
import weakref
from functools import partial

import pytest
import torch
from torch import nn

from unival.modeling import copies, folding, products
from unival.modeling.audio import CHANNELS, Pann
from unival.modeling.folding import Chain, added, normed
from unival.modeling.layers import DropPath, channels_last
from unival.modeling.resnet import LAYOUTS, ResNet
from unival.modeling.video import ResNeXt3D

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_convolution_weight"), reason="this torch has no oneDNN"
)
# Of the largest value: measured 1e-6, and with bfloat16's own rounding 0.02 (as far from float32 as torch's are).
LIMIT = {torch.float32: 5e-6, torch.bfloat16: 0.04}


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    monkeypatch.setattr(products, "WAY", products.on_intel)
    monkeypatch.setattr(folding, "PAYS", True)
    copies.release()
    yield
    copies.release()


@pytest.fixture(params=LIMIT, ids=["float32", "bfloat16"])
def dtype(request):
    if not copies.onednn_has(request.param):
        pytest.skip("this processor has no bfloat16")
    return request.param


def evaluated(network):
    """With norms that do something."""
    torch.manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.3, 1)
            nn.init.normal_(norm.bias, 0, 0.2)
    return network.eval()


def searched(function, *inputs):
    with torch.no_grad(), products.generating():
        return function(*inputs)


def close(got, want, limit):
    assert got.shape == want.shape and got.dtype == want.dtype
    assert (got.float() - want.float()).abs().max() <= limit * want.float().abs().max()


NETWORKS = {
    "resnet10t": (lambda: ResNet(LAYOUTS["resnet10t"]), (3, 3, 65, 72)),
    "resnet18": (lambda: ResNet(LAYOUTS["resnet18"]), (2, 3, 64, 40)),
    "resnet50": (lambda: ResNet(LAYOUTS["resnet50"]), (2, 3, 96, 64)),
    "video": (lambda: ResNeXt3D((1, 2, 2, 1), 4), (2, 3, 8, 40, 48)),
    "one frame": (lambda: ResNeXt3D((2, 1, 1, 1), 4), (2, 3, 1, 40, 48)),
    "sounds": (lambda: Pann(CHANNELS["pann_cnn14"], 3, 64, 480), (2, 40000)),
}


def network_of(name, dtype):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = evaluated(build()).to(dtype)
    media = torch.randn(*shape)
    if isinstance(network, Pann):
        return network, media * 0.1
    if isinstance(network, ResNet):
        return network.forward_features, media.to(dtype)
    return network, media.to(dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_what_they_give(name, dtype):
    network, media = network_of(name, dtype)
    with torch.no_grad():
        want = network(media)
    got = searched(network, media)
    close(got, want, LIMIT[dtype])
    sounds_as_they_were = name == "sounds" and dtype == torch.float32
    assert bool(len(copies._copies)) != sounds_as_they_were
    assert torch.equal(got, want) == sounds_as_they_were
    assert torch.equal(searched(network, media), got), "the next search finds the copies"
    copies.release()
    assert torch.equal(searched(network, media), got), "and a first one the same values"


@pytest.mark.parametrize("name", ["resnet50", "video"])
def test_rows_do_not_depend_on_their_batch(name, dtype):
    network, media = network_of(name, dtype)
    alone = [searched(network, media[row : row + 1]) for row in range(len(media))]
    assert torch.equal(searched(network, media), torch.cat(alone))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_order_of_maps(name, dtype):
    network, media = network_of(name, dtype)
    close(searched(network, channels_last(media)), searched(network, media), LIMIT[dtype])


def pair(dtype=torch.float32):
    torch.manual_seed(0)
    chain = evaluated(Chain(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)))
    return chain.to(dtype), torch.randn(2, 8, 9, 7).to(dtype)


def known(chain):
    return copies._copies.get(chain[0].weight)


@pytest.mark.parametrize("orders", list(itertools.product((False, True), repeat=2)))
def test_a_sum_is_written_over_what_it_is_added_to(dtype, orders):
    chain, x = pair(dtype)
    to = torch.randn(2, 12, 9, 7).to(dtype)
    x, to = (
        tensor if not innermost else tensor.contiguous(memory_format=torch.channels_last)
        for tensor, innermost in zip((x, to), orders, strict=True)
    )
    with torch.no_grad():
        want = added([tuple(chain)], x, to.clone())
        got = searched(added, [tuple(chain)], x, to)
    close(got, want, LIMIT[dtype])
    assert torch.equal(got, to)


@pytest.mark.parametrize("part", ["convolution", "weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("traced", [True, False], ids=["traced", "traceless"])
def test_what_changes_is_seen_by_the_next_search(part, traced):
    """Optimizers and averages write through ``.data``, which torch does not count."""
    chain, x = pair()
    first = searched(chain, x)
    tensor = chain[0].weight if part == "convolution" else getattr(chain[1], part)
    with torch.no_grad():
        if traced:
            tensor.add_(0.5)
        else:
            tensor.data.add_(0.5)
        want = chain(x)
    got = searched(chain, x)
    assert not torch.equal(got, first)
    close(got, want, LIMIT[torch.float32])


def test_a_step_of_training_is_seen():
    chain, x = pair()
    searched(chain, x)
    chain.train()
    chain(x).sum().backward()
    torch.optim.SGD(chain.parameters(), 0.1).step()
    chain.eval()
    with torch.no_grad():
        want = chain(x)
    close(searched(chain, x), want, LIMIT[torch.float32])


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def doubled(chain):
    other = Doubled(8, 12, 3, padding=1, bias=False)
    other.load_state_dict(chain[0].state_dict())
    chain[0] = other


def with_bias(chain):
    chain[0].bias = nn.Parameter(torch.ones(12))


def reflecting(chain):
    chain[0].padding_mode = "reflect"
    chain[0]._reversed_padding_repeated_twice = [1, 1, 1, 1]


def with_a_method(chain):
    own = chain[0].forward
    chain[0].forward = lambda x: 2 * own(x)


OWN_WAYS = {
    "method": with_a_method,
    "hook": lambda chain: chain[0].register_forward_hook(lambda module, inputs, output: output + 1),
    "pre-hook": lambda chain: chain[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,)),
    "parametrized": lambda chain: nn.utils.parametrizations.weight_norm(chain[0]),
    "subclass": doubled,
    "bias": with_bias,
    "padding": reflecting,
    "norm learns": lambda chain: chain[1].train(),
    "no statistics": lambda chain: setattr(chain, "1", nn.BatchNorm2d(12, track_running_stats=False).eval()),
    "other norm": lambda chain: setattr(chain, "1", nn.GroupNorm(3, 12)),
    "half": lambda chain: chain.half(),
}


@pytest.mark.parametrize("how", OWN_WAYS)
def test_modules_with_ways_of_their_own_keep_them(how):
    chain, x = pair()
    OWN_WAYS[how](chain)
    x = x.to(chain[0].weight.dtype)
    with torch.no_grad():
        want = chain(x)
    assert torch.equal(searched(chain, x), want)
    assert not len(copies._copies)


def test_a_weight_that_two_share():
    """One convolution before two norms, and one weight in two convolutions."""
    chain, x = pair()
    norm = evaluated(nn.BatchNorm2d(12))
    strided = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
    strided.weight = chain[0].weight
    with torch.no_grad():
        wanted = chain(x), norm(chain[0](x)), chain[1](strided(x))
        with products.generating():
            found = chain(x), Chain(chain[0], norm)(x), Chain(strided, chain[1])(x)
    for got, want in zip(found, wanted, strict=True):
        close(got, want, LIMIT[torch.float32])


@pytest.mark.parametrize("part, value", [("eps", 0.5), ("stride", (2, 2)), ("padding", (0, 0))])
def test_another_setting_is_seen(part, value):
    chain, x = pair()
    searched(chain, x)
    setattr(chain[1 if part == "eps" else 0], part, value)
    with torch.no_grad():
        want = chain(x)
    close(searched(chain, x), want, LIMIT[torch.float32])


def test_a_branch_that_drops_rows_is_kept():
    chain, x = pair()
    to, branch = torch.zeros(2, 12, 9, 7), DropPath(0.999).train()
    torch.manual_seed(0)
    assert not searched(added, [tuple(chain)], x, to, branch).any()
    close(
        searched(added, [tuple(chain)], x, to, branch.eval()), searched(chain, x).relu(), LIMIT[torch.float32]
    )


def test_nothing_but_a_search_on_a_cpu_folds(monkeypatch):
    chain, x = pair()
    with torch.no_grad():
        chain(x)
    with products.generating():
        chain(x).sum().backward()
    with torch.no_grad(), products.generating(), torch.autocast("cpu"):
        chain(x)
    assert searched(chain, x[:0]).shape == (0, 12, 9, 7)
    for module, name, value in ((products, "WAY", None), (folding, "PAYS", False)):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, value)
            searched(chain, x)
    assert not len(copies._copies)
    searched(chain, x)
    assert known(chain).made is not None


def test_copies_go_with_their_weights():
    chain, x = pair()
    searched(chain, x)
    gone = weakref.ref(known(chain))
    del chain
    gc.collect()
    assert gone() is None


def test_without_memory_for_a_copy_the_passes_are_torchs(monkeypatch):
    chain, x = pair()

    def refused(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", refused)
    with torch.no_grad():
        want = chain(x)
    for _ in range(2):
        assert torch.equal(searched(chain, x), want)


def test_relu_of_a_chain():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3)]
    norms = [nn.BatchNorm2d(4) for _ in range(2)]
    chain = Chain(
        convolutions[0], norms[0], nn.ReLU(), convolutions[1], norms[1], nn.AvgPool2d(2), convolutions[2]
    )
    evaluated(chain)
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        want = nn.Sequential(*chain)(x)
    close(searched(chain, x), want, LIMIT[torch.float32])
    assert len(copies._copies) == 2
    hooked = []
    chain[2].register_forward_hook(lambda module, inputs, output: hooked.append(output.min() >= 0))
    close(searched(chain, x), want, LIMIT[torch.float32])
    assert hooked == [True]


def test_normed_has_a_relu_and_an_order():
    chain, x = pair()
    with torch.no_grad():
        want = chain(x).relu()
        assert torch.equal(normed([tuple(chain)], x), want)
        assert torch.equal(normed([tuple(chain)], x, torch.neg), -want)
    innermost = searched(partial(normed, [tuple(chain)], order=channels_last), x)
    close(innermost, want, LIMIT[torch.float32])
    assert torch.equal(searched(partial(normed, [tuple(chain)], in_float32=False), x), want), "not in float32"
