"""The questions that tell the model its task: one table, replaceable per run by name.

Leading blanks matter: they decide the first BPE token. Templates follow the released checkpoints
(reference behaviour). ``caption.audio`` asks about the audio, as pretraining does; audio captioning
checkpoints that the authors finetuned asked about the "video": override it for them with
``{"caption.audio": " what does the video describe?"}``.
"""

from __future__ import annotations

import string
from collections.abc import Mapping

from unival.errors import ConfigError, nearest

PROMPTS: dict[str, str] = {
    "caption.image": " what does the image describe?",
    "caption.video": " what does the video describe?",
    "caption.audio": " what does the audio describe?",
    "vqa": " {question}",
    "vqa.objects": " object: {objects}",
    "grounding": ' which region does the text " {text} " describe?',
    "grounded_caption": "  what does the region describe? region:",
    "matching.image": ' does the image describe " {text} "?',
    "matching.video": ' does the video describe " {text} "?',
    "matching.audio": ' does the audio describe " {text} "?',
    "verification": ' what is the answer to question " {question} ". is " {answer} "?',
    "entailment": ' does the image describe " {text} "?',
    "entailment.caption": ' can image and text1 " {caption} " imply text2 " {text} "?',
    "infilling": ' what is the complete text of " {text} "?',
    "image_gen": " what is the complete image? caption: {text}",
}


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def check_overrides(overrides: Mapping[str, str]) -> None:
    """Raise ConfigError for an unknown prompt name, or a template with other placeholders."""
    for name, template in overrides.items():
        if name not in PROMPTS:
            raise ConfigError(f"unknown prompt '{name}'.{nearest(name, PROMPTS)}")
        if not isinstance(template, str):
            raise ConfigError(f"prompt '{name}' is {template!r}: expected a text")
        wanted = _placeholders(PROMPTS[name])
        try:
            given = _placeholders(template)
        except ValueError as error:
            raise ConfigError(f"prompt '{name}': {template!r} is not a template ({error})") from error
        if given != wanted:
            names = ", ".join(f"{{{n}}}" for n in sorted(wanted)) or "no placeholder"
            raise ConfigError(f"prompt '{name}' must contain {names}, got {template!r}")


def prompt(name: str, overrides: Mapping[str, str], **values: str) -> str:
    """Fill one template. Braces inside ``values`` are text."""
    return (overrides.get(name) or PROMPTS[name]).format(**values)
