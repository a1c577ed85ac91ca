"""Measure a table's index: scan speed against a raw read, random rows per second, resident memory.

python benchmarks/table_index.py --megabytes 2000 --columns 5 --row-bytes 400
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time

import numpy as np

from unival.tables import open_table


def resident() -> float:
    """MB of resident memory now."""
    with open("/proc/self/statm", encoding="ascii") as handle:
        return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_table(path: str, megabytes: float, columns: int, row_bytes: int) -> int:
    """Write a table of random printable cells; return its number of rows."""
    names = ("id", *(f"c{i}" for i in range(1, columns)))
    rng = np.random.default_rng(0)
    cell = max(1, row_bytes // columns)
    rows = max(1, int(megabytes * 1e6 / (columns * (cell + 1))))
    with open(path, "wb") as out:
        out.write("\t".join(names).encode() + b"\n")
        for start in range(0, rows, block := max(1, 4_000_000 // row_bytes)):
            count = min(block, rows - start)
            data = rng.integers(97, 123, (count, columns, cell + 1), dtype=np.uint8)
            data[:, :, -1] = 9
            data[:, -1, -1] = 10
            out.write(data.tobytes())
    return rows


def raw_read(path: str) -> float:
    """Seconds to count the lines as wc -l does."""
    started, lines, buffer = time.perf_counter(), 0, bytearray(1 << 20)
    with open(path, "rb", buffering=0) as handle:
        while count := handle.readinto(buffer):
            lines += buffer.count(b"\n", 0, count)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=500, help="size of the table")
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--row-bytes", type=int, default=400, help="bytes of a row; a base64 image has 50000")
    parser.add_argument("--reads", type=int, default=50_000, help="random rows to read")
    parser.add_argument("--folder", help="where to put the temporary table (default: the system's)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = os.path.join(folder, "table.tsv")
        rows = write_table(path, args.megabytes, args.columns, args.row_bytes)
        size = os.path.getsize(path) / 1e6
        raw_read(path)  # brings the file into the page cache where it fits, so both see the same
        raw = raw_read(path)
        before = resident()
        started = time.perf_counter()
        table = open_table(path)
        scan = time.perf_counter() - started
        print(f"table            {size:10.0f} MB, {rows} rows of {size * 1e6 / rows:.0f} bytes")
        print(f"count lines      {size / raw:10.0f} MB/s")
        print(f"build the index  {size / scan:10.0f} MB/s ({scan:.2f} s)")
        started = time.perf_counter()
        open_table(path)
        print(f"open again       {(time.perf_counter() - started) * 1e3:10.2f} ms")
        picks = np.random.default_rng(1).integers(0, len(table), args.reads).tolist()
        started = time.perf_counter()
        for i in picks:
            table[i]
        print(f"random rows      {args.reads / (time.perf_counter() - started):10.0f} /s")
        started = time.perf_counter()
        table.matching({"id": lambda value: False})
        print(f"filter           {size / (time.perf_counter() - started):10.0f} MB/s")
        print(f"resident memory  {before:10.0f} MB before, {resident():.0f} MB after, ", end="")
        print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB at most")


if __name__ == "__main__":
    main()
