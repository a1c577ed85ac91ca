import json

import pytest
import torch

from unival.errors import ConfigError
from unival.modeling.build import build_model
from unival.modeling.config import ARCHS, ModelConfig


def count(**options):
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(**options).parameters())


def test_released_defaults():
    config = ModelConfig.from_options()
    assert (config.image.image_encoder_name, config.image.resnet_type) == ("timm_resnet", "resnet101")
    assert config.video.video_encoder_name is None and config.audio.audio_encoder_name is None
    t = config.transformer
    assert t.scale_attn and t.scale_fc and t.scale_heads and t.disable_entangle and not t.scale_resids


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 200_038_704),
        ({"video_encoder_name": "all_resnext101"}, 250_489_072),
        ({"video_encoder_name": "all_resnext101", "audio_encoder_name": "pann_cnn14"}, 329_979_120),
        ({"image_encoder_name": "resnet"}, 182_238_536),
        ({"arch": "unival_large"}, 491_039_464),
    ],
)
def test_parameter_counts_of_the_reference(options, parameters):
    assert count(**options) == parameters


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_every_size_constructs(arch):
    assert count(arch=arch) > 10_000_000


@pytest.mark.parametrize("resnet", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("video", ["resnext14", "all_resnext18", "all_resnext26", "resnext50"])
def test_small_networks_construct(resnet, video):
    assert count(resnet_type=resnet, video_encoder_name=video) > 0


@pytest.mark.parametrize("audio", ["pann_cnn6", "pann_cnn10"])
def test_audio_networks_construct(audio):
    assert count(audio_encoder_name=audio) > 0


def test_round_trip_leaves_out_paths():
    config = ModelConfig.from_options("unival_tiny", 500, dropout=0.1, resnet_model_path="somewhere.pth")
    stored = json.loads(json.dumps(config.to_dict()))
    assert "resnet_model_path" not in stored
    again = ModelConfig.from_dict(stored)
    assert again == config.replace(resnet_model_path=None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder_layer": 3}, "encoder_layers"),
        ({"arch": "unival_bass"}, "unival_base"),
        ({"resnet_type": "resnet51"}, "resnet50"),
        ({"video_encoder_name": "all_resnext100"}, "all_resnext101"),
        ({"audio_encoder_name": "pann_cnn16"}, "pann_cnn14"),
        ({"image_encoder_name": "tim_resnet"}, "timm_resnet"),
        ({"dropout": "high"}, "dropout"),
        ({"dropout": 1.5}, "below 1"),
        ({"encoder_attention_heads": 7}, "divisible"),
        ({"encoder_embed_dim": 96}, "decoder_embed_dim"),
        ({"progressive": True}, "freeze options"),
        ({"nograd": True}, "freeze_image_encoder"),
        ({"fstride": 10}, "AST"),
        ({"enable_fusion": True}, "cropped"),
        ({"code_image_size": 1000}, "multiple of 8"),
    ],
)
def test_refusals_name_the_remedy(options, words):
    with torch.device("meta"), pytest.raises(ConfigError, match=words):
        build_model(**options)


def test_dead_options_at_their_idle_values_are_accepted():
    ModelConfig.from_options(
        progressive=False, pooler_activation_fn="tanh", encoder_layerdrop="0", unfreeze_epoch=-1
    )
    assert ModelConfig.from_options(activation_dropout=0.2).transformer.relu_dropout == 0.2


def test_arguments_of_a_released_checkpoint():
    args = {
        "arch": "unival_base",
        "image_encoder_name": "timm_resnet",
        "resnet_model_path": "/somewhere/else.pth",
        "video_encoder_name": "all_resnext101",
        "encoder_layers": 6,
        "task": "caption",
        "max_src_length": 80,
        "adapter_type": "plain",
        "interpolate_position": False,
    }
    config = ModelConfig.from_reference(args, 59457)
    assert config == ModelConfig.from_options("unival_base", 59457, video_encoder_name="all_resnext101")
