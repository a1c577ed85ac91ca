"""Run an evaluation: in this process, in several of this machine, or as one rank of a launcher."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import torch

from unival.core.command import report_failure
from unival.errors import ConfigError
from unival.evaluate import processes
from unival.evaluate.prepare import Prepared, prepare
from unival.evaluate.request import Request
from unival.evaluate.results import check_results, save_results
from unival.evaluate.run import write_result
from unival.specs.baselines import strongest


def evaluate(request: Request) -> dict[str, Any] | None:
    """Predict, merge, score; write ``result.json`` and return it with its ``folder``.

    None where only a share was predicted. Raises what :func:`predict` raises, and DataError for items
    without a prediction or with unreadable media.
    """
    predicted = predict(request)
    if predicted is None:
        return None
    result = {"folder": str(predicted.folder), **predicted.evaluation.finish()}
    if predicted.train is not None and result["metrics"]:
        result["baselines"] = predicted.evaluation.baselines(predicted.train)
        result["baseline_name"], result["baseline"] = strongest(result["baselines"], result["main_metric"])
        result["best_possible"] = predicted.evaluation.best_possible()
    write_result(predicted.folder, result)
    if request.results:
        result["results"] = {
            "file": request.results,
            "n": save_results(predicted.evaluation, request.results),
        }
    return result


def predict(request: Request) -> Prepared | None:
    """Predict what is not predicted yet, in as many processes as are asked for.

    Returns what was prepared, None where only a share was predicted. Raises ConfigError, CheckpointError and
    DataError for what cannot be evaluated, and ConfigError for processes that failed or did not come.
    """
    rank, size = processes.rank_and_size()
    started = processes.PARENT in os.environ
    share_only = request.shard is not None
    if request.processes > 1 and (share_only or size > 1):
        raise ConfigError("--processes is for one machine, without --shard or a launcher")
    several = request.processes
    if size > 1:
        device = request.device or _local_device()
        request = replace(request, shard=rank, num_shards=size, device=device)
        processes.join(rank, size, request.preflight_timeout)
    available = processes.devices(request.device)
    request = replace(
        request,
        device=available[0],
        num_shards=several if several > 1 else request.num_shards,
        shard=request.shard or 0,
    )
    prepared = prepare(request)
    if request.results:
        check_results(prepared.evaluation, request.results)
    if rank == 0 and not started:
        if request.restart and (prepared.folder / "run.json").is_file():
            shutil.rmtree(prepared.folder)
        prepared.evaluation.claim()
    if size > 1:
        processes.wait()
    ours = replace(request, out=str(prepared.folder), restart=False, processes=1)
    running = processes.start(asdict(ours), several, available)
    try:
        prepared.evaluation.predict(_progress(quiet=bool(request.shard)))
        processes.finish(running)
    except BaseException:
        processes.stop(running)
        raise
    if size > 1:
        processes.wait()
        processes.leave()
    return None if share_only or rank > 0 else prepared


def share() -> int:
    """Predict one share, in a process that :func:`predict` started with its request on standard input."""
    try:
        predict(Request(**json.load(sys.stdin)))
    except Exception as error:
        return report_failure(error)
    return 0


def _local_device() -> str | None:
    if not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _progress(quiet: bool) -> Callable[[Any], Iterable[Any]]:
    if quiet:
        return processes.while_parent_lives
    from tqdm import tqdm

    return lambda batches: tqdm(batches, desc="predict", unit="batch", mininterval=1.0)


if __name__ == "__main__":
    sys.exit(share())
