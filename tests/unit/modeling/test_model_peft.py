"""What moves in one real optimizer step, mode by mode: the names, exactly, and the BatchNorm statistics."""

import re

import pytest
import torch

from tests.support.model_fixtures import ALL, mixed_batch, small_model
from unival.errors import ConfigError
from unival.modeling.build import build_model
from unival.modeling.config import ModelConfig

MEDIA = {"images", "videos", "audios"}
# Never trained: the computed front end of sound, and the classifier that only the file formats have.
FIXED = (
    r"encoder\.embed_audios\.(spectrogram_extractor\.stft\.conv_(real|imag)\.weight|logmel_extractor\.melW)"
)
CLASSIFIER = r"encoder\.embed_images\.fc\.(weight|bias)"
BATCH_NORM = r"(layer\d\.\d\.)?(bn\d|downsample\.1)\.(weight|bias)"
TABLE = r"encoder\.embed_tokens\.weight"
PROJECTIONS = r"encoder\.(image|video|audio)_proj\.(weight|bias)"
POSITIONS = r"encoder\.embed_(image|video|audio)_positions\.weight"
MEDIA_PARTS = (PROJECTIONS, POSITIONS, r"encoder\.embed_(images|videos|audios)\..*")
ADAPTER = r"(encoder|decoder)\.layers\.[01]\.adapter\.(down|up)_proj\.(weight|bias)"
SPLIT = r"encoder\.layers\.[01]\.adapter\.(visual|text)\.(down|up)_proj\.(weight|bias)"
BIASES = (
    r"encoder\.layers\.[01]\.(self_attn_layer_norm|final_layer_norm|fc1|fc2)\.bias",
    r"decoder\.layers\.[01]\.(self_attn_layer_norm|encoder_attn_layer_norm|final_layer_norm|fc1|fc2)\.bias",
    r"(encoder|decoder)\.layer_norm\.bias",
)
SCRIPTS_LINEAR = {
    "freeze_encoder": True,
    "freeze_decoder": True,
    "freeze_encoder_embedding": True,
    "freeze_decoder_embedding": True,
    "freeze_image_encoder": True,
    "freeze_video_encoder": True,
    "freeze_audio_encoder": True,
}

# name: (options, patterns of what moves, or of what does not, networks whose statistics move)
MOVES = {
    "freeze_encoder": ({"freeze_encoder": True}, (r"decoder\..*", *MEDIA_PARTS), MEDIA),
    "only_linear_proj": ({"only_linear_proj": True}, (PROJECTIONS,), set()),
    "linear as in the reference's scripts": (SCRIPTS_LINEAR, (PROJECTIONS, POSITIONS), set()),
    "bitfit": ({"bitfit": True}, BIASES, set()),
    "adapter": ({"adapter": True, "adapter_dim": 8}, (ADAPTER,), set()),
    "adapter VL": ({"adapter": True, "adapter_type": "VL"}, (SPLIT, ADAPTER.replace("encoder|", "")), set()),
    "lora": (
        {"lora": True, "lora_rank": 2},
        (r"(encoder|decoder)\.layers\.[01]\.(self|encoder)_attn\.(q|k|v|out)_proj\.lora_[ab]",),
        set(),
    ),
    "encoder_prompt": ({"encoder_prompt": True}, (r"encoder\.prefix\.embedding\.weight",), set()),
    "decoder_prompt with a network": (
        {"decoder_prompt": True, "decoder_prompt_projection": True, "decoder_prompt_dim": 8},
        (r"decoder\.prefix\.embedding\.weight", r"decoder\.prefix\.trans\.[02]\.(weight|bias)"),
        set(),
    ),
    "prompts and adapter": (
        {"adapter": True, "encoder_prompt": True, "decoder_prompt": True},
        (ADAPTER, r"(encoder|decoder)\.prefix\.embedding\.weight"),
        set(),
    ),
}
STAYS = {
    "everything": ({}, (), MEDIA),
    "freeze_decoder": ({"freeze_decoder": True}, (r"decoder\..*", TABLE), MEDIA),
    "freeze_encoder_embedding": ({"freeze_encoder_embedding": True}, (TABLE,), MEDIA),
    "freeze_decoder_embedding": ({"freeze_decoder_embedding": True}, (TABLE,), MEDIA),
    "freeze_image_encoder": (
        {"freeze_image_encoder": True},
        (r"encoder\.embed_images\..*",),
        {"videos", "audios"},
    ),
    "freeze_video_encoder": (
        {"freeze_video_encoder": True},
        (r"encoder\.embed_videos\..*",),
        {"images", "audios"},
    ),
    "freeze_audio_encoder": (
        {"freeze_audio_encoder": True},
        (r"encoder\.embed_audios\..*",),
        {"images", "videos"},
    ),
    "freeze_resnet": (
        {"freeze_resnet": True},
        (rf"encoder\.embed_images\.{BATCH_NORM}",),
        {"videos", "audios"},
    ),
    "freeze_resnet_video": (
        {"freeze_resnet_video": True},
        (rf"encoder\.embed_videos\.{BATCH_NORM}",),
        {"images", "audios"},
    ),
    "freeze_batchnorm": (
        {"freeze_batchnorm": True},
        (
            rf"encoder\.embed_(images|videos)\.{BATCH_NORM}",
            r"encoder\.embed_audios\.(conv_block\d\.)?bn\d\.(weight|bias)",
        ),
        set(),
    ),
    "encoder_eval": ({"encoder_eval": True}, (), set()),
    "adapter beside the model": ({"adapter": True, "unfreeze": True}, (), MEDIA),
    "stride 16": (
        {"image_encoder_name": "resnet", "freeze_resnet": True},
        (rf"encoder\.embed_images\.{BATCH_NORM}",),
        {"videos", "audios"},
    ),
}


def step(model):
    """One update with weight decay, on a batch that uses every part; return the parameters that moved and
    the networks whose running statistics moved (all of each network's, or none)."""
    parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
    buffers = {n: b.clone() for n, b in model.named_buffers() if "running_" in n or "tracked" in n}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1, weight_decay=0.1)
    batch = {
        **mixed_batch((0, 1, 2, -1), compact=True),
        "code_masks": torch.tensor([False, False, False, True]),
    }
    batch["patch_images"] = batch["patch_images"][..., :64]
    batch["patch_videos"] = batch["patch_videos"][:, :, :2, :32, :32]
    model.train()
    model.train()  # as every epoch and every validation does again
    logits, _ = model(**batch)
    logits.float().log_softmax(-1).square().mean().backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, parameters[n])}
    networks = {}
    for name, value in model.named_buffers():
        if name in buffers:
            networks.setdefault(name.split(".")[1], set()).add(not torch.equal(value, buffers[name]))
    assert all(len(changes) == 1 for changes in networks.values())
    return moved, {name.removeprefix("embed_") for name, changes in networks.items() if changes == {True}}


def small(**options):
    model = small_model(**{**ALL, "video_encoder_name": "resnext14", "image_bucket_size": 16, **options})
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:  # biases that start at 0 would not show weight decay
                p.add_(0.01)
    return model


def matching(model, patterns):
    names = {n for n, _ in model.named_parameters()}
    found = {n for n in names if any(re.fullmatch(p, n) for p in patterns)}
    for pattern in patterns:
        assert any(re.fullmatch(pattern, n) for n in found), f"{pattern} names nothing"
    return found


@pytest.mark.parametrize("mode", MOVES)
def test_only_these_move(mode):
    options, patterns, statistics = MOVES[mode]
    model = small(**options)
    expected = matching(model, patterns) - matching(model, (FIXED, CLASSIFIER))
    assert step(model) == (expected, statistics)


@pytest.mark.parametrize("mode", STAYS)
def test_all_but_these_move(mode):
    options, patterns, statistics = STAYS[mode]
    model = small(**options)
    classifier = (CLASSIFIER,) if hasattr(model.encoder.embed_images.fc, "weight") else ()
    held = matching(model, (*patterns, FIXED, *classifier))
    assert step(model) == ({n for n, _ in model.named_parameters()} - held, statistics)


def test_without_a_shared_table_freezing_the_decoder_leaves_the_encoders():
    model = small_model(freeze_decoder=True, share_all_embeddings=False)
    assert model.encoder.embed_tokens.weight.requires_grad
    assert not any(p.requires_grad for p in model.decoder.parameters())


def trainable(**options):
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(**options).parameters() if p.requires_grad)


def test_base_size_counts_of_linear_training():
    """Counted in the reference: 5,858,304 of its scripts' 250.5 M; 100.9 M in its scripts for sound, which
    leave image and video networks trainable (with the unused classifier, 2,049,000, that never trains here)."""
    video = {"video_encoder_name": "all_resnext101"}
    assert trainable(**video, only_linear_proj=True) == 2 * (2048 * 768 + 768)
    assert trainable(**video, **SCRIPTS_LINEAR) == 5_858_304
    sound = {**SCRIPTS_LINEAR, "freeze_image_encoder": False, "freeze_video_encoder": False}
    count = trainable(**video, audio_encoder_name="pann_cnn14", **sound)
    assert round((count + 2_049_000) / 1e6, 1) == 100.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only_linear_proj": True, "bitfit": True}, "only_linear_proj and bitfit exclude"),
        ({"bitfit": True, "adapter": True}, "bitfit and adapter exclude"),
        ({"unfreeze": True}, "unfreeze needs one of adapter"),
        ({"adapter_type": "VL"}, "needs adapter"),
        ({"encoder_prompt_projection": True}, "needs encoder_prompt"),
        ({"adapter": True, "adapter_dim": 0}, "adapter_dim is 0"),
        ({"decoder_prompt": True, "decoder_prompt_length": 0}, "decoder_prompt_length is 0"),
        ({"adapter": True, "adapter_type": "LoRA"}, "choose one of VL"),
        ({"encoder_prompt": True, "encoder_prompt_type": "soft"}, "choose one of prefix"),
    ],
)
def test_contradictions_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ModelConfig.from_options(**options)


def test_saved_arguments_of_absent_parts_are_passed_over():
    args = {
        "arch": "unival_base",
        "adapter": False,
        "adapter_type": "VL",
        "unfreeze": True,
        "adapter_dim": 200,
    }
    assert ModelConfig.from_reference(args) == ModelConfig.from_options()


def test_a_fresh_adapter_is_the_reference_s():
    """Residual, weights from N(0, 0.02), behind the feed-forward layer (reference behaviour)."""
    adapter = small_model(randomise=False, adapter=True).encoder.layers[0].adapter
    x = torch.randn(2, 5, 32)
    hidden = torch.relu(x @ adapter.down_proj.weight.T)
    assert torch.allclose(adapter(x), x + hidden @ adapter.up_proj.weight.T, atol=1e-6)
    assert adapter.down_proj.weight.shape == (200, 32)
    assert abs(adapter.down_proj.weight.std().item() - 0.02) < 0.002


def test_the_split_adapter_tells_visual_tokens_from_text():
    adapter = small_model(adapter=True, adapter_type="VL").encoder.layers[0].adapter
    x = torch.randn(1, 7, 32)
    assert torch.equal(adapter(x, 3)[:, :3], adapter.visual(x[:, :3]))
    assert torch.equal(adapter(x, 3)[:, 3:], adapter.text(x[:, 3:]))
    assert torch.equal(adapter(x, 0), adapter.text(x))


def test_a_prefix_is_only_more_keys_and_values():
    """The decoder's prefix is seen from every position; a prefix of values 0 only dilutes attention."""
    model = small_model(decoder_prompt=True, decoder_prompt_length=3, unfreeze=True)
    attention = model.decoder.layers[0].self_attn
    pairs = model.decoder.prefix()
    assert len(pairs) == 2 and pairs[0][0].shape == (4, 3, 8)
    x = torch.randn(1, 2, 32)
    q, (k, v) = attention.queries(x), attention.keys_values(x)
    bias = torch.zeros(1, 4, 2, 2).masked_fill(torch.ones(2, 2, dtype=torch.bool).triu(1), -1e9)
    got = attention(q, k, v, bias, pairs[0])
    keys = torch.cat([pairs[0][0][None], k], 2)
    values = torch.cat([pairs[0][1][None], v], 2)
    scores = q @ keys.transpose(2, 3) * attention.scale
    scores[:, :, 0, 4] = -torch.inf  # the first position sees the prefix and itself
    want = (scores.softmax(-1) @ values) * attention.c_attn[:, None, None]
    assert torch.allclose(got, attention.out_proj(want.transpose(1, 2).flatten(2)), atol=1e-5)


def test_linear_only_keeps_the_dropout_of_the_language_model():
    """Encoder and decoder drop as the reference's do (table 16); the frozen networks of modalities do not."""
    model = small_model(only_linear_proj=True, dropout=0.1, encoder_drop_path_rate=0.1).train()
    layers = [*model.encoder.layers, *model.decoder.layers]
    assert not any(p.requires_grad for layer in layers for p in layer.parameters())
    assert all(module.training for layer in layers for module in layer.modules())
    networks = [module for name, module in model.encoder.named_modules() if name.startswith("embed_images")]
    assert networks and not any(module.training for module in networks)
