"""Where the media of a corpus are, whether they are there, and what a table says of them."""

from __future__ import annotations

import base64
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unival.datatools.corpora.rows import Dropped
from unival.errors import ConfigError, DataError, nearest
from unival.media.loader import MediaLoader
from unival.media.source import MediaError
from unival.media.tar import members

MISSING = "media file missing"


class MediaFiles:
    """Media below ``root``, a folder or an uncompressed .tar, named by ``template``.

    Tables hold names relative to ``base`` (what training calls image_dir) where the root lies below it, absolute
    ones elsewhere. ``check``: a medium must exist; one whose name differs in its ending only (mkv for mp4) is
    taken. ``embed``: images are read and written as base64 instead. Raises ConfigError for an absent root.
    """

    def __init__(
        self, template: str, root: Path, base: Path, *, check: bool = False, embed: bool = False
    ) -> None:
        self.template, self.check, self.embed = template, check, embed
        self.root, self.base = root.absolute(), base.absolute()
        self.missing: dict[str, int] = {}
        self._folders: dict[str, tuple[frozenset[str], dict[str, str]]] = {}
        if (check or embed) and not root.exists():
            raise ConfigError(
                f"--media-root {root} does not exist; give the folder or .tar with the media of this corpus"
            )
        if self.root.is_file():
            self._take_archive()

    def name(self, parts: Mapping[str, Any]) -> str:
        """Fill the template. Raises ConfigError for a part that the corpus does not have."""
        try:
            return posixpath.normpath(self.template.format_map(parts))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            wrong = str(error.args[0]) if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"--media-name '{self.template}': '{wrong}' cannot be filled; parts: {', '.join(parts)}."
                f"{nearest(wrong, parts)}"
            ) from None

    def reference(self, parts: Mapping[str, Any]) -> str:
        """Return what the media column says. Raises Dropped for a medium that is missing or cannot be read."""
        name = self.name(parts)
        if name.startswith(("/", "../")):
            raise Dropped("media name leaves the media root")
        if "." not in name:
            raise ConfigError(
                f"--media-name '{self.template}' gives '{name}', and a name without a dot would be read as base64; "
                "add the files' ending"
            )
        if self.check or self.embed:
            found = self._find(name)
            if found is None:
                self.missing[name] = self.missing.get(name, 0) + 1
                raise Dropped(MISSING)
            name = found
        if self.embed:
            return self._base64(name)
        path = self.root / name
        return path.relative_to(self.base).as_posix() if path.is_relative_to(self.base) else path.as_posix()

    def _find(self, name: str) -> str | None:
        folder, _, file = name.rpartition("/")
        names, stems = self._listing(folder)
        if file in names:
            return name
        other = stems.get(posixpath.splitext(file)[0])
        return posixpath.join(folder, other) if other else None

    def _listing(self, folder: str) -> tuple[frozenset[str], dict[str, str]]:
        """Files of one folder: a listing answers for all its names, a call per file would take hours."""
        if folder not in self._folders:
            names: list[str] = []
            if not self.root.is_file():
                try:
                    with os.scandir(self.root / folder) as entries:
                        names = sorted(e.name for e in entries if e.is_file())
                except OSError:
                    names = []
            self._folders[folder] = _names(names)
        return self._folders[folder]

    def _take_archive(self) -> None:
        folders: dict[str, list[str]] = {}
        for member in sorted(members(str(self.root))):
            folder, _, file = member.rpartition("/")
            folders.setdefault(folder, []).append(file)
        self._folders = {folder: _names(files) for folder, files in folders.items()}

    def _base64(self, name: str) -> str:
        try:
            content = MediaLoader(self.root).open(name)
            data = content if isinstance(content, bytes) else Path(content).read_bytes()
        except (MediaError, OSError) as error:
            raise Dropped(f"media file unreadable ({type(error).__name__})") from None
        if not data:
            raise Dropped("media file empty")
        return base64.b64encode(data).decode("ascii")


def _names(files: list[str]) -> tuple[frozenset[str], dict[str, str]]:
    return frozenset(files), {posixpath.splitext(f)[0]: f for f in reversed(files)}


def decode_sample(references: list[str], modality: str, base: Path) -> list[str]:
    """Decode media of a table; returns "reference: reason" of those that cannot be."""
    loader, failures = MediaLoader(base), []
    for reference in references:
        try:
            if modality == "image":
                loader.image(reference)
            elif modality == "video":
                loader.video(reference, 4)
            else:
                loader.audio(reference, 48_000)
        except MediaError as error:
            failures.append(str(error))
    return failures


def media_ids(path: str) -> set[str]:
    """Return the second column, the media id, of a table in one of the finetuning layouts."""
    ids = set()
    try:
        with open(path, encoding="utf-8", newline="\n") as handle:
            for number, line in enumerate(handle, 1):
                cells = line.split("\t", 2)
                if len(cells) < 3:
                    raise DataError(
                        "expected tab-separated columns with the media id second", path=path, line=number
                    )
                ids.add(cells[1])
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--exclude {path} cannot be read: {error}") from None
    return ids
