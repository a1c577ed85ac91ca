"""Folders as Hugging Face and ModelScope publish OFA, made of a model of this project; and their vocabulary.

The names of the published layout are written out here, not taken from the reader.
"""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import torch

from unival.vocabulary import Vocabulary
from unival.vocabulary.bpe import byte_of_character

TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
# (side, fairseq's part of a layer, the published one)
NAMES = (
    ("encoder", "attn_ln", "self_attn_mid_layer_norm"),
    ("encoder", "ffn_layernorm", "ffn_layer_norm"),
    ("decoder", "self_attn_ln", "self_attn_mid_layer_norm"),
    ("decoder", "cross_attn_ln", "cross_attn_mid_layer_norm"),
    ("decoder", "encoder_attn_layer_norm", "cross_attn_layer_norm"),
    ("decoder", "encoder_attn", "cross_attn"),
    ("decoder", "ffn_layernorm", "ffn_layer_norm"),
)
# what the published configurations have in common
COMMON: dict[str, Any] = {
    "model_type": "ofa",
    "architectures": ["OFAModel"],
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "classifier_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "normformer": True,
    "layernorm_embedding": True,
    "patch_layernorm_embedding": True,
    "code_layernorm_embedding": True,
    "add_type_embedding": True,
    "entangle_position_embedding": False,
    "scale_embedding": False,
    "share_decoder_input_output_embed": True,
    "attn_scale_factor": 2.0,
    "init_std": 0.02,
    "resnet_model_path": None,
    "is_encoder_decoder": True,
    "use_cache": False,
    "torch_dtype": "float32",
    "transformers_version": "4.15.0",
}
MODELSCOPE: dict[str, Any] = {
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


def published_key(key: str) -> str:
    """Name of one of fairseq's tensors in the published layout."""
    for side, ours, theirs in NAMES:
        parts = key.split(".")
        if parts[0] == side and parts[1] == "layers" and parts[3] == ours:
            return ".".join([*parts[:3], theirs, *parts[4:]])
    return key


def ofa_state(model: torch.nn.Module, copies: int = 3) -> collections.OrderedDict[str, torch.Tensor]:
    """The state dict of ``pytorch_model.bin``: the token table as three copies or as one storage, the fillers
    of the code grid as in OFA's older revisions."""
    state = model.state_dict()
    table = state[TABLES[0]]
    found: collections.OrderedDict[str, torch.Tensor] = collections.OrderedDict()
    for key, value in state.items():
        if key.endswith(".version"):
            continue
        if key in TABLES:
            value = table.clone() if copies == 3 else table
        if key == "decoder.image_position_idx":
            value = value[:-1].clone()
        found[published_key(key)] = value
    return found


def ofa_config(model: Any, **changed: Any) -> dict[str, Any]:
    """The ``config.json`` of a model."""
    options = model.config.options()
    sizes = {
        "vocab_size": model.config.vocab_size,
        "d_model": options["encoder_embed_dim"],
        "encoder_ffn_dim": options["encoder_ffn_embed_dim"],
        "decoder_ffn_dim": options["decoder_ffn_embed_dim"],
        "max_position_embeddings": options["max_source_positions"],
        "num_hidden_layers": options["encoder_layers"],
    }
    same = ("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads")
    same += ("token_bucket_size", "image_bucket_size", "code_image_size", "resnet_type")
    return {**COMMON, **sizes, **{name: options[name] for name in same}, **changed}


def bart_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write ``vocab.json`` and ``merges.txt`` of a vocabulary."""
    characters = {byte: character for character, byte in byte_of_character().items()}
    ids = {name: number for number, name in enumerate(("<s>", "<pad>", "</s>", "<unk>"))}
    encoder = {int(n): piece for piece, n in json.loads(vocabulary._files["encoder.json"]).items()}
    for number in range(4, vocabulary.mask):
        word = vocabulary.symbol(number)
        ids[encoder.get(int(word), word) if word.isdecimal() else word] = number
    ids["<mask>"] = vocabulary.mask
    assert len(ids) == vocabulary.mask + 1 and len(characters) == 256
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_bytes(vocabulary._files["vocab.bpe"])


def ofa_folder(
    folder: Path,
    model: Any,
    vocabulary: Vocabulary | None = None,
    copies: int = 3,
    state: dict[str, torch.Tensor] | None = None,
    configuration: dict[str, Any] | None = None,
    **changed: Any,
) -> Path:
    """Write a whole folder; without ``vocabulary`` it holds none, ``configuration`` is ModelScope's second file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(ofa_config(model, **changed)))
    torch.save(ofa_state(model, copies) if state is None else state, folder / "pytorch_model.bin")
    if vocabulary is not None:
        bart_vocabulary(vocabulary, folder)
    if configuration is not None:
        (folder / "configuration.json").write_text(json.dumps(configuration))
    return folder
