"""Files that are complete or not there: written beside their place and moved into it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unival.errors import OutputError, said

# Names of what is open already: opened again and written to, never replaced.
_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/)|/proc/")
# What libraries say instead of an OSError when a file cannot be written.
_FAILED_WRITE = re.compile(r"inline_container|PytorchStreamWriter|cannot be opened|I/O error|os error \d")
_numbers = itertools.count()


@contextmanager
def writing(path: str | Path, part: Path | None = None) -> Iterator[None]:
    """Turn a failure to write into OutputError, which names ``path``; failures of other files pass.

    ``part``: the name that ``path`` has until it is complete.
    """
    try:
        yield
    except OSError as error:
        own = tuple(str(place) for place in (path, part) if place is not None)
        if error.filename is not None and not str(error.filename).startswith(own):
            raise
        raise OutputError(f"cannot write {path}: {said(error)}") from None
    except Exception as error:
        foreign = isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError"
        if not foreign or not _FAILED_WRITE.search(str(error)):
            raise
        folder = part.parent if part is not None else Path(path).parent
        full = folder.is_dir() and shutil.disk_usage(folder).free < 1 << 20
        raise OutputError(
            f"cannot write {path}: {'No space left on device' if full else said(error)}"
        ) from None


class _Draft:
    """A file on its way: written under the name ``part``, moved to its place by ``finish``.

    Links are followed, and only a regular file is ever replaced: to a device, a pipe or an open descriptor the
    content is written. The file has the mode of the one it replaces, else the umask's. Raises OutputError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        status = _status(self.path)
        self.stream = _special(self.path, status)
        self._made: list[Path] = []
        if self.stream:
            self._folder: str | None = tempfile.mkdtemp(prefix="unival-")
            self.place, self.part = self.path, Path(self._folder) / self.path.name
            return
        self._folder = None
        self.place = Path(os.path.realpath(self.path))
        self.part = self.place.with_name(f".{os.getpid()}-{next(_numbers)}.part.{self.place.name[-40:]}")
        self._made = _make(self.place.parent, self.path)
        try:
            if status is not None:
                os.close(os.open(self.place, os.O_WRONLY))  # refused where the file is read-only
            self.part.unlink(missing_ok=True)
            handle = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            self._mode = stat.S_IMODE((status or os.fstat(handle)).st_mode)
            os.close(handle)
        except OSError as error:
            self.discard()
            raise OutputError(f"cannot write {self.path}: {said(error)}") from None

    def finish(self) -> None:
        """Give the file its name."""
        with writing(self.path, self.part):
            if self.stream:
                with open(self.part, "rb") as source, open(self.place, "wb") as target:
                    shutil.copyfileobj(source, target)
                self.discard()
                return
            if stat.S_IMODE(os.stat(self.part).st_mode) != self._mode:
                with contextlib.suppress(PermissionError):  # file systems without modes
                    os.chmod(self.part, self._mode)
            os.replace(self.part, self.place)
            self._made = []

    def discard(self) -> None:
        """Remove what an unfinished file has left, folders made for it included."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        with contextlib.suppress(OSError):
            self.part.unlink(missing_ok=True)
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # no longer empty
                folder.rmdir()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; it takes the file's name when the block ends well.

    After an error or a kill the old file is as it was; an error also removes the temporary one. Several
    processes may write the same file: the last one wins, no reader sees a mixture. Raises OutputError where
    the file cannot be written.
    """
    draft = _Draft(path)
    try:
        with writing(path, draft.part):
            yield draft.part
        draft.finish()
    finally:
        draft.discard()


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file so that a kill leaves the old content or the new one.

    Half a surrogate pair, which UTF-8 cannot hold, becomes its escape (``\\ud83d``), which JSON reads back.
    """
    write_bytes(path, encoded(text))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old content or the new one."""
    with replacing(path) as part:
        part.write_bytes(data)


def encoded(text: str) -> bytes:
    """UTF-8 of a text that may hold halves of surrogate pairs, as file names and foreign JSON do."""
    return text.encode("utf-8", "backslashreplace")


class Output:
    """The files of one run. They get their names together in ``commit``; a failed run leaves none behind.

    As a context manager it discards at the end what was not committed.
    """

    def __init__(self) -> None:
        self._waiting: dict[Path, _Draft] = {}

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def new(self, place: Path) -> Path:
        """Return the temporary path that will become ``place``. Raises OutputError where that cannot be."""
        if place in self._waiting:
            self._waiting[place].discard()
        self._waiting[place] = _Draft(place)
        return self._waiting[place].part

    def forget(self, place: Path) -> None:
        """Take back a file that turned out empty."""
        if place in self._waiting:
            self._waiting.pop(place).discard()

    def text(self, place: Path, text: str) -> None:
        self.bytes(place, encoded(text))

    def bytes(self, place: Path, data: bytes) -> None:
        part = self.new(place)
        with writing(place, part):
            part.write_bytes(data)

    def commit(self) -> list[Path]:
        """Give every file its name; returns the names."""
        places = list(self._waiting)
        for place in places:
            self._waiting[place].finish()
            del self._waiting[place]
        return places

    def discard(self) -> None:
        """Remove what was not committed."""
        for draft in reversed(self._waiting.values()):
            draft.discard()
        self._waiting.clear()


def check_file(path: str | Path) -> None:
    """Find out now whether a file can be written later. Leaves nothing; raises OutputError."""
    path = Path(path)
    status = _status(path)
    if _special(path, status):
        if not os.access(path, os.W_OK):
            raise OutputError(f"cannot write {path}: Permission denied")
        return
    place = Path(os.path.realpath(path))
    with writing(path, place):
        if status is not None:
            os.close(os.open(place, os.O_WRONLY))
    _try(place.parent, path)


def check_folder(path: str | Path) -> None:
    """Find out now whether a folder can be made and written to later. Leaves nothing; raises OutputError."""
    _found(Path(path))
    _try(Path(os.path.realpath(path)), Path(path))


def make_folder(path: str | Path) -> Path:
    """Make a folder and those above it, where they are not there yet. Raises OutputError."""
    path = Path(path)
    _found(path)
    _make(path, path)
    return path


def _status(path: Path) -> os.stat_result | None:
    """What is at the place of a file to write; None where nothing is. Raises OutputError for a folder."""
    status = _found(path)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    return status


def _found(path: Path) -> os.stat_result | None:
    """What is there, links followed; None for nothing. Raises OutputError where nothing ever can be."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise OutputError(f"cannot write {path}: {said(error)}") from None


def is_stream(path: str | Path) -> bool:
    """True for a device, a pipe or an open descriptor: what is written to and never replaced."""
    return _special(Path(path), _status(Path(path)))


def _special(path: Path, status: os.stat_result | None) -> bool:
    special = status is not None and not stat.S_ISREG(status.st_mode)
    return special or _DESCRIPTOR.match(os.path.abspath(path)) is not None


def _make(folder: Path, path: Path) -> list[Path]:
    """Make a folder with those above it; returns the new ones, from the top. ``path``: what they are made for."""
    made: list[Path] = []
    try:
        missing = list(itertools.takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            made.append(place)
        if not folder.is_dir():
            raise NotADirectoryError(20, f"{folder} is a file and no folder")
    except (OSError, ValueError) as error:
        for place in reversed(made):
            with contextlib.suppress(OSError):
                place.rmdir()
        raise OutputError(f"cannot write {path}: {said(error)}") from None
    return made


def standing(folder: Path) -> Path:
    """Return an absolute path, or the first one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _try(folder: Path, path: Path) -> None:
    """Write a nameless byte into the folder, or into the first one above it that is there."""
    try:
        there = standing(folder)
        if not there.is_dir():
            raise OutputError(f"cannot write {path}: {there} is a file and no folder")
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {said(error)}") from None
