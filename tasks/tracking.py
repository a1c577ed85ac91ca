"""What a run reports besides its log file: curves and pictures, in TensorBoard and Weights & Biases.

The engine asks for a progress bar once for each epoch and each validation; :func:`progress_bar` stands in its place,
adds what the engine does not measure (examples a second, share of the time spent waiting for data) and hands all on.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fairseq.logging import progress_bar as engine
from fairseq.logging.meters import AverageMeter

from unival.core.files import replacing, standing
from unival.core.installation import install_extra
from unival.errors import ConfigError, OutputError, said
from unival.tasks.waiting import DATA_WAIT, Waited

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

SHEET = "predictions.png"
_ROOM = 1 << 20  # bytes: with less TensorBoard would end in its own thread, with a traceback
WANDB_RUN = "wandb_run.txt"  # beside the checkpoints: the run that a later start continues


class Tracker(ABC):
    """Where curves and pictures go. What cannot be written is missing there, with a warning; it ends no run."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, place: str) -> None:
        self.place = place
        self._failed = False

    def scalars(self, values: Mapping[str, float], part: str, update: int) -> None:
        """Record numbers; ``part`` is "train_inner" (while training), "train" (an epoch) or "valid"."""
        self._attempt(lambda: self._scalars(values, part, update))

    def picture(self, name: str, pixels: np.ndarray, update: int) -> None:
        """Record a picture, uint8 (h, w, 3)."""
        self._attempt(lambda: self._picture(name, pixels, update))

    def finish(self) -> None:
        """Write what is not written yet; the run is over."""
        self._attempt(self._finish)

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except self.errors as error:
            if not self._failed:
                logger.warning(f"{self.place} lacks values, the training goes on: {said(error)}")
            self._failed = True
        else:
            self._failed = False

    @abstractmethod
    def _scalars(self, values: Mapping[str, float], part: str, update: int) -> None: ...

    @abstractmethod
    def _picture(self, name: str, pixels: np.ndarray, update: int) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...


class TensorBoard(Tracker):
    """Event files, a folder for each part."""

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"--tensorboard-logdir needs tensorboard ({error}): {install_extra('train')}"
            ) from None
        super().__init__(folder)
        self._make = SummaryWriter
        self._writers: dict[str, Any] = {}

    def _scalars(self, values: Mapping[str, float], part: str, update: int) -> None:
        def write(writer: SummaryWriter) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, update)

        self._record(write, part)

    def _picture(self, name: str, pixels: np.ndarray, update: int) -> None:
        self._record(lambda writer: writer.add_image(name, pixels, update, dataformats="HWC"), "valid")

    def _finish(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _record(self, write: Callable[[SummaryWriter], None], part: str) -> None:
        try:
            if shutil.disk_usage(standing(Path(self.place).absolute())).free < _ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            writer = self._writer(part)
            write(writer)
            writer.flush()
        except OSError:
            # a failure ends the thread that writes: the next call begins a new file, which TensorBoard joins to the old
            with contextlib.suppress(OSError):
                if part in self._writers:
                    self._writers.pop(part).close()
            raise

    def _writer(self, part: str) -> SummaryWriter:
        if part not in self._writers:
            self._writers[part] = self._make(os.path.join(self.place, part))
            self._writers[part].add_text("command", " ".join(sys.argv))
        return self._writers[part]


class WeightsAndBiases(Tracker):
    """One run of a project. WANDB_MODE=offline keeps it on disk; a resumed training goes on with its run."""

    def __init__(self, project: str, name: str, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(f"--wandb-project needs wandb ({error}): {install_extra('wandb')}") from None
        super().__init__(f"the run of Weights & Biases in {folder}")
        self.errors = (OSError, wandb.Error)
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / WANDB_RUN
        identity = known.read_text(encoding="utf-8").strip() if known.is_file() else uuid.uuid4().hex[:8]
        try:
            self._run = wandb.init(
                project=project,
                name=name,
                id=identity,
                resume="allow",
                dir=str(folder),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise ConfigError(
                f"--wandb-project: {' '.join(str(error).split())[:300]} (WANDB_MODE=offline keeps the run on disk)"
            ) from None
        if not known.is_file():
            with replacing(known) as part:
                part.write_text(identity + "\n", encoding="utf-8")
        # updates that are done again after a restart would be dropped as steps of the past
        self._run.define_metric("*", step_metric="update")
        self._image = wandb.Image

    def configure(self, options: Mapping[str, Any]) -> None:
        """Keep the run's options."""
        self._attempt(lambda: self._run.config.update(dict(options), allow_val_change=True))

    def _scalars(self, values: Mapping[str, float], part: str, update: int) -> None:
        self._run.log({"update": update, **{f"{part}/{name}": value for name, value in values.items()}})

    def _picture(self, name: str, pixels: np.ndarray, update: int) -> None:
        self._run.log({"update": update, f"valid/{name}": self._image(pixels)})

    def _finish(self) -> None:
        self._run.finish()


_trackers: dict[tuple[str, str], Tracker] = {}


def keep_sheet(sheet: Image.Image, folder: Path, update: int) -> None:
    """Write the picture of a validation's predictions beside the checkpoints and hand it to every tracker.

    A full disk costs the picture and not the run.
    """
    try:
        with replacing(folder / SHEET) as part:
            sheet.save(part, format="PNG")
    except OutputError as error:
        logger.warning(f"the predictions of update {update:,} are not drawn: {error}")
    for tracker in _trackers.values():
        tracker.picture("predictions", np.asarray(sheet), update)


def finish() -> None:
    """End what this process records."""
    while _trackers:
        _trackers.popitem()[1].finish()


def _opened(
    tensorboard: str | None, project: str | None, name: str | None, folder: str | None
) -> list[Tracker]:
    found: list[Tracker] = []
    if tensorboard:
        key = ("tensorboard", tensorboard)
        found.append(_trackers.get(key) or _trackers.setdefault(key, TensorBoard(tensorboard)))
    if project:
        key = ("wandb", f"{project}/{name}/{folder}")
        made = _trackers.get(key) or WeightsAndBiases(project, name or "run", Path(folder or "."))
        found.append(_trackers.setdefault(key, made))
    return found


class Reporting(engine.BaseProgressBar):
    """A progress bar that measures and hands on."""

    def __init__(self, bar: Any, trackers: list[Tracker]) -> None:
        self.bar, self.trackers = bar, trackers

    def __iter__(self) -> Iterator[Any]:
        return iter(self.bar)

    def log(self, stats: Any, tag: str | None = None, step: int | None = None) -> None:
        """While training: statistics since the last call."""
        stats.update(_pace(stats))
        self._hand_on(stats, tag, step)
        self.bar.log(stats, tag=tag, step=step)

    def print(self, stats: Any, tag: str | None = None, step: int | None = None) -> None:
        """At the end of an epoch or a validation."""
        self._hand_on(stats, tag, step)
        self.bar.print(stats, tag=tag, step=step)

    def update_config(self, config: Any) -> None:
        for tracker in self.trackers:
            if isinstance(tracker, WeightsAndBiases):
                tracker.configure(config)
        self.bar.update_config(config)

    def _hand_on(self, stats: Mapping[str, Any], tag: str | None, step: int | None) -> None:
        numbers = {name: _number(value) for name, value in stats.items() if name != "num_updates"}
        kept = {name: value for name, value in numbers.items() if value is not None}
        for tracker in self.trackers:
            tracker.scalars(kept, tag or "", step if step is not None else int(stats["num_updates"]))


def _pace(stats: Mapping[str, Any]) -> dict[str, float]:
    """Examples a second over all processes, and the share of the time that this one waited for data."""
    updates, seconds, share = DATA_WAIT.batches, DATA_WAIT.elapsed, DATA_WAIT.share
    DATA_WAIT.reset()
    rows = _number(stats.get("nsentences"))  # of an update
    if not seconds or rows is None:
        return {}
    return {"data_wait": share, "examples_per_second": round(rows * updates / seconds, 2)}


def _number(value: Any) -> Any:
    if isinstance(value, AverageMeter):
        value = value.val
    if isinstance(value, Number):
        return float(value)  # type: ignore[arg-type]
    return value.item() if hasattr(value, "numel") and value.numel() == 1 else None


def progress_bar(
    iterator: Any,
    *,
    tensorboard_logdir: str | None = None,
    wandb_project: str | None = None,
    wandb_run_name: str | None = None,
    aim_param_checkpoint_dir: str | None = None,
    prefix: str | None = None,
    **rest: Any,
) -> Reporting:
    """Stand in for the engine's function of this name: ``aim_param_checkpoint_dir`` is the run's folder, and
    ``prefix`` names a validation.

    Raises:
        ConfigError: a logger whose package is absent or that cannot start.
    """
    trackers = _opened(tensorboard_logdir, wandb_project, wandb_run_name, aim_param_checkpoint_dir)
    items = Waited(iterator, DATA_WAIT) if prefix is None else iterator
    bar = engine.progress_bar(items, aim_param_checkpoint_dir=aim_param_checkpoint_dir, prefix=prefix, **rest)
    return Reporting(bar, trackers)
