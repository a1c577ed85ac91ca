"""The sidecar index between processes: one builds, all share, a changed file is never read wrongly."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from unival.errors import DataError
from unival.tables import Table, open_table
from unival.tables.index import open_index, sidecar_places


def make(path: Path, rows: int, start: int = 0) -> str:
    path.write_text(
        "id\tcaption\n" + "".join(f"{i}\trow {i}\n" for i in range(start, start + rows)), encoding="utf-8"
    )
    return str(path)


def open_when_told(path: str, barrier, results) -> None:  # type: ignore[no-untyped-def]
    import logging

    built = []
    logger = logging.getLogger("unival.tables.index")
    logger.setLevel(logging.INFO)
    logger.addHandler(
        type("Keep", (logging.Handler,), {"emit": lambda self, r: built.append(r.getMessage())})()
    )
    barrier.wait()
    table = open_table(path)
    results.put((len(built), len(table), table[12_345]["caption"]))


def test_one_process_builds_and_the_others_wait(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv", 400_000)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.Queue()
    workers = [context.Process(target=open_when_told, args=(path, barrier, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert all(f[1:] == (400_000, "row 12345") for f in found)
    assert sum(f[0] for f in found) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.tsv", "t.tsv.idx"]  # no lock, no temporary file


def test_lock_of_a_dead_process_does_not_block(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv", 10)
    code = (
        "import sys, time; from unival.tables.index import _lock\n"
        "with _lock(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, path + ".idx.lock"], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    context = multiprocessing.get_context("fork")
    waiting = context.Process(target=open_table, args=(path,))
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive() and not os.path.exists(path + ".idx")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    waiting.join(30)
    assert waiting.exitcode == 0 and os.path.exists(path + ".idx") and not os.path.exists(path + ".idx.lock")


ROOT = Path(__file__).resolve().parents[3]


class Rows(torch.utils.data.Dataset):
    def __init__(self, table: Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> str:
        return self.table[index]["caption"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers_read_any_row(tmp_path: Path, method: str) -> None:
    path = make(tmp_path / "t.tsv", 3_000)
    table = open_table({"path": path, "fields": {"text": "caption"}})
    assert table[0]["text"] == "row 0"  # the file is open in the parent before the workers start
    order = np.random.default_rng(0).permutation(3_000).tolist()
    loader = torch.utils.data.DataLoader(
        Rows(table), batch_size=50, sampler=order, num_workers=2, multiprocessing_context=method
    )
    assert [text for batch in loader for text in batch] == [f"row {i}" for i in order]


def test_index_is_used_again_and_rebuilt_after_a_change(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv", 100)
    assert len(open_table(path)) == 100
    sidecar = Path(path + ".idx")
    first = sidecar.stat()
    assert len(open_table(path)) == 100 and sidecar.stat().st_ino == first.st_ino
    make(tmp_path / "t.tsv", 90, start=10)
    assert len(open_table(path)) == 90 and sidecar.stat().st_ino != first.st_ino
    os.utime(path, ns=(1, 1))  # same size, other time
    assert open_index(path).mtime_ns == 1


@pytest.mark.parametrize("damage", ["short", "longer", "magic", "version", "empty", "other kind"])
def test_damaged_sidecar_is_rebuilt(tmp_path: Path, damage: str) -> None:
    path = make(tmp_path / "t.tsv", 100)
    open_table(path)
    sidecar = Path(path + ".idx")
    good = sidecar.read_bytes()
    bad = {
        "short": good[:-8],
        "longer": good + bytes(8),
        "magic": b"X" + good[1:],
        "version": good[:8] + struct.pack("<I", 99) + good[12:],
        "empty": b"",
        "other kind": good[:12] + struct.pack("<I", 2) + good[16:],
    }[damage]
    sidecar.write_bytes(bad)
    assert open_table(path)[99]["caption"] == "row 99"
    assert sidecar.read_bytes() == good


def test_change_while_open_is_an_error(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv", 100)
    table, copy = open_table(path), pickle.dumps(open_table(path))
    assert table[3]["caption"] == "row 3"
    with open(path, "a", encoding="utf-8") as handle:
        handle.write("100\trow 100\n")
    with pytest.raises(DataError, match=r"t\.tsv: the file changed while it was open; start again"):
        table[3]
    with pytest.raises(DataError, match="changed while it was open"):
        pickle.loads(copy)[3]
    os.truncate(path, 50)  # a memory map would end the process here
    with pytest.raises(DataError, match="changed while it was open"):
        table[99]
    os.remove(path)
    with pytest.raises(DataError, match="changed while it was open"):
        pickle.loads(copy)[3]


def test_copy_works_without_its_sidecar(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv", 100)
    copy = pickle.dumps(open_table(path))
    assert len(copy) < 1_000  # the index does not travel
    os.remove(path + ".idx")
    assert pickle.loads(copy)[7]["caption"] == "row 7"


def test_read_only_folder_uses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = make(folder / "t.tsv", 100)
    os.chmod(folder, 0o555)
    try:
        monkeypatch.setenv("UNIVAL_CACHE", str(tmp_path / "cache"))
        table = open_table(path)
        place = Path(sidecar_places(path)[1])
        assert table[5]["caption"] == "row 5" and place.parent == tmp_path / "cache" / "index"
        assert [p.name for p in folder.iterdir()] == ["t.tsv"] and [*place.parent.iterdir()] == [place]
        monkeypatch.delenv("UNIVAL_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert open_index(path).sidecar == sidecar_places(path)[1]
        assert (tmp_path / "xdg" / "unival" / "index").is_dir()
    finally:
        os.chmod(folder, 0o755)


def test_nothing_writable_keeps_the_index_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = make(folder / "t.tsv", 100)
    os.chmod(folder, 0o555)
    monkeypatch.setenv("UNIVAL_CACHE", str(folder / "cache"))
    try:
        with pytest.warns(UserWarning, match=r"index is kept in memory.*set UNIVAL_CACHE"):
            table = open_table(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a copy carries its index: no second scan, no second warning
            assert pickle.loads(pickle.dumps(table))[99]["caption"] == "row 99"
        assert [p.name for p in folder.iterdir()] == ["t.tsv"]
    finally:
        os.chmod(folder, 0o755)


def test_resident_memory_does_not_grow_with_the_rows_read(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    with open(path, "wb") as handle:  # 64 MB: base64-like cells
        handle.write(b"id\timage\n")
        for i in range(1_000):
            handle.write(b"%d\t%s\n" % (i, bytes([65 + i % 26]) * 64_000))
    code = (
        "import sys, resource; from unival.tables import open_table\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "open_table(sys.argv[2])[0]; before = peak(); table = open_table(sys.argv[1])\n"
        "assert all(len(table[i * 7 % 1000]['image']) == 64000 for i in range(1000))\n"
        "print(peak() - before)"
    )
    small = make(tmp_path / "small.tsv", 10)
    done = subprocess.run([sys.executable, "-c", code, path, small], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    # measured 4.4 MB: the scan's buffer of 4 MiB and its comparison; a mapped file would add its 64 MB
    assert int(done.stdout) * (1 if sys.platform == "linux" else 1 / 1024) < 24_000
