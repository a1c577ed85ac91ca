"""Maps that are made again in the backward pass: the same bits, less memory, and norms that stay torch's own."""

import copy

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from unival.modeling import remaking
from unival.modeling.audio import CHANNELS, Pann
from unival.modeling.folding import normed
from unival.modeling.remaking import counting, remade, remakes
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


def kept_bytes(network, media):
    """Bytes that autograd keeps of a pass, beside what is made again."""
    storages = {}

    def see(tensor):
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with counting(see, "cpu"):
        run = network.forward_features if isinstance(network, ResNet) else network
        result = run(media)
    held = sum(storage.nbytes() for storage in storages.values())
    result.float().sum().backward()
    return held - sum(weight.nbytes for weight in network.parameters())


@pytest.mark.parametrize(("name", "share"), [("resnet50", 0.72), ("video", 0.8), ("sounds", 0.7)])
def test_networks_keep_less(name, share, monkeypatch):
    build, shape = NETWORKS[name]
    network = build().train()
    media = torch.randn(*shape) * 0.1
    found = []
    for least in (0, 2**60):
        monkeypatch.setattr(remaking, "LEAST", least)
        found.append(kept_bytes(network, media))
    assert found[0] < share * found[1]


class Two(nn.Module):
    """Two convolutions and a norm between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.second = nn.Conv2d(64, 8, 3)
        drawn(self)

    def forward(self, x):
        return normed([(self.first, self.norm)], x, self.second).square().mean()


@pytest.fixture
def gradients(monkeypatch):
    """What a function of a model and media says or raises, with maps that are kept and that are made again."""
    torch.manual_seed(3)
    media = torch.randn(2, 3, 64, 64)

    def compare(function, training=True):
        found = []
        for least in (2**60, 2**20):
            monkeypatch.setattr(remaking, "LEAST", least)
            model = Two().train(training)
            try:
                function(model, media)
                found.append([weight.grad for weight in model.parameters()])
            except RuntimeError as error:
                found.append(str(error)[:60])
        return found

    return compare


def same(found):
    kept, again = found
    return all(one is two is None or torch.equal(one, two) for one, two in zip(kept, again, strict=True))


def test_numbers_that_move_before_the_backward_pass(gradients):
    def biases(model, media):
        loss = model(media)
        with torch.no_grad():
            model.norm.bias.add_(0.5)
        loss.backward()

    def statistics(model, media):
        loss = model(media)
        model.train()(media * 3)
        loss.backward()

    assert same(gradients(biases))
    kept, again = gradients(statistics, training=False)
    assert torch.equal(
        kept[3], again[3]
    )  # of the second convolution; torch's norm reads what has moved, both ways


def test_what_was_changed_in_place_is_refused(gradients):
    def stepped(model, media):
        loss = model(media)
        with torch.no_grad():
            model.second.weight.mul_(3)
        loss.backward()

    def doubled(model, media):
        model.second.register_forward_pre_hook(lambda _, maps: (maps[0].mul_(2),))
        model(media).backward()

    for function in (stepped, doubled):
        kept, again = gradients(function)
        assert kept == again == "one of the variables needed for gradient computation has bee"


def test_hooks_of_others_miss_nothing(gradients):
    seen = []

    def watched(model, media):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.nbytes) or t, lambda t: t):
            loss = model(media)
        seen.append("|")
        loss.backward()

    def refused(model, media):
        with torch.autograd.graph.disable_saved_tensors_hooks("none here"):
            model(media).backward()

    def on_every_module(model, media):
        hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
        try:
            model(media).backward()
        finally:
            hook.remove()
        seen.append("|")

    def checkpointed(model, media):
        torch.utils.checkpoint.checkpoint(model, media, use_reentrant=False).backward()

    for function in (watched, on_every_module):
        seen.clear()
        assert same(gradients(function))
        middle = seen.index("|")
        assert seen[:middle] == seen[middle + 1 : -1] and middle > 3
    assert same(gradients(refused)) and same(gradients(checkpointed))


def test_gradients_by_torch_func():
    model, media = Two().eval(), torch.randn(2, 3, 64, 64)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    found = torch.func.grad(lambda values: torch.func.functional_call(model, values, (media,)))(weights)
    model(media).backward()
    for name, weight in model.named_parameters():
        assert torch.allclose(found[name], weight.grad, atol=1e-7)


def test_checks_of_the_norm_itself():
    norm = nn.BatchNorm2d(64)
    norm.num_batches_tracked = None
    x = torch.randn(2, 64, 64, 64, requires_grad=True)
    remade(norm, x, nn.Identity()).sum().backward()
    assert not remakes(norm, x[:1, :, :1, :1].expand(1, 64, 1, 1))
    deep = torch.randn(2, 64, 4, 32, 32, requires_grad=True)
    with pytest.raises(ValueError, match="expected 4D"):
        remade(norm, deep, nn.Identity())


def test_where_norms_stay_torchs(monkeypatch):
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
    assert not remakes(nn.BatchNorm2d(64).bfloat16(), x.bfloat16())
    assert remakes(norm, x.bfloat16())
    assert remakes(norm, x.contiguous(memory_format=torch.channels_last))
    assert not remakes(norm, x.transpose(2, 3))
    with monkeypatch.context() as patched:
        patched.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not remakes(norm, x)
    for hook in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
        handle = getattr(norm, f"register_{hook}")(lambda *_: None)
        assert not remakes(norm, x)
        handle.remove()
    assert remakes(norm, x)
    without = x.detach().to("meta").requires_grad_()
    shapes = nn.BatchNorm2d(64, device="meta").bfloat16()
    assert not remakes(shapes, without)
    for device, again in (("cpu", True), ("cuda", False)):
        with counting(lambda tensor: tensor, device):
            assert remakes(shapes, without) is again
