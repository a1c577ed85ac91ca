"""File endings by modality: what a file is taken for where its name alone is looked at."""

from __future__ import annotations

import os

from unival.media.columnar import file_of

ENDINGS = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "video": (".mp4", ".webm", ".mkv", ".mov", ".avi", ".mpg", ".mpeg", ".gif"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"),
}


def kind_of(reference: str) -> str:
    """Return the ending of the file that a media reference names (".jpg", ".parquet" for a cell), or "base64"."""
    if "." not in reference:
        return "base64"
    return os.path.splitext(file_of(reference) or reference)[1].lower()
