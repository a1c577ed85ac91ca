"""One writer at a time: a lock file that names who writes, and that is taken over when that process is gone.

On the holder's own machine the process itself is looked up. From another one (a common file system) the file's time is
watched: the holder touches it every quarter of a minute, and a lock that is not touched for two minutes is stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from unival.core.files import make_folder, writing
from unival.errors import ConfigError

logger = logging.getLogger(__name__)

BEAT = 15.0  # seconds between two touches
STALE = 120.0  # seconds without one
_NAME = ".unival.lock"


@dataclass(frozen=True)
class Holder:
    """A process: its host (with the machine's current boot), number, and when it started, in ticks and for people."""

    host: str
    boot: str
    pid: int
    ticks: int
    start: str
    command: str

    @classmethod
    def here(cls) -> Holder:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        words = shlex.join(sys.orig_argv)
        command = words if len(words) < 200 else words[:200] + " ..."
        return cls(socket.gethostname(), _boot(), os.getpid(), _ticks(os.getpid()), started, command)

    @property
    def near(self) -> bool:
        """Whether it runs, or ran, on this machine since it was started."""
        return (self.host, self.boot) == (socket.gethostname(), _boot())

    @property
    def alive(self) -> bool:
        """Whether it runs still; only for a near one."""
        if self.ticks:
            return _ticks(self.pid) == self.ticks
        try:  # a system without /proc
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.start} ({self.command})"


class Claim:
    """A held lock; ``release`` gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done = threading.Event()
        self._owner = os.getpid()
        threading.Thread(target=self._beat, daemon=True, name="claim").start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Let others write. A forked process does not release what its parent holds."""
        if os.getpid() == self._owner and not self._done.is_set():
            self._done.set()
            with contextlib.suppress(OSError):
                self.path.unlink()


@contextlib.contextmanager
def claimed(target: str | Path, file: bool = False) -> Iterator[None]:
    """Write ``target``, a folder, or with ``file`` a file, alone.

    Raises:
        ConfigError: another process writes it; host, process and start are named.
    """
    claim = take(target, file)
    try:
        yield
    finally:
        claim.release()


def take(target: str | Path, file: bool = False) -> Claim:
    """Claim a folder (made when it is absent), or with ``file`` a file, until ``release``.

    Raises:
        ConfigError: another process holds it.
        OutputError: nothing can be written there.
    """
    target = Path(target)
    path = target.with_name(f".{target.name}.lock") if file else target / _NAME
    make_folder(path.parent)
    with writing(path):
        holder = _try(path)
        if holder is not None and not holder.near:
            holder = _wait_for(path, holder)
    if holder is not None:
        raise ConfigError(
            f"'{target}' is being written by {holder}: wait for it or end it, or give another place to write to"
        )
    return Claim(path)


def _try(path: Path) -> Holder | None:
    """Take the lock where it is free or its holder is gone; return a holder that is, or may be, alive."""
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            with contextlib.suppress(OSError):  # a file system without locks: the look at the content must do
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _same(file.fileno(), path):  # released meanwhile
                continue
            file.seek(0)
            holder = _read(file.read())
            if holder is not None and (not holder.near or holder.alive):
                return holder
            if holder is not None:
                logger.info(f"{path}: taken over from {holder}, which is gone")
            _write(file)
            return None


def _wait_for(path: Path, holder: Holder) -> Holder | None:
    """Watch the lock of another machine until it is touched, released or stale; take it over in the last two cases."""
    logger.warning(f"{path} is held by {holder}; it is taken over when it is not touched for {STALE:g} s")
    touched, since = path.stat().st_mtime, time.monotonic()
    while time.monotonic() - since < STALE:
        time.sleep(1.0)
        if not path.exists():
            return _try(path)
        if path.stat().st_mtime != touched:
            return holder
    with open(path, "r+", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if not _same(file.fileno(), path) or path.stat().st_mtime != touched:
            return holder
        logger.warning(f"{path}: taken over from {holder}, silent for {STALE:g} s")
        _write(file)
    return None


def _write(file: IO[str]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(asdict(Holder.here())))
    file.flush()
    os.fsync(file.fileno())


def _same(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False


def _read(text: str) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):  # empty, or torn by a full disk
        return None


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def _ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none, or where the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
