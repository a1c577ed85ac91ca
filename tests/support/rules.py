"""Weights and inputs of the parity numbers, made by rule (no random generator of torch is involved).

The rules are those under which the reference's numbers were recorded: Philox words named by a CRC-32,
so any program can make the same arrays bit for bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

TIED = {
    "decoder.embed_tokens.weight": "encoder.embed_tokens.weight",
    "decoder.output_projection.weight": "encoder.embed_tokens.weight",
}
COMPUTED = (
    "token_rp_bucket",
    "image_rp_bucket",
    "image_position_idx",
    "version",
    "num_batches_tracked",
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
    "logmel_extractor.melW",
)

# Model options of the two recorded models. Names of the absent networks are set by `build_options`.
SHARED_OPTIONS: dict[str, Any] = {"sample_patch_num": 784, "hop_size": 200, "mel_bins": 64}
MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "base": {
        **SHARED_OPTIONS,
        "resnet_type": "resnet101",
        "video_encoder_name": "all_resnext101",
        "audio_encoder_name": "pann_cnn14",
    },
    "tiny": {
        **SHARED_OPTIONS,
        "encoder_embed_dim": 64,
        "encoder_ffn_embed_dim": 128,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_embed_dim": 64,
        "decoder_ffn_embed_dim": 128,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "resnet_type": "resnet50",
        "video_encoder_name": "all_resnext50",
        "audio_encoder_name": "pann_cnn14",
    },
}


def build_options(model: str, video: bool = True, audio: bool = True) -> dict[str, Any]:
    """Options for ``build_model("unival_base", **options)`` of the recorded "tiny" or "base" model."""
    options = dict(MODEL_OPTIONS[model])
    if not video:
        options["video_encoder_name"] = None
    if not audio:
        options["audio_encoder_name"] = None
    return options


def words(name: str, n: int, salt: str = "") -> np.ndarray:
    return np.random.Philox(key=zlib.crc32((salt + name).encode("utf-8"))).random_raw(n)


def u01(name: str, n: int, salt: str = "") -> np.ndarray:
    """Float64 in [0, 1)."""
    return (words(name, n, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def ints(name: str, n: int, lo: int, hi: int, salt: str = "") -> np.ndarray:
    """Int64 in [lo, hi)."""
    return (lo + (words(name, n, salt) % np.uint64(hi - lo)).astype(np.int64)).astype(np.int64)


def pm1(name: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """Float64 in [-1, 1)."""
    return (2.0 * u01(name, int(np.prod(shape)), salt) - 1.0).reshape(shape)


def value(key: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray | None:
    """Return the float32 weight of a state-dict key, or None where the constructed value is kept."""
    if key.endswith(COMPUTED):
        return None
    key = TIED.get(key, key)
    u = u01(key, int(np.prod(shape)), salt)
    z = (2.0 * u - 1.0) * 3.0**0.5
    if key.endswith("running_var"):
        v = 1.0 + 0.5 * u
    elif key.endswith("running_mean"):
        v = 0.1 * z
    elif len(shape) >= 2:
        v = z / np.sqrt(float(np.prod(shape[1:])))
        if ".conv_block" in key:
            v = v * np.sqrt(2.0)
    elif key.endswith("bias"):
        v = 0.02 * z
    else:
        v = 1.0 + 0.1 * z
    v = v.reshape(shape).astype(np.float32)
    if key == "encoder.embed_tokens.weight":
        v[1] = 0.0
    return v


@torch.no_grad()
def set_rule_weights(model: torch.nn.Module, salt: str = "") -> torch.nn.Module:
    """Overwrite the weights of ``model`` by rule; buffers that construction computes stay."""
    for key, tensor in model.state_dict(keep_vars=True).items():
        if key in TIED:
            continue
        array = value(key, tuple(tensor.shape), salt)
        if array is not None:
            tensor.copy_(torch.from_numpy(array))
    return model


@torch.no_grad()
def set_generation_weights(model: torch.nn.Module, salt: str = "") -> torch.nn.Module:
    """Rule weights plus the variant under which beam search ends by itself (generation numbers)."""
    set_rule_weights(model, salt)
    state = model.state_dict(keep_vars=True)
    state["decoder.layer_norm.bias"].mul_(25)
    embed = state["encoder.embed_tokens.weight"]
    embed.mul_(6.0)
    embed[2] = 1.65 * state["decoder.layer_norm.bias"]
    for name in ("weight", "bias"):
        state[f"decoder.layernorm_embedding.{name}"].mul_(0.1)
    for key, tensor in state.items():
        if key.startswith("decoder.layers.") and key.endswith(("q_proj.weight", "k_proj.weight")):
            tensor.mul_(6.0)
    for name in ("image", "video", "audio"):
        if f"encoder.{name}_proj.weight" in state:
            state[f"encoder.{name}_proj.weight"].mul_(30.0)
    return model


def tokens(
    name: str, lengths: list[int], lo: int = 4, hi: int = 50260, eos: bool = True, salt: str = ""
) -> torch.Tensor:
    """Token ids (B, max length) int64: bos 0, random ids, eos 2 if asked, padding 1."""
    longest = max(lengths)
    t = ints(name, len(lengths) * longest, lo, hi, salt).reshape(len(lengths), longest)
    for i, n in enumerate(lengths):
        t[i, 0] = 0
        if eos:
            t[i, n - 1] = 2
        t[i, n:] = 1
    return torch.from_numpy(t)


def _coarse(array: np.ndarray, height: int, width: int) -> np.ndarray:
    return array.repeat(32, axis=-2).repeat(32, axis=-1)[..., :height, :width]


def image(name: str, batch: int, height: int, width: int, salt: str = "") -> torch.Tensor:
    """Images (B, 3, height, width) float32 in about [-1, 1)."""
    fine = pm1(name + "/fine", (batch, 3, height, width), salt)
    coarse = pm1(name + "/coarse", (batch, 3, -(-height // 32), -(-width // 32)), salt)
    return torch.from_numpy((0.5 * fine + 0.5 * _coarse(coarse, height, width)).astype(np.float32))


def video(name: str, batch: int, frames: int, height: int, width: int, salt: str = "") -> torch.Tensor:
    """Clips (B, 3, frames, height, width) float32 in about [-1, 1)."""
    fine = pm1(name + "/fine", (batch, 3, frames, height, width), salt)
    coarse = pm1(name + "/coarse", (batch, 3, frames, -(-height // 32), -(-width // 32)), salt)
    return torch.from_numpy((0.5 * fine + 0.5 * _coarse(coarse, height, width)).astype(np.float32))


def audio(name: str, batch: int, samples: int, salt: str = "") -> torch.Tensor:
    """Waveforms (B, samples) float32."""
    fine = pm1(name + "/fine", (batch, samples), salt)
    steps = -(-samples // 4800)
    env = u01(name + "/env", batch * steps, salt).reshape(batch, -1).repeat(4800, axis=1)[:, :samples]
    return torch.from_numpy((fine * (0.02 + 0.5 * env)).astype(np.float32))


def net_input(case: str, spec: Mapping[str, Any], salt: str = "") -> dict[str, torch.Tensor]:
    """Return the forward arguments of a recorded case from its ``spec``."""
    p = f"input/{case}/"
    lo, hi = spec.get("tgt_range", (4, 50260))
    out = {
        "src_tokens": tokens(p + "src_tokens", spec["src"], salt=salt),
        "src_lengths": torch.tensor(spec["src"]),
        "prev_output_tokens": tokens(p + "prev_output_tokens", spec["tgt"], lo, hi, eos=False, salt=salt),
    }
    if "image" in spec:
        out["patch_images"] = image(p + "patch_images", *spec["image"], salt=salt)
        out["patch_masks"] = torch.tensor(spec.get("masks", [True] * len(spec["src"])))
    if "video" in spec:
        out["patch_videos"] = video(p + "patch_videos", *spec["video"], salt=salt)
    if "audio" in spec:
        out["patch_audios"] = audio(p + "patch_audios", *spec["audio"], salt=salt)
    if "types" in spec:
        out["patch_types"] = torch.tensor(spec["types"])
    if "code" in spec:
        out["code_masks"] = torch.tensor(spec["code"])
    return out


def shifted_target(prev_output_tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Targets (B, U) of the training numbers: inputs shifted left, eos at length - 1, padding 1 behind."""
    target = torch.full_like(prev_output_tokens, 1)
    for i, n in enumerate(lengths):
        target[i, : n - 1] = prev_output_tokens[i, 1:n]
        target[i, n - 1] = 2
    return target
