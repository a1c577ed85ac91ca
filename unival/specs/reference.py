"""The reference's names of tasks, as its recipes, scripts and checkpoints write them."""

from __future__ import annotations

from unival.errors import ConfigError, nearest
from unival.specs import SPECS

# name -> (task, modality)
REFERENCE_TASKS = {
    "caption": ("caption", "image"),
    "video_caption": ("caption", "video"),
    "audio_caption": ("caption", "audio"),
    "vqa_gen": ("vqa", "image"),
    "video_vqa_gen": ("vqa", "video"),
    "refcoco": ("grounding", "image"),
    "snli_ve": ("entailment", "image"),
    "image_gen": ("image_gen", "image"),
}


def resolve_task(name: str, modality: str | None = None) -> tuple[str, str | None]:
    """Return (task, modality) of a task name of ours or of the reference; ConfigError for an unknown one."""
    if name in SPECS and modality is not None:
        return name, modality
    if name in REFERENCE_TASKS and (name not in SPECS or modality is None):
        task, usual = REFERENCE_TASKS[name]
        return task, modality or (usual if name not in SPECS else None)
    if name in SPECS:
        return name, modality
    known = [*SPECS, *REFERENCE_TASKS]
    raise ConfigError(f"unknown task '{name}'; tasks: {', '.join(known)}.{nearest(name, known)}")
