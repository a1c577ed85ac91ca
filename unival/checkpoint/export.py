"""Writing a loaded model for others: the engine's ``.pt`` file, or a Hugging Face folder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unival.checkpoint.folder import save_folder
from unival.checkpoint.header import CODES_AND_BINS
from unival.checkpoint.load import Loaded
from unival.core.files import replacing
from unival.modeling.config import option_fields
from unival.specs import SPECS
from unival.specs.reference import REFERENCE_TASKS

# What all tasks of the reference know of our task options; anything else would stop its strict configuration.
TASK_OPTIONS = (
    "max_src_length",
    "max_tgt_length",
    "max_source_positions",
    "max_target_positions",
    "patch_image_size",
    "patch_frame_size",
    "num_frames",
    "sample_type",
    "sample_rate",
    "max_audio_len",
    "imagenet_default_mean_and_std",
    "no_image_transform",
)
# What the engine's transformer reads from its arguments, at the values that ask for nothing.
ENGINE_ARGUMENTS: dict[str, Any] = {
    "adaptive_input": False,
    "adaptive_softmax_cutoff": None,
    "adaptive_softmax_dropout": 0.0,
    "tie_adaptive_weights": False,
    "no_cross_attention": False,
    "cross_self_attention": False,
    "encoder_embed_path": None,
    "decoder_embed_path": None,
    "encoder_learned_pos": True,
    "decoder_learned_pos": True,
    "no_token_positional_embeddings": False,
    "encoder_layers_to_keep": None,
    "decoder_layers_to_keep": None,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "activation_dropout": 0.0,
    "quant_noise_pq": 0.0,
    "quant_noise_pq_block_size": 8,
    "quant_noise_scalar": 0.0,
    "min_params_to_wrap": 100_000_000,
    "offload_activations": False,
    "pooler_activation_fn": "tanh",
    "pooler_classifier": "mlp",
    "pooler_dropout": 0.0,
    "strict": False,
}


def export_fairseq(loaded: Loaded, path: str | Path) -> Path:
    """Write a file with the top-level entries of fairseq 1.0.0a0 and the reference's state dict.

    The reference loads it as it loads its own (vocabulary folder and weight paths given on its command line);
    ``task_state`` holds what this project needs to use it alone. Written beside ``path`` and moved.
    """
    path = Path(path)
    history = {
        "criterion_name": "AdjustLabelSmoothedCrossEntropyCriterion",
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {"best": None},
        "num_updates": 0,
    }
    content = {
        "args": None,
        "cfg": {"_name": None, "task": _task_section(loaded), "model": _model_section(loaded)},
        "model": {key: value.detach().cpu() for key, value in loaded.model.state_dict().items()},
        "criterion": None,
        "optimizer_history": [history],
        "task_state": {"unival": _task_state(loaded)},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "val_loss": None},
        "last_optimizer_state": {},
    }
    with replacing(path) as part:
        torch.save(content, part)
    return path


def _task_section(loaded: Loaded) -> dict[str, Any]:
    named = (loaded.task.get("name"), loaded.task.get("modality", "image"))
    task = next((name for name, ours in REFERENCE_TASKS.items() if ours == named), "unify_task")
    spec = SPECS.get(str(named[0]))
    known = (*TASK_OPTIONS, *(spec.reference_options if spec is not None else ()))
    section = {name: loaded.task_options[name] for name in known if name in loaded.task_options}
    counts = {saved: getattr(loaded.vocabulary, name) for name, saved in CODES_AND_BINS.items()}
    return {"_name": task, "data": "", "selected_cols": None, "bpe_dir": None, **counts, **section}


def _model_section(loaded: Loaded) -> argparse.Namespace:
    config = loaded.model.config
    options = {**ENGINE_ARGUMENTS, **config.options(), "arch": config.arch, "_name": config.arch}
    options |= {field.name: None for field in option_fields() if not field.metadata["saved"]}
    return argparse.Namespace(**options, task=_task_section(loaded)["_name"])


def _task_state(loaded: Loaded) -> dict[str, Any]:
    about = loaded.about()
    about["options"] = about.pop("task_options")
    vocabulary = loaded.vocabulary
    return {
        **about,
        "vocabulary": vocabulary.to_dict(),
        "fingerprint": vocabulary.fingerprint(),
        "prompts": dict(loaded.prompts),
    }


SHIM = '''"""Lets transformers find this model: the network itself is in the package "unival"."""

from unival.hub import {names}
'''
SHIMS = {"configuration_unival.py": "UnivalConfig", "modeling_unival.py": "UnivalModel"}


def export_huggingface(loaded: Loaded, folder: str | Path) -> Path:
    """Write a checkpoint folder that ``transformers.AutoModel.from_pretrained(..., trust_remote_code=True)``
    reads too. It needs the package ``unival`` installed; nothing is fetched from anywhere.
    """
    named: Mapping[str, Any] = {
        "model_type": "unival",
        "architectures": ["UnivalModel"],
        "auto_map": {
            "AutoConfig": "configuration_unival.UnivalConfig",
            "AutoModel": "modeling_unival.UnivalModel",
        },
    }
    extra = {**loaded.about(), **named}
    files = {name: SHIM.format(names=imported) for name, imported in SHIMS.items()}
    return save_folder(folder, loaded.model, loaded.vocabulary, loaded.prompts, extra, files)
