"""Maps that are made again in the backward pass: the same bits, less memory, and norms that stay torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from unival.modeling import remaking
from unival.modeling.audio import CHANNELS, Pann
from unival.modeling.remaking import remade, remakes
from unival.modeling.resnet import LAYOUTS, ResNet
from unival.modeling.video import ResNeXt3D

NETWORKS = {
    "resnet10t": (lambda: ResNet(LAYOUTS["resnet10t"]), (3, 3, 65, 72)),
    "resnet50": (lambda: ResNet(LAYOUTS["resnet50"], 0.2), (2, 3, 96, 64)),
    "video": (lambda: ResNeXt3D((1, 2, 1, 1), 4), (2, 3, 8, 40, 48)),
    "sounds": (lambda: Pann(CHANNELS["pann_cnn14"], 3, 64, 480), (2, 40000)),
    "sounds, one convolution": (lambda: Pann(CHANNELS["pann_cnn6"], 5, 64, 480), (2, 40000)),
}


def drawn(network):
    torch.manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, 0.3, 1)
            nn.init.normal_(norm.bias, 0, 0.2)
    return network


def in_type(network, dtype):
    """With norms in float32, as training has them."""
    network.to(dtype)
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.float()
    return network


def learned(network, media, backward=1):
    """Features, gradients and statistics of two batches."""
    network = copy.deepcopy(network)
    torch.manual_seed(2)
    run = network if not isinstance(network, ResNet) else network.forward_features
    for batch in (media, media + 0.5):
        features = run(batch)
        for left in reversed(range(backward)):
            features.float().square().mean().backward(retain_graph=left > 0)
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.requires_grad}
    return {"features": features, **gradients, **dict(network.named_buffers())}


@pytest.fixture
def both(monkeypatch):
    """The same thing with maps that are kept, and with maps that are all made again."""

    def run(*arguments, **options):
        monkeypatch.setattr(remaking, "LEAST", 2**60)
        kept = learned(*arguments, **options)
        counted = []
        monkeypatch.setattr(remaking, "LEAST", 0)
        plain = remaking._Standing.needed

        def counting(self, tensor):
            counted.append(tensor is None)
            return plain(self, tensor)

        monkeypatch.setattr(remaking._Standing, "needed", counting)
        again = learned(*arguments, **options)
        assert any(counted)
        assert kept.keys() == again.keys()
        return kept, again

    return run


def equal(kept, again):
    for name, value in kept.items():
        assert value is again[name] is None or torch.equal(value, again[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_statistics_are_the_same_bits(name, dtype, both):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = in_type(drawn(build()), dtype).train()
    sound = isinstance(network, Pann)
    equal(
        *both(
            network, torch.randn(*shape) * (0.1 if sound else 1) if sound else torch.randn(*shape).to(dtype)
        )
    )


def test_several_backward_passes_of_one_graph(both):
    build, shape = NETWORKS["resnet10t"]
    equal(*both(drawn(build()).train(), torch.randn(*shape), backward=3))


def test_norms_that_stay_as_they_are(both):
    build, shape = NETWORKS["resnet10t"]
    network = drawn(build()).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    equal(*both(network, torch.randn(*shape)))


@pytest.mark.parametrize("frozen", ["conv2.weight", "bn1.weight", "bn2.bias"])
def test_weights_that_do_not_learn(frozen, both):
    build, shape = NETWORKS["resnet50"]
    network = drawn(build()).train()
    for name, weight in network.named_parameters():
        weight.requires_grad_(not name.endswith(frozen))
    equal(*both(network, torch.randn(*shape)))


def test_maps_are_gone_until_they_are_needed():
    norm, convolution = nn.BatchNorm2d(64), nn.Conv2d(64, 8, 3)
    x = torch.randn(2, 64, 64, 64, requires_grad=True)
    assert remakes(norm, x)
    places = []

    def use(maps):
        places.append(StorageWeakRef(maps.untyped_storage()))
        return convolution(maps)

    result = remade(norm, x, use)
    assert places[0].expired()
    result.sum().backward()
    kept = use(norm(x.detach().requires_grad_()).relu_())
    assert not places[1].expired()
    del kept


def test_maps_made_again_live_once_and_not_long(monkeypatch):
    """Both the convolution and the ReLU ask for them; afterwards nobody holds them."""
    norm, convolution = nn.BatchNorm2d(64), nn.Conv2d(64, 8, 3)
    x = torch.randn(2, 64, 64, 64, requires_grad=True)
    made = []
    plain = remaking.F.batch_norm

    def counting(*arguments):
        maps = plain(*arguments)
        made.append(StorageWeakRef(maps.untyped_storage()))
        return maps

    result = remade(norm, x, convolution)
    monkeypatch.setattr(remaking.F, "batch_norm", counting)
    result.sum().backward(retain_graph=True)
    assert len(made) == 1 and made[0].expired()
    result.sum().backward()
    assert len(made) == 2 and made[1].expired()


def test_where_norms_stay_torchs():
    norm = nn.BatchNorm2d(64)
    x = torch.randn(2, 64, 64, 64, requires_grad=True)
    assert remakes(norm, x)
    assert not remakes(norm, x[:, :, :8])  # small
    assert not remakes(norm, x.detach())
    assert not remakes(nn.SyncBatchNorm(64), x)
    assert not remakes(nn.BatchNorm2d(64, affine=False), x)
    assert not remakes(nn.BatchNorm2d(64, momentum=None), x)
    assert not remakes(nn.BatchNorm2d(64, track_running_stats=False), x)
    with torch.no_grad():
        assert not remakes(norm, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not remakes(norm, x)
    norm.register_forward_hook(lambda *_: None)
    assert not remakes(norm, x)
