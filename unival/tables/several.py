"""One name for several files: patterns, and folders that Hugging Face's datasets saved."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path

from unival.core.paths import expand_braces
from unival.errors import DataError


def files_of(path: str) -> list[str]:
    """Return the files that a table's path stands for, in order: itself, the matches of ``*``, ``?`` and
    ``{000..099}``, or the files of a folder that ``datasets.save_to_disk`` wrote.

    Raises DataError for a pattern without matches and for a folder that is no table.
    """
    if os.path.isdir(path):
        return saved_files(path)
    if os.path.exists(path) or not any(mark in path for mark in "*?{"):
        return [path]
    found = []
    for one in expand_braces(path):
        matches = sorted(glob.glob(one)) if any(mark in one for mark in "*?[") else [one]
        if not matches:
            raise DataError(f"no file matches it (relative paths start at {os.getcwd()})", path=one)
        found += matches
    return found


def saved_files(folder: str) -> list[str]:
    """Return the Arrow files of a folder that ``datasets.save_to_disk`` wrote, in order.

    Raises DataError for another folder, and for one that holds several splits.
    """
    splits = Path(folder) / "dataset_dict.json"
    state = Path(folder) / "state.json"
    place = splits
    try:
        if splits.is_file():
            names = json.loads(splits.read_text(encoding="utf-8"))["splits"]
            raise DataError(
                f"holds several splits; name one: {', '.join(os.path.join(folder, n) for n in names)}",
                path=folder,
            )
        place = state
        if state.is_file():
            files = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
            return [os.path.join(folder, os.path.basename(file["filename"])) for file in files]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot be read as datasets.save_to_disk writes it ({error})", path=str(place)
        ) from None
    raise DataError(
        "is a folder, not a regular file, and none that datasets.save_to_disk wrote (no state.json); "
        "a table is a file, or several: 'folder/train-*.parquet'",
        path=folder,
    )
