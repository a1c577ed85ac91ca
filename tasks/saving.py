"""Checkpoints are written beside the updates: the training waits for a copy of its state, not for the disk.

The engine's own function that saves runs in a thread, from the choice of names to the removal of old files, so that all
that happens to files happens in its order. The training waits until the state is copied, and then goes on. There is one
such thread at a time; whatever ends a run waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fairseq_cli.train
import torch
from fairseq import checkpoint_utils, utils

from unival.core.files import make_folder
from unival.errors import OutputError
from unival.launch.watchdog import WATCHDOG
from unival.tasks import journal
from unival.tasks.files import LAST, write_checkpoint
from unival.tasks.snapshot import Memory, Snapshot, room_for

logger = logging.getLogger(__name__)

_MIB = 1 << 20
_engine_save = checkpoint_utils.save_checkpoint
_engine_main = fairseq_cli.train.main


class Writer:
    """The thread that saves, one of a process."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._go_on = threading.Event()
        self._error: BaseException | None = None
        self._memory = Memory()
        self._inherited: Memory | None = None
        self._told = False
        self._path: Path | None = None

    def begin(self, save: Callable[[], Any]) -> None:
        """Let a thread call ``save``; return when it is done or has called :meth:`hold`.

        Raises what the save before this one raised, or this one up to here.
        """
        self.wait()
        self._go_on.clear()
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        self._thread = threading.Thread(target=self._run, args=(save, device), name="checkpoint")
        with WATCHDOG.paused():
            self._thread.start()
            self._go_on.wait()
        self.look()

    def _run(self, save: Callable[[], Any], device: int | None) -> None:
        try:
            if device is not None:
                torch.cuda.set_device(device)  # a thread begins with the first one
            save()
        except BaseException as error:
            self._error = error
        finally:
            self._memory.release()
            self._go_on.set()

    def hold(self, state: Mapping[str, Any]) -> Any:
        """Return a state on the CPU for the disk. In the thread it is a copy, and the training goes on; where there is
        no memory for one, the training waits for the disk too."""
        if not self.inside:
            return utils.move_to_cpu(state)
        snapshot = Snapshot(state)
        copy = None
        if room_for(snapshot.nbytes):
            with contextlib.suppress(OSError):
                copy = snapshot.take(self._memory)
        if copy is not None:
            self._go_on.set()
            return copy
        if not self._told:
            self._told = True
            logger.info(
                f"updates wait while a checkpoint is written: to go on beside it takes {snapshot.nbytes / _MIB:,.0f} "
                "MiB of memory, and less than twice that is free"
            )
        return utils.move_to_cpu(state)

    @property
    def inside(self) -> bool:
        """Whether this is the thread that saves."""
        return threading.current_thread() is self._thread

    def look(self) -> None:
        """Raise what went wrong in the last save, if it has by now; wait for nothing."""
        if self._error is not None:
            self.wait()

    def wait(self) -> None:
        """Return when the last save is complete. Raises what went wrong in it."""
        if self._thread is None:
            return
        with WATCHDOG.paused():
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """While a file gets its content; processes forked meanwhile do not hold it open."""
        self._path = path
        try:
            yield
        finally:
            self._path = None

    def in_child(self) -> None:
        """What a forked process leaves to its parent: a data worker would keep the content of the file on the disk long
        after it is removed."""
        # A child has no such memory. Freed, its addresses would be taken from what the child has there by then.
        self._inherited = self._memory
        self._thread, self._memory = None, Memory()
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            for number in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    place = Path(os.readlink(f"/proc/self/fd/{number}"))
                    if place.name.endswith(f".part.{self._path.name}"):
                        os.close(int(number))


WRITER = Writer()
os.register_at_fork(after_in_child=WRITER.in_child)


def write(state: Mapping[str, Any], filename: str | Path, spare: str | None) -> None:
    """Write a checkpoint.

    Raises:
        OutputError: it cannot be written; it says where it is instead (``spare``: a second folder), and how to go on.
    """
    try:
        with WRITER.writing(Path(filename)):
            write_checkpoint(state, filename)
    except OutputError as error:
        if not spare:
            raise OutputError(
                f"{error}. {_left(Path(filename).parent)} (--save-dir-fallback names a second place)"
            ) from None
        make_folder(spare)
        write_checkpoint(state, Path(spare) / LAST)
        update = state["optimizer_history"][-1]["num_updates"]
        raise OutputError(
            f"{error}. Update {update} is saved as {Path(spare) / LAST}; the same command goes on "
            "from there when there is room"
        ) from None


def _left(folder: Path) -> str:
    """What a run that could not save leaves behind."""
    if (folder / LAST).is_file():
        return (
            "What was saved before is as it was, and the same command goes on from there when there is room"
        )
    return f"No earlier checkpoint is in {folder}: the same command begins anew"


def save_checkpoint(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
    """Stand in for the engine's function of this name.

    What processes do together for a save stays in the main thread and in step, and so does a save whose file a task
    asks for at once (``post_save``).
    """
    together = trainer.is_fsdp or trainer.cfg.distributed_training.zero_sharding != "none" or trainer.tpu
    asked_for = hasattr(trainer.task, "post_save")
    if together or asked_for or cfg.no_save or not trainer.should_save_checkpoint_on_current_rank:
        return _engine_save(cfg, trainer, epoch_itr, val_loss)
    WRITER.begin(lambda: _engine_save(cfg, trainer, epoch_itr, val_loss))
    return None


def main(cfg: Any) -> None:
    """Stand in for the engine's function of this name: a run ends when its last checkpoint and its log are complete."""
    try:
        _engine_main(cfg)
    except BaseException:
        try:
            WRITER.wait()
        except Exception as error:
            logger.error(f"the last checkpoint: {error}")
        raise
    else:
        WRITER.wait()
    finally:
        journal.finish()  # what a half-written checkpoint left no room for


# whoever looks for the engine's source or documentation finds it
save_checkpoint.__wrapped__ = _engine_save  # type: ignore[attr-defined]
main.__wrapped__ = _engine_main  # type: ignore[attr-defined]
