"""The command lines of the reference's scripts and the tables of docs/experiments.md that translate them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs/experiments.md"
SCRIPTS: dict[str, list[dict[str, Any]]] = json.loads(
    gzip.decompress((Path(__file__).parent / "data/script_args.json.gz").read_bytes())
)
COMMANDS = [(script, c["program"], c["args"]) for script, found in SCRIPTS.items() for c in found]
TRAINING = {script: args for script, program, args in COMMANDS if program == "train.py"}
BROKEN = "caption/video/unival_video_caption_stage_1.sh"  # a blank after a backslash, trap T5


def split(args: list[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """(words without an option's name, [(option with underscores, value or None for a flag)])."""
    words: list[str] = []
    options: list[tuple[str, str | None]] = []
    for word in args:
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            options.append((name.replace("-", "_"), value if has_value else None))
        elif options and options[-1][1] is None and options[-1][0] in SEPARATE:
            options[-1] = (options[-1][0], word)
        else:
            words.append(word)
    return words, options


# options whose value is a word of its own in some scripts
SEPARATE = {"log_end", "drop_best_ratio", "drop_best_after", "drop_worst_ratio", "drop_worst_after"}


def without_plugin(args: list[str]) -> list[str]:
    return [word for word in args if not word.startswith("--user-dir") and word.strip()]


def cells(heading: str) -> list[list[str]]:
    """Rows of the first table behind a heading of docs/experiments.md, without its head."""
    text = DOCS.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)
