"""OFA as Hugging Face and ModelScope publish it: ``config.json`` with ``model_type: ofa``, ``pytorch_model.bin``.

The folder is read as the fairseq file that it was made from: keys get fairseq's names, fields of the
configuration become its arguments. All else (strictness, sizes read off the weights) is as for any file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unival.checkpoint.identify import shown_options, size_name
from unival.core.torchfile import FairseqFile, State, load_torch
from unival.errors import CheckpointError
from unival.modeling.weights import TIED

CONFIG, MODELSCOPE, MODEL_TYPE = "config.json", "configuration.json", "ofa"
WEIGHTS = ("pytorch_model.bin", "model.safetensors")

# Parts of a layer that are called otherwise. Mind that "cross_attn_layer_norm" stands before the attention and
# "cross_attn_mid_layer_norm" behind it: both have the same shape, and exchanged they would load.
PARTS = {
    "encoder": {"self_attn_mid_layer_norm": "attn_ln", "ffn_layer_norm": "ffn_layernorm"},
    "decoder": {
        "self_attn_mid_layer_norm": "self_attn_ln",
        "cross_attn_mid_layer_norm": "cross_attn_ln",
        "cross_attn_layer_norm": "encoder_attn_layer_norm",
        "cross_attn": "encoder_attn",
        "ffn_layer_norm": "ffn_layernorm",
    },
}
# field of config.json -> options that the weights show; a contradiction means another model
SEEN = {
    "vocab_size": ("rows",),
    "d_model": ("encoder_embed_dim", "decoder_embed_dim"),
    "encoder_ffn_dim": ("encoder_ffn_embed_dim",),
    "decoder_ffn_dim": ("decoder_ffn_embed_dim",),
    "encoder_layers": ("encoder_layers",),
    "decoder_layers": ("decoder_layers",),
    "encoder_attention_heads": ("encoder_attention_heads",),
    "decoder_attention_heads": ("decoder_attention_heads",),
    "encoder_normalize_before": ("encoder_normalize_before",),
    "decoder_normalize_before": ("decoder_normalize_before",),
    "max_position_embeddings": ("max_source_positions", "max_target_positions"),
    "normformer": ("scale_attn", "scale_fc"),
    "token_bucket_size": ("token_bucket_size",),
    "image_bucket_size": ("image_bucket_size",),
    "layernorm_embedding": ("layernorm_embedding",),
    "patch_layernorm_embedding": ("patch_layernorm_embedding",),
    "code_layernorm_embedding": ("code_layernorm_embedding",),
    "add_type_embedding": ("add_type_embedding",),
}
# field -> option, for what the weights do not show
TAKEN = {
    "resnet_type": "resnet_type",
    "activation_function": "activation_fn",
    "attn_scale_factor": "attn_scale_factor",
    "entangle_position_embedding": "entangle_position_embedding",
    "code_image_size": "code_image_size",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder_drop_path_rate": "encoder_drop_path_rate",
    "decoder_drop_path_rate": "decoder_drop_path_rate",
    "resnet_drop_path_rate": "resnet_drop_path_rate",
}
# ModelScope's further fields at the values which ask for nothing; others are other networks
MODELSCOPE_FIELDS = {
    "interpolate_position": False,
    "orig_patch_image_size": 224,
    "share_attn_bias": False,
    "use_image_feature": True,
    "disable_entangle": False,
    "use_ofasys": False,
    "vit_type": "vit_base",
    "vit_drop_path_rate": 0,
    "use_gamma_feature": False,
    "gamma": 1.0,
    "exclude_mlp": True,
    "temperature_init_value": None,
    "remove_decoder_type_embedding": False,
    "mlp_dim": 512,
}
# task of ModelScope's configuration.json -> the reference's task
TASKS = {
    "image-captioning": "caption",
    "visual-question-answering": "vqa_gen",
    "visual-grounding": "refcoco",
    "visual-entailment": "snli_ve",
    "text-to-image-synthesis": "image_gen",
}
IMAGE_SIZES = {256: 256, 512: 256, 768: 384, 1024: 480, 1280: 480}  # width -> pixels, of the model cards


def is_ofa_folder(path: str | Path) -> bool:
    """True for a folder whose config.json says ``model_type: ofa``."""
    try:
        return json.loads((Path(path) / CONFIG).read_text(encoding="utf-8"))["model_type"] == MODEL_TYPE
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_ofa(folder: str | Path) -> FairseqFile:
    """Read a folder as the fairseq file that it was made from; ``args`` hold what its configurations say.

    Raises CheckpointError for absent or damaged files, token tables that are not one, weights that contradict
    config.json, and fields of ModelScope that ask for another network.
    """
    folder = Path(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _refuse_other_networks(folder, config)
    state = fairseq_state(_weights(folder), folder)
    if TIED[0] in state and "decoder.layers.0.fc1.weight" in state:
        _compare(folder, config, state)
    args = {option: config[name] for name, option in TAKEN.items() if config.get(name) is not None}
    if "scale_embedding" in config:
        args["no_scale_embedding"] = not config["scale_embedding"]
    shared = bool(config.get("share_decoder_input_output_embed", True))
    args |= {"share_decoder_input_output_embed": shared, "share_all_embeddings": shared}
    width = config.get("d_model", 512)
    if width in IMAGE_SIZES:
        args["patch_image_size"] = IMAGE_SIZES[width]
    args |= _modelscope(folder)
    if TIED[0] in state and (size := size_name(shown_options(state))):
        args["arch"] = f"ofa_{size}"
    return FairseqFile(str(folder), state, None, args, {})


def fairseq_state(state: Mapping[str, Any], folder: str | Path = "") -> State:
    """Return the tensors under fairseq's names, the token table once.

    Raises CheckpointError when the copies of the token table differ.
    """
    if state and all(key.startswith("model.") for key in state):
        state = {key.removeprefix("model."): value for key, value in state.items()}
    renamed = {fairseq_key(key): value for key, value in state.items()}
    tables = [key for key in TIED if key in renamed]
    for key in tables[1:]:
        if not torch.equal(renamed[tables[0]], renamed[key]):
            raise CheckpointError(
                f"'{folder}': {tables[0]} and {key} differ, but this model has one table for both"
            )
        del renamed[key]
    return renamed


def fairseq_key(key: str) -> str:
    """Return fairseq's name of a tensor."""
    found = re.fullmatch(r"(encoder|decoder)\.layers\.(\d+)\.(\w+)\.(.+)", key)
    if found is None:
        return key
    side, number, part, rest = found.groups()
    return f"{side}.layers.{number}.{PARTS[side].get(part, part)}.{rest}"


def _weights(folder: Path) -> Mapping[str, Any]:
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(
            f"'{folder}' is not a complete checkpoint: it has no {' and no '.join(WEIGHTS)}"
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"'{path}' is damaged: {error}") from None
    content = load_torch(path)
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise CheckpointError(f"'{path}' holds something other than named tensors")
    return content


def _refuse_other_networks(folder: Path, config: Mapping[str, Any]) -> None:
    other = [
        f"{name} is {config[name]!r} (only {idle!r} is read)"
        for name, idle in MODELSCOPE_FIELDS.items()
        if name in config and config[name] != idle
    ]
    if (folder / "vocab.txt").is_file():
        other.append("vocab.txt: a WordPiece vocabulary (Chinese models), not BART's")
    if other:
        raise CheckpointError(f"'{folder}' is an OFA model of another kind: {'; '.join(other)}")


def _compare(folder: Path, config: Mapping[str, Any], state: State) -> None:
    shown = {**shown_options(state), "rows": state[TIED[0]].size(0)}
    wrong = [
        f"{name} is {config[name]}, the weights show {shown[option]}"
        for name, options in SEEN.items()
        for option in options
        if config.get(name) is not None and config[name] != shown[option]
    ]
    if wrong:
        listed = "; ".join(dict.fromkeys(wrong))
        raise CheckpointError(f"'{folder}': {CONFIG} and weights are of different models: {listed}")


def _modelscope(folder: Path) -> dict[str, Any]:
    """What ModelScope's configuration.json says of task and preprocessing, as the reference's arguments."""
    path = folder / MODELSCOPE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = dict(content.get("model") or {})
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"'{path}' is damaged: {error}") from None
    task = TASKS.get(str(content.get("task")))
    args: dict[str, Any] = {"task": task} if task else {}
    for name in ("patch_image_size", "max_image_size", "imagenet_default_mean_and_std"):
        if model.get(name) is not None:
            args[name] = model[name]
    if task == "caption" and model.get("prompt"):
        args["prompts"] = {"caption.image": str(model["prompt"])}
    return args
