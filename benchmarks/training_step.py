"""Training steps of one model on one device: time, examples a second, memory, share of the matrix units' peak.

    python benchmarks/training_step.py [--device cuda] [--only image video audio text mixture] [--batch 32 128]
                                       [--way eager inductor cudagraphs inductor+graphs] [--precision bfloat16 float32]
                                       [--backend sdpa naive] [--layout channels_last contiguous]
                                       [--floor] [--profile FILE] [--seconds 100] [--json FILE] [--tiny]

Random inputs (benchmarks/step_inputs.py) through updates as the engine's trainer makes them (benchmarks/updates.py).
A way is "eager", as the model is written, or a backend of torch.compile, as ``compile_backend`` names it;
"inductor+graphs" is inductor that records CUDA graphs. Figures are medians over the updates behind a warm-up; what the
first updates took, compilations included, stands apart. "Of peak" is the share of a large matrix product's rate in the
same run, "of data sheet" that of the maker's number. FLOPs are those of the model as written, counted operation by
operation. A row that fails says why, and the next one begins; past ``--seconds`` none begins. ``--floor`` adds one
forward and backward pass of timm's resnet101 alone, all of it in the compute type, at the same batches, and the image
step as a multiple of it. ``--profile`` writes where three updates of the largest batch of images spend their time.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from device_rows import Rows, data_sheet, device_name, keep, matrix_peak, problem, seconds_of, synchronize
from step_inputs import BASE, KINDS, TINY, Sizes, model_of, networks_of, sample_of
from torch.utils.flop_counter import FlopCounterMode
from updates import Update, engine_optimizer, give_precision

from unival.modeling import attention, audio, frontend
from unival.modeling.regions import REGIONS
from unival.tasks.compiling import set_compiled

LAYOUTS = ("channels_last", "contiguous")
WITH_GRAPHS = "+graphs"
WARM = 4  # a CUDA graph is warmed up, recorded and replayed for the first time in three


@contextmanager
def maps_in(layout: str) -> Iterator[None]:
    """Feature maps as the model chooses (channels last), or as they come."""
    before = frontend.channels_last
    if layout == "contiguous":
        frontend.channels_last = audio.channels_last = lambda x, **_: x
    try:
        yield
    finally:
        frontend.channels_last = audio.channels_last = before


@contextmanager
def compiled(way: str, device: str) -> Iterator[None]:
    """Regions in one of the ways. What an earlier way compiled and recorded is dropped."""
    import torch._dynamo
    import torch._inductor.config

    if way == "eager":
        yield
        return
    backend = way.removesuffix(WITH_GRAPHS)
    torch._dynamo.reset()
    torch._inductor.config.triton.cudagraphs = way.endswith(WITH_GRAPHS)
    if not set_compiled(True, torch.device(device), backend):
        raise RuntimeError(f"{backend} compiles nothing here; the log says why")
    try:
        yield
    finally:
        torch._inductor.config.triton.cudagraphs = False
        set_compiled(False, torch.device(device))


@contextmanager
def as_written() -> Iterator[None]:
    """Regions as written inside the block."""
    before = [region.compiled for region in REGIONS]
    for region in REGIONS:
        region.compiled = None
    try:
        yield
    finally:
        for region, function in zip(REGIONS, before, strict=True):
            region.compiled = function


def remarks(way: str, first: str) -> str:
    """What the compiler left out since the last row: regions that run as written, graphs not recorded, splits."""
    if way == "eager":
        return first
    from torch._dynamo.utils import counters

    written = [region.function.__name__ for region in REGIONS if region.compiled is None]
    skipped, breaks = counters["inductor"]["cudagraph_skips"], sum(counters["graph_break"].values())
    found = {f"as written: {', '.join(written)}": written, f"{skipped} graphs not recorded": skipped}
    found |= {f"{breaks} graph breaks": breaks}
    counters.clear()
    return "; ".join(text for text, there in ({first: first} | found).items() if there)


def measure(update: Update, device: str, updates: int) -> dict[str, float]:
    """Seconds of an update and of the first ones, GiB."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(WARM):
        update()
    synchronize(device)
    first = time.perf_counter() - began
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(update, updates, device)
    gib = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    return {"seconds": seconds, "first": first, "gib": gib}


def flop_of(update: Update) -> int:
    """Of a forward and backward pass as written."""
    with as_written(), FlopCounterMode(display=False) as counter:
        update.forward_backward()
    update.optimizer.zero_grad()
    return int(counter.get_total_flops())


def profile(update: Update, device: str) -> str:
    """Where three updates spend their time, on the device and in the calling process."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    cuda = device.startswith("cuda")
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    synchronize(device)
    began = time.perf_counter()
    with record(activities=kinds) as prof:
        for _ in range(3):
            update()
        synchronize(device)
    wall, events = time.perf_counter() - began, prof.key_averages()
    busy = sum(event.self_device_time_total for event in events) / 1e6 if cuda else 0.0
    orders = (["self_cuda_time_total"] if cuda else []) + ["self_cpu_time_total"]
    tables = [events.table(sort_by=order, row_limit=25, max_name_column_width=70) for order in orders]
    return f"device busy {busy:.3f} s of {wall:.3f} s (the profiler's own time included)\n" + "\n".join(
        tables
    )


def floor(sizes: Sizes, rows: int, dtype: torch.dtype, device: str, times: int) -> float:
    """Seconds of a forward and backward pass of the bare image network."""
    import timm

    network = timm.create_model(sizes.image).to(device, dtype).train()
    network = network.to(memory_format=torch.channels_last)
    pictures = torch.randn(rows, 3, sizes.pixels, sizes.pixels, device=device, dtype=dtype)
    pictures = pictures.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        network(pictures).float().sum().backward()
        network.zero_grad(set_to_none=True)

    return seconds_of(run, times, device, warm=WARM)


class Bench:
    """The rows of one call. Kinds of batches whose models are alike share one."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.sizes = args, TINY if args.tiny else BASE
        self.ends = time.monotonic() + args.seconds
        self.flop: dict[tuple[str, int, str], int] = {}
        self.bare: dict[tuple[int, str], float] = {}  # seconds of the bare network
        self.key: tuple[tuple[str, ...], torch.dtype] | None = None
        self.model: torch.nn.Module | None = None
        self.optimizer: Any = None

    def updates(self, kind: str, rows: int, dtype: torch.dtype) -> Update:
        """An update of a kind of batch; its model is the one before where that fits."""
        key = (networks_of(kind), dtype)
        if self.model is None or self.key != key:
            self.model = self.optimizer = self.key = None
            free()
            model = model_of(self.sizes, networks_of(kind))
            give_precision(model, dtype)
            self.model = model.to(self.args.device)
            self.optimizer, self.key = engine_optimizer(self.model, dtype), key
        sample = sample_of(kind, rows, self.sizes, self.args.device, dtype)
        return Update(self.model, self.optimizer, sample)

    def run(self) -> int:
        """All rows; 0 when none failed."""
        args = self.args
        print(f"{device_name(args.device)}, torch {torch.__version__}, {self.sizes.arch}", flush=True)
        head = ["batch of", "way", "precision", "attention", "layout", "rows", "ms / update", "examples / s"]
        head += ["TFLOP", "TFLOP / s", "of peak", "of data sheet", "GiB", "first updates, s", "remarks"]
        failed = 0
        for precision in args.precision:
            dtype = getattr(torch, precision)
            ceiling = matrix_peak(dtype, args.device)
            keep(args.json, part="peak", precision=precision, flops=ceiling, sheet=data_sheet(args.device))
            if args.floor:
                failed += self.floors(precision)
            table = Rows(args.json, tuple(head))
            for way in args.way:
                self.rows_of(way, table, ceiling, precision)
            failed += table.failed
        return int(failed > 0)

    def rows_of(self, way: str, table: Rows, ceiling: float, precision: str) -> None:
        """All rows of one way, which share what it compiles."""
        args = self.args
        try:
            with compiled(way, args.device):
                for row in itertools.product(args.only, args.backend, args.layout, args.batch):
                    self.row(table, ceiling, precision, way, *row)
        except Exception as error:  # the way itself: rows have their own
            values = {"part": "step", "way": way, "precision": precision}
            table.add(["all", way, precision], **values, error=problem(error))

    def row(
        self,
        table: Rows,
        ceiling: float,
        precision: str,
        way: str,
        kind: str,
        backend: str,
        layout: str,
        rows: int,
    ) -> None:
        """Measure and show one row, or say why there is none."""
        args, cells = self.args, [kind, way, precision, backend, layout, rows]
        values = {"part": "step", "what": kind, "way": way, "precision": precision, "batch": rows}
        values |= {"attention": backend, "layout": layout}
        try:
            if time.monotonic() > self.ends:
                raise TimeoutError(f"{args.seconds:g} s are over")
            with attention.backend(backend), maps_in(layout):
                update = self.updates(kind, rows, getattr(torch, precision))
                flop = self.counted(kind, rows, precision, update)
                found = measure(update, args.device, args.updates)
                said = remarks(way, self.beside_bare(kind, rows, precision, found["seconds"]))
                if args.profile and (way, kind, rows) == ("eager", "image", max(args.batch)):
                    self.profiled(update)
        except Exception as error:  # of any stage: a compiler, the device, its memory
            text = problem(error)
        else:
            rate, sheet = flop / found["seconds"], data_sheet(args.device)
            cells += [f"{found['seconds'] * 1e3:.1f}", f"{rows / found['seconds']:.0f}", f"{flop / 1e12:.3g}"]
            cells += [f"{rate / 1e12:.3g}", f"{rate / ceiling:.1%}", f"{rate / sheet:.1%}" if sheet else "-"]
            cells += [f"{found['gib']:.1f}", f"{found['first']:.1f}", said or "-"]
            table.add(cells, **values, **found, flop=flop, of_peak=rate / ceiling, remarks=said)
            return
        free()  # behind the handler: its traceback held the tensors
        table.add(cells, **values, error=text)

    def beside_bare(self, kind: str, rows: int, precision: str, seconds: float) -> str:
        bare = self.bare.get((rows, precision)) if kind == "image" else None
        return f"{seconds / bare:.2f} times the bare network" if bare else ""

    def counted(self, kind: str, rows: int, precision: str, update: Update) -> int:
        key = (kind, rows, precision)
        if key not in self.flop:
            self.flop[key] = flop_of(update)
        return self.flop[key]

    def profiled(self, update: Update) -> None:
        try:
            text = profile(update, self.args.device)
        except Exception as error:  # a profiler that may not read the device takes no row along
            text = problem(error)
            keep(self.args.json, part="profile", error=text)
        Path(self.args.profile).write_text(text + "\n", encoding="utf-8")

    def floors(self, precision: str) -> int:
        """Show the bare network at all batches; return how many failed."""
        table = Rows(self.args.json, ("bare network", "rows", "ms"))
        dtype = getattr(torch, precision)
        for rows in self.args.batch:
            values = {"part": "floor", "what": self.sizes.image, "batch": rows, "precision": precision}
            try:
                if time.monotonic() > self.ends:
                    raise TimeoutError(f"{self.args.seconds:g} s are over")
                seconds = floor(self.sizes, rows, dtype, self.args.device, self.args.updates)
            except Exception as error:
                text = problem(error)
            else:
                self.bare[rows, precision] = seconds
                table.add([self.sizes.image, rows, f"{seconds * 1e3:.1f}"], **values, seconds=seconds)
                continue
            free()
            table.add([self.sizes.image, rows], **values, error=text)
        return table.failed


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Callable[..., object] = parser.add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--only", nargs="+", choices=KINDS, default=list(KINDS))
    add("--way", nargs="+", default=["eager"], help="eager, or backends of torch.compile")
    add("--precision", nargs="+", default=["bfloat16"])
    add("--backend", nargs="+", choices=attention.BACKENDS, default=["sdpa"])
    add("--layout", nargs="+", choices=LAYOUTS, default=["channels_last"])
    add("--batch", type=int, nargs="+", default=[32])
    add("--updates", type=int, default=10)
    add("--tf32", action="store_true", help="float32 products in TF32")
    add(
        "--floor", action="store_true", help="also the bare image network, and the image step as its multiple"
    )
    add("--profile", metavar="FILE", help="where the image step as written spends its time")
    add("--seconds", type=float, default=float("inf"), help="begin no row behind so many")
    add("--json", metavar="FILE", help="append every row as a line of JSON")
    add("--tiny", action="store_true", help="a tiny model and inputs: does the script run?")
    args = parser.parse_args()
    # a module of the engine asks for all that anybody says
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    return Bench(args).run()


if __name__ == "__main__":
    sys.exit(main())
