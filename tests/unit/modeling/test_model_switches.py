"""Every switch of the reference: it does what it says, or it is refused with a remedy."""

import pytest
import torch

from tests.support.model_fixtures import ALL, mixed_batch, small_model, text
from unival.errors import ConfigError
from unival.modeling.audio import build_audio_encoder
from unival.modeling.config import REFUSED, ModelConfig
from unival.modeling.image import build_image_encoder
from unival.modeling.video import build_video_encoder

# A value that asks for something, for switches that are no plain yes or no.
ASKING = {
    "fusion_type": "aff_2d",
    "fstride": 10,
    "tstride": "10",
    "input_tdim": 1024,
    "pooler_activation_fn": "relu",
    "pooler_classifier": "linear",
    "pooler_dropout": 0.1,
    "encoder_layerdrop": 0.2,
    "decoder_layerdrop": "0.2",
    "quant_noise_pq": 0.1,
    "encoder_learned_pos": False,
    "decoder_learned_pos": False,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_switches_say_what_to_do(name):
    idle, instead = REFUSED[name]
    value = ASKING.get(name, 3 if name.startswith("unfreeze_epoch") else True)
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_options(**{name: value})
    assert name in str(error.value) and instead in str(error.value) and len(instead) > 15
    for value in idle:
        ModelConfig.from_options(**{name: value})


@pytest.mark.parametrize("depth", [50, 101, 152])
@pytest.mark.parametrize(
    ("prefix", "channels", "shape"), [("all_", 2048, (1, 7, 7)), ("", 1024, (1, 14, 14))]
)
def test_video_networks_of_every_depth(depth, prefix, channels, shape):
    """8 frames of 224 pixels: strides 16 and 32 with four stages, half of them with three."""
    config = ModelConfig.from_options(video_encoder_name=f"{prefix}resnext{depth}").video
    with torch.device("meta"):
        network = build_video_encoder(config)
        out = network(torch.empty(1, 3, 8, 224, 224))
    assert tuple(out.shape) == (1, channels, *shape) and network.out_channels == channels
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    stages = [len(getattr(network, f"layer{i + 1}")) for i in range(4 if prefix else 3)]
    assert tuple(stages) == blocks[: len(stages)]


@pytest.mark.parametrize(
    ("name", "hop", "samples", "channels", "shape"),
    [
        ("pann_cnn6", 480, 48000, 512, (6, 4)),
        ("pann_cnn10", 480, 48000, 1024, (3, 2)),
        ("pann_cnn14", 480, 480000, 2048, (31, 2)),
        ("pann_cnn14", 200, 480000, 2048, (75, 2)),
    ],
)
def test_audio_networks(name, hop, samples, channels, shape):
    """Ten seconds are 31 x 2 tokens at hop 480 and 75 x 2 at hop 200 (counted in the reference)."""
    network = build_audio_encoder(ModelConfig.from_options(audio_encoder_name=name, hop_size=hop).audio)
    frames = samples // hop + 1
    with torch.device("meta"):
        blocks = network.to("meta").eval()
        x = torch.empty(1, 1, frames, 64)
        for i in range(blocks.blocks):
            x = getattr(blocks, f"conv_block{i + 1}")(x)
            x = torch.nn.functional.avg_pool2d(x, 2) if i < blocks.pooled else x
    assert tuple(x.shape) == (1, channels, *shape)


@pytest.mark.parametrize(("name", "stride", "channels"), [("timm_resnet", 32, 2048), ("resnet", 16, 1024)])
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_image_networks(name, stride, channels, depth):
    config = ModelConfig.from_options(image_encoder_name=name, resnet_type=f"resnet{depth}").image
    with torch.device("meta"):
        network = build_image_encoder(config)
        out = network.forward_features(torch.empty(1, 3, 480, 480))
    assert tuple(out.shape) == (1, channels, 480 // stride, 480 // stride)
    assert (network.stride, network.out_channels) == (stride, channels)


def test_drop_path_of_image_networks():
    """In the three-stage network it rises from 0 in every stage (reference behaviour), else over all blocks."""

    def rates(name):
        options = {"image_encoder_name": name, "resnet_type": "resnet50", "resnet_drop_path_rate": 0.3}
        with torch.device("meta"):
            network = build_image_encoder(ModelConfig.from_options(**options).image)
        stages = [network.layer1, network.layer2, network.layer3]
        stages += [network.layer4] if name == "timm_resnet" else []
        return [[block.drop_path.rate for block in stage] for stage in stages]

    three = rates("resnet")
    assert three[0] == pytest.approx([0.0, 0.15, 0.3])
    assert three[1] == pytest.approx([0.0, 0.1, 0.2, 0.3]) and three[2][0] == 0.0 and three[2][-1] == 0.3
    whole = [rate for stage in rates("timm_resnet") for rate in stage]
    assert whole == sorted(whole) and whole[0] == 0.0 and whole[-1] == pytest.approx(0.3)


def positions_of(model, size):
    out = model.encoder(text(1, 4), patch_images=torch.zeros(1, 3, size, size))
    return out["position_embeddings"][0][0, :-4]


@pytest.mark.parametrize("name", ["resnet", "timm_resnet"])
def test_interpolated_positions(name):
    """A grid above the original's stretches its embeddings; others and relative positions are as without."""
    stride = 16 if name == "resnet" else 32
    options = {"image_encoder_name": name, "image_bucket_size": 8, "code_image_size": 64}
    plain = small_model(**options)
    model = small_model(**options, interpolate_position=True, orig_patch_image_size=2 * stride)
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(positions_of(model, 2 * stride), positions_of(plain, 2 * stride))
        got = positions_of(model, 4 * stride)
        corners = model.encoder.embed_image_positions.weight[[1, 2, 9, 10]].view(2, 2, -1)
        share = torch.tensor([0.0, 0.25, 0.75, 1.0])  # where 4 cells lie between the centres of 2
        rows = corners[:1] * (1 - share)[:, None, None] + corners[1:] * share[:, None, None]
        grid = rows[:, :1] * (1 - share)[:, None] + rows[:, 1:] * share[:, None]
        want = model.encoder.image_pos_ln(grid.flatten(0, 1))
    assert torch.allclose(got, want, atol=1e-5)
    assert not torch.allclose(got, positions_of(plain, 4 * stride), atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "option", "tokens"),
    [(1, "sample_video_patch_num", 4), (2, "sample_audio_patch_num", 4)],
)
def test_video_and_audio_tokens_are_sampled_in_training(kind, option, tokens):
    """Seeded, a subset of the row's own tokens in order, with their positions; none dropped in evaluation."""
    model = small_model(**ALL, **{option: 2})
    batch = mixed_batch((kind, kind))
    network = model.encoder.embed_videos if kind == 1 else model.encoder.embed_audios

    def run(seed):
        torch.manual_seed(seed)
        media = {k: v for k, v in batch.items() if k.startswith("patch_")}
        with torch.no_grad():
            return model.encoder(batch["src_tokens"], **media)

    whole = run(0)["encoder_states"][0]
    assert whole.size(0) == tokens + 9
    model.train()
    network.eval()  # the same features in each run
    first, again = run(1)["encoder_states"][0], run(1)["encoder_states"][0]
    assert first.size(0) == 2 + 9 and torch.equal(first, again)
    for row in range(2):
        at = [int((whole[:tokens, row] - token).abs().sum(1).argmin()) for token in first[:2, row]]
        assert at[0] < at[1] and torch.allclose(whole[at, row], first[:2, row], atol=1e-5)
    assert any(not torch.equal(first, run(seed)["encoder_states"][0]) for seed in range(2, 6))


@pytest.mark.parametrize("kind", [1, 2])
def test_norms_behind_the_projections_of_video_and_audio(kind):
    name = ("image", "video", "audio")[kind]
    model = small_model(**ALL, **{f"layernorm_{name}_embedding": True})
    batch = mixed_batch((kind, -1))
    with torch.no_grad():
        before = model(**batch)[0]
        getattr(model.encoder, f"layernorm_{name}_embedding").bias.add_(torch.arange(32) / 8)
        moved = (model(**batch)[0] - before).abs().amax((1, 2))
    assert moved[0] > 1e-3 and moved[1] < 1e-6
