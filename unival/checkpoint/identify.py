"""What the weights of a file show: whose model it is, of which size, with which networks.

Facts that the weights show are read off the weights. Saved arguments add what weights cannot show; the paths
in them, which are those of the machine that trained, are never used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.core.foreign import interpreting
from unival.core.torchfile import FairseqFile
from unival.errors import CheckpointError
from unival.modeling.config import ARCHS, ModelConfig
from unival.modeling.position import CODE_FILLERS
from unival.modeling.weights import TIED

OURS, UNIVAL, OFA, BART = "ours", "UnIVAL", "OFA", "BART"
RELATIVE = "{}.token_rel_pos_table_list.0.weight"

# option -> an entry of the state dict that is there when the option is on
SHOWN = {
    "scale_attn": "encoder.layers.0.attn_ln.weight",
    "scale_fc": "encoder.layers.0.ffn_layernorm.weight",
    "scale_heads": "encoder.layers.0.self_attn.c_attn",
    "scale_resids": "encoder.layers.0.w_resid",
    "layernorm_embedding": "encoder.layernorm_embedding.weight",
    "patch_layernorm_embedding": "encoder.patch_layernorm_embedding.weight",
    "code_layernorm_embedding": "decoder.code_layernorm_embedding.weight",
    "encoder_normalize_before": "encoder.layer_norm.weight",
    "decoder_normalize_before": "decoder.layer_norm.weight",
}
TYPE_ROWS = {2: (False, False), 3: (False, True), 4: (True, False), 5: (True, True)}
RESNETS = {(3, 4, 6): "resnet50", (3, 4, 23): "resnet101", (3, 8, 36): "resnet152"}


def family_of(file: FairseqFile) -> str:
    """Return "ours", "UnIVAL", "OFA" or "BART". Raises CheckpointError for any other model."""
    if "unival" in file.task_state:
        return OURS
    state, arch = file.model, str(file.arch or "")
    if TIED[0] not in state or "decoder.layers.0.fc1.weight" not in state:
        shown = ", ".join(list(state)[:3]) or "nothing"
        raise CheckpointError(
            f"'{file.path}' is not an encoder-decoder of this project (arch '{arch}', entries {shown}, ...); "
            "UnIVAL, OFA and bart.base files are read. Weights of an image, video or audio network go to "
            "resnet_model_path (image_backbone_weights), video_model_path or audio_model_path."
        )
    if RELATIVE.format("encoder") not in state:
        return BART
    if arch.startswith("unival"):
        return UNIVAL
    whole = any(key.startswith("encoder.embed_images.layer4.") for key in state)
    other = any(key.startswith(("encoder.embed_videos.", "encoder.embed_audios.")) for key in state)
    return UNIVAL if (whole or other) and not arch.startswith("ofa") else OFA


def shown_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the model options that the weights of a UnIVAL or OFA model show."""
    found: dict[str, Any] = {name: key in state for name, key in SHOWN.items()}
    for side in ("encoder", "decoder"):
        numbers = {int(m[1]) for key in state if (m := re.match(rf"{side}\.layers\.(\d+)\.", key))}
        if numbers != set(range(len(numbers))):
            raise CheckpointError(
                f"the {side} has layers numbered up to {max(numbers)} and holds {len(numbers)} of them; "
                "some are missing"
            )
        found[f"{side}_layers"] = len(numbers)
        found[f"{side}_embed_dim"] = state[TIED[0]].size(1)
        found[f"{side}_ffn_embed_dim"] = state[f"{side}.layers.0.fc1.weight"].size(0)
        found[f"{side}_attention_heads"] = state[RELATIVE.format(side)].size(1)
        kind = "source" if side == "encoder" else "target"
        found[f"max_{kind}_positions"] = state[f"{side}.embed_positions.weight"].size(0) - 2
    found["token_bucket_size"] = (state[RELATIVE.format("encoder")].size(0) + 1) // 2
    found["image_bucket_size"] = math.isqrt(state["encoder.embed_image_positions.weight"].size(0) - 1)
    types = state.get("encoder.type_embedding.weight")
    several, second = TYPE_ROWS.get(0 if types is None else types.size(0), (False, False))
    found |= {"add_type_embedding": types is not None, "add_mm_type_embedding": several}
    found["second_image"] = second
    blocks = tuple(_blocks(state, stage) for stage in (1, 2, 3))
    if blocks in RESNETS and "encoder.embed_images.layer1.0.conv3.weight" in state:
        found["resnet_type"] = RESNETS[blocks]  # type: ignore[index]
    return found


def _blocks(state: Mapping[str, Tensor], stage: int) -> int:
    pattern = re.compile(rf"encoder\.embed_images\.layer{stage}\.(\d+)\.")
    return 1 + max((int(m[1]) for key in state if (m := pattern.match(key))), default=-1)


def size_name(options: Mapping[str, Any]) -> str | None:
    """Return the name of the size that has these widths and depths, None for another size."""
    for arch, named in ARCHS.items():
        if all(options[name] == value for name, value in named.items() if name != "resnet_type"):
            return arch.removeprefix("unival_")
    return None


def size_of(config: ModelConfig) -> str:
    """Return "tiny", "medium", "base", "large" or "huge" when width and depth are those, else the sizes."""
    options = config.options()
    if name := size_name(options):
        return name
    layers = f"{options['encoder_layers']}+{options['decoder_layers']} layers"
    return f"own size ({layers}, width {options['encoder_embed_dim']})"


def ignored_paths(file: FairseqFile) -> list[str]:
    """Return the names of saved arguments that hold paths of the training machine."""
    return sorted(
        name
        for name, value in file.args.items()
        if isinstance(value, str) and re.match(r"(/|~|[A-Za-z]:\\)", value)
    )


def config_of(file: FairseqFile, state: Mapping[str, Tensor]) -> ModelConfig:
    """Return the model configuration of a fairseq file.

    What the weights show (vocabulary size, modalities, code grid) is read off them, since saved arguments
    of released files name networks and paths that the weights may not have.
    """
    table = state.get(TIED[0])
    if table is None:
        raise CheckpointError(f"'{file.path}' has no token table: it is not a model of this project")
    with interpreting(file.path):
        return _config_of(file, state, table)


def _config_of(file: FairseqFile, state: Mapping[str, Tensor], table: Tensor) -> ModelConfig:
    args = {**file.args, **shown_options(state)}
    for modality in ("video", "audio"):
        if f"encoder.{modality}_proj.weight" not in state:
            args.pop(f"{modality}_encoder_name", None)
    stages = {k.split(".")[2] for k in state if k.startswith("encoder.embed_images.")}
    if "backbone" not in stages:
        args["image_encoder_name"] = "timm_resnet" if "layer4" in stages else "resnet" if stages else "none"
        args |= dict.fromkeys(("image_backbone", "image_backbone_stride"))
    grid = state.get("decoder.image_position_idx")
    if grid is not None:
        args["code_image_size"] = 8 * round((grid.numel() - 1 - CODE_FILLERS) ** 0.5)
    return ModelConfig.from_reference(args, vocab_size=table.size(0))
