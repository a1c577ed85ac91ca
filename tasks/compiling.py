"""``--compile``: the model's regions (:mod:`unival.modeling.regions`) through torch.compile, where a compiler is there.

The compiler itself is imported where a run asks for it: it takes seconds and memory.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from unival.launch.watchdog import WATCHDOG
from unival.modeling.regions import REGIONS, Region

logger = logging.getLogger(__name__)

# Dropout from torch's own generators: the numbers of a run that is not compiled, so that either goes on with the other.
_OPTIONS: dict[str, Any] = {"fallback_random": True}
# One for every network, and for stacks of layers one for each of: padding or none, positions alike in all rows or not.
_VERSIONS = 32


def set_compiled(wanted: bool, device: torch.device, backend: str = "inductor") -> bool:
    """Compile the regions of all models of this process from now on, or run them as written; returns which.

    Without a working compiler a warning says why, and they run as written.
    """
    for region in REGIONS:
        region.compiled = None  # of an earlier run in this process
    if not wanted:
        return False
    problem = _obstacle(device, backend)
    if problem:
        logger.warning(
            f"--compile: {problem}. The run goes on without it. A CPU needs a C++ compiler (CXX names it), a GPU "
            "triton and a C compiler; install them, or leave --compile out"
        )
        return False
    import torch._dynamo.config

    # not an argument of torch.compile, which torch 2.11 does not know
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VERSIONS)
    if device.type == "cuda" or backend == "cudagraphs":
        _mark_updates()
    _PROGRESS.watch()
    for region in REGIONS:
        region.compiled = _compiled(region, backend)
    logger.info("--compile: the first batches of every kind take minutes, see docs/training.md")
    return True


def _obstacle(device: torch.device, backend: str) -> str:
    """Why nothing can be compiled for a device, or nothing: one line of code is, by all stages of torch's compiler."""
    import torch._inductor.config

    try:
        # a kept result would need no compiler; torch warns of what it does not keep
        with warnings.catch_warnings(), torch._inductor.config.patch(force_disable_caches=True):
            warnings.simplefilter("ignore")
            torch.compile(lambda x: x.sin() + 1, backend=backend)(torch.zeros(9, device=device))
    except Exception as error:  # every stage has its own kinds
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        return f"nothing can be compiled for the {device.type} here ({lines[0] if lines else type(cause).__name__})"
    return ""


def _compiled(region: Region, backend: str) -> Callable[..., Any]:
    from torch._dynamo import maybe_mark_dynamic
    from torch._dynamo.exc import TorchDynamoException

    made = torch.compile(
        region.function,
        dynamic=True if region.every_size else None,
        backend=backend,
        options=_OPTIONS if backend == "inductor" else None,
    )
    name = region.function.__name__

    def run(module: Any, first: Tensor, *others: Any) -> Any:
        if not region.every_size:
            maybe_mark_dynamic(first, 0)
        _PROGRESS.name = name
        try:
            return made(module, first, *others)
        except TorchDynamoException as error:
            region.compiled = None
            lines = str(error).strip().splitlines()
            logger.warning(
                f"--compile: '{name}' cannot be compiled ({lines[0] if lines else type(error).__name__}); it runs as "
                "written from here on"
            )
            return region.function(module, first, *others)

    return run


def _mark_updates() -> None:
    """Tell recorded CUDA graphs where an update ends, for all optimizers of this process.

    torch takes the first forward pass behind a backward pass for a new step, and gives the memory of the last step's
    graphs away. With accumulated batches the gradients of the first one lie there, and the update needs them.
    """
    torch.compiler.cudagraph_mark_step_begin()  # before the first update: from here on only marks begin a step
    if not _MARKED:
        mark = torch.compiler.cudagraph_mark_step_begin
        _MARKED.append(register_optimizer_step_post_hook(lambda *_: mark()))


_MARKED: list[Any] = []  # the hook, once in a process


class _Progress:
    """Says what was compiled and what it took. A compilation is no hanging run, so the watchdog waits for it."""

    def __init__(self) -> None:
        self.name, self.count = "", 0
        self._watching = False
        self._pause, self._began = ExitStack(), 0.0

    def watch(self) -> None:
        """Begin, once in a process."""
        from torch._dynamo.callback import callback_handler

        self.count = 0
        if not self._watching:
            self._watching = True
            callback_handler.register_start_callback(self._begin)
            callback_handler.register_end_callback(self._end)

    def _begin(self, _: Any) -> None:
        self._began = time.monotonic()
        self._pause.enter_context(WATCHDOG.paused())

    def _end(self, of: Any) -> None:
        self._pause.close()
        self.count += 1
        kinds = {"DYNAMO": self.name, "CUDAGRAPH_RECORDING": "recording a CUDA graph"}
        what = kinds.get(of.callback_trigger.name, "a backward pass")
        logger.info(f"compilation {self.count} ({what}): {time.monotonic() - self._began:.0f} s")


_PROGRESS = _Progress()
