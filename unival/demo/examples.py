"""Pictures, clips and sounds to try, with texts that fit them, drawn when the page starts."""

from __future__ import annotations

from pathlib import Path

from unival.datatools.world import render
from unival.demo.actions import Action
from unival.tables import open_table

SHOWN = 3  # of each action


def render_examples(folder: Path) -> Path:
    """Write a small sample world; returns its folder."""
    render(folder, images=16, clips=16, sounds=16, image_size=128, video_size=128, vocabulary_size=0)
    return folder


def examples(world: Path, action: Action, modality: str) -> list[list[str]]:
    """Return rows [path, text], or [path] for an action that asks nothing; different media where possible."""
    spec = action.spec(modality)
    prefix = "" if modality == "image" else f"{modality}_"
    found: dict[str, list[str]] = {}
    for split in ("test", "val"):
        path = world / "tables" / f"{prefix}{spec.name}_{split}.tsv"
        if not path.is_file():  # a task of one's own
            continue
        for row in open_table(path, spec.fields, spec.layout_name):
            text = [str(row[action.column])] if action.column else []
            found.setdefault(str(row[modality]), text)
    return [[str(world / name), *text] for name, text in found.items()][:SHOWN]
