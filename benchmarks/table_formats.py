"""Measure tables of one content in every format: size, time to open, rows and media a second, memory.

python benchmarks/table_formats.py --rows 8000 --picture-bytes 40000

Each format is written, measured in a process of its own and deleted. "open" is the first opening, which builds an
index where the format has none; "again" is the second. Rows are read at random places, first the texts alone, then
with their media's bytes (not decoded: a JPEG of this size takes about a millisecond more); "in order" reads rows and
media from the first to the last.
"""

from __future__ import annotations

import argparse
import base64
import io
import multiprocessing
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Rows = Iterator[tuple[str, str, bytes]]


def rows_of(count: int, picture_bytes: int) -> Rows:
    """Yield (id, caption, content); the content is noise with a JPEG's first bytes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        caption = "a picture of " + " ".join(f"word{n}" for n in rng.integers(0, 5000, 8))
        yield f"{number}", caption, b"\xff\xd8\xff\xe0" + rng.bytes(picture_bytes - 4)


def write_tsv(rows: Rows, path: Path) -> None:
    with path.open("w", encoding="ascii") as out:
        out.write("id\timage\tcaption\n")
        for name, caption, content in rows:
            out.write(f"{name}\t{base64.b64encode(content).decode()}\t{caption}\n")


def write_tar(rows: Rows, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name, caption, content in rows:
            for ending, data in (("jpg", content), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{int(name):08}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def batches(rows: Rows, size: int) -> Iterator[object]:
    import pyarrow as pa

    schema = pa.schema(
        {
            "id": pa.string(),
            "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "caption": pa.string(),
        }
    )
    taken: list[dict[str, object]] = []
    for name, caption, content in rows:
        taken.append({"id": name, "image": {"bytes": content, "path": f"{name}.jpg"}, "caption": caption})
        if len(taken) == size:
            yield pa.RecordBatch.from_pylist(taken, schema)
            taken = []
    if taken:
        yield pa.RecordBatch.from_pylist(taken, schema)


def write_parquet(group: int) -> Callable[[Rows, Path], None]:
    def write(rows: Rows, path: Path) -> None:
        import pyarrow.parquet

        writer = None
        for batch in batches(rows, group):
            writer = writer or pyarrow.parquet.ParquetWriter(path, batch.schema)  # type: ignore[attr-defined]
            writer.write_batch(batch)
        writer.close()

    return write


def write_arrow(rows: Rows, path: Path) -> None:
    import pyarrow as pa

    writer = None
    for batch in batches(rows, 1000):
        writer = writer or pa.ipc.new_stream(path, batch.schema)  # type: ignore[attr-defined]
        writer.write_batch(batch)
    writer.close()


FORMATS: dict[str, tuple[str, Callable[[Rows, Path], None]]] = {
    "TSV, base64": ("table.tsv", write_tsv),
    "Parquet, groups of 100": ("small.parquet", write_parquet(100)),
    "Parquet, groups of 1000": ("large.parquet", write_parquet(1000)),
    "Arrow": ("table.arrow", write_arrow),
    "WebDataset": ("table.tar", write_tar),
}


def resident() -> float:
    """MB of resident memory now."""
    with open("/proc/self/statm", encoding="ascii") as handle:
        return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(work: Callable[[], int], seconds: float = 3.0) -> float:
    """Times a second that ``work`` (returning a count) runs, over about ``seconds``."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        done += work()
    return done / (time.perf_counter() - started)


def measure(path: Path, pipe: object) -> None:
    from unival.tables import open_table

    started = time.perf_counter()
    table = open_table(path)
    first = time.perf_counter() - started
    started = time.perf_counter()
    table = open_table(path)
    again = time.perf_counter() - started
    media, rng = table.loader(), np.random.default_rng(1)
    before = resident()

    def texts() -> int:
        for place in rng.integers(0, len(table), 50).tolist():
            table[place]["caption"]
        return 50

    def everything() -> int:
        for place in rng.integers(0, len(table), 5).tolist():
            media.open(table[place]["image"])
        return 5

    in_order = iter(range(10**9))

    def ordered() -> int:
        for _ in range(20):
            media.open(table[next(in_order) % len(table)]["image"])
        return 20

    rates = [timed(texts), timed(everything), timed(ordered)]
    pipe.send((first, again, *rates, resident() - before))  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--picture-bytes", type=int, default=40_000)
    parser.add_argument("--folder", help="where to put the temporary files (default: the system's)")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    head = ("format", "MB", "open s", "again ms", "texts/s", "media/s", "in order/s", "MB more")
    print("{:<24}{:>8}{:>9}{:>10}{:>11}{:>10}{:>12}{:>9}".format(*head))
    for title, (name, write) in FORMATS.items():
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder) / name
            write(rows_of(args.rows, args.picture_bytes), path)
            here, there = context.Pipe()
            worker = context.Process(target=measure, args=(path, there))
            worker.start()
            first, again, texts, media, ordered, memory = here.recv()
            worker.join()
            size = path.stat().st_size / 1e6
        numbers = f"{size:>8.0f}{first:>9.2f}{again * 1e3:>10.1f}{texts:>11,.0f}{media:>10,.0f}"
        print(f"{title:<24}{numbers}{ordered:>12,.0f}{memory:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
