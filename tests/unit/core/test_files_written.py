"""Every write can fail: what becomes of the file, what is left, what is said."""

from __future__ import annotations

import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unival.core.files import Output, check_file, check_folder, make_folder, replacing, write_text
from unival.errors import OutputError

LONG = "x" * 300


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Writing beyond ``size`` bytes fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("place", ["there", "file/below", "file/below/deeper", LONG, "a\0b", "loop"])
def test_what_is_in_the_way_is_named_and_nothing_is_left(tmp_path: Path, place: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("old")
    (tmp_path / "loop").symlink_to("loop")
    before = names(tmp_path)
    for attempt in (check_file, lambda path: write_text(path, "new"), Output().new):
        with pytest.raises(OutputError, match=r"^cannot write "):
            attempt(tmp_path / place)
        assert names(tmp_path) == before
    if place != "there":
        with pytest.raises(OutputError, match=r"^cannot write "):
            check_folder(tmp_path / place)
        with pytest.raises(OutputError, match=r"^cannot write "):
            make_folder(tmp_path / place / "run")
        assert names(tmp_path) == before
    assert (tmp_path / "file").read_text() == "old"


def test_a_place_without_writing_is_refused_before_the_work(tmp_path: Path) -> None:
    for place in ("/proc/nowhere.json", "/proc/sub/nowhere.json"):
        with pytest.raises(OutputError, match=f"^cannot write {place}: "):
            check_file(place)
        with pytest.raises(OutputError, match=f"^cannot write {place}: "):
            check_folder(place)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    place = tmp_path / "new folder" / "result.json"
    with small_files(1000), pytest.raises(OutputError, match=r"result\.json: File too large"):
        write_text(place, "x" * 5000)
    assert names(tmp_path) == []
    write_text(place, "old")
    with small_files(1000):
        with pytest.raises(OutputError, match=r"result\.json"):
            write_text(place, "x" * 5000)
        with pytest.raises(OutputError, match=r"result\.json"), replacing(place) as part:
            torch.save({"x": torch.zeros(5000)}, part)
        with pytest.raises(OutputError, match=r"result\.json"), replacing(place) as part:
            save_file({"x": torch.zeros(5000)}, part)
    assert place.read_text() == "old" and names(tmp_path) == ["new folder", "result.json"]


def test_an_error_of_another_file_is_not_called_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out"):
        (tmp_path / "absent").read_text()
    assert names(tmp_path) == []


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    check_file(pipe)
    write_text(pipe, "content")
    reader.join()
    assert got == ["content"] and stat.S_ISFIFO(pipe.lstat().st_mode) and names(tmp_path) == ["pipe"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device files")
def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    null, full = tmp_path / "null", tmp_path / "full"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(full, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        null.write_text("x")
    except OSError as error:
        pytest.skip(f"device files cannot be used here: {error}")
    (tmp_path / "link").symlink_to("null")
    for place in (null, tmp_path / "link"):
        check_file(place)
        write_text(place, "content")
        with replacing(place) as part:
            torch.save({"x": torch.zeros(3)}, part)
    with pytest.raises(OutputError, match="full: No space left on device"):
        write_text(full, "content")
    assert stat.S_ISCHR(null.lstat().st_mode) and stat.S_ISCHR(full.lstat().st_mode)
    assert names(tmp_path) == ["full", "link", "null"]


def test_an_open_descriptor_is_written_to(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w+") as file:
        file.write("before ")
        file.flush()
        write_text(f"/proc/self/fd/{file.fileno()}", "content")
        file.seek(0)
        assert file.read().endswith("content")


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("old")
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "dangling").symlink_to("real/new")
    write_text(tmp_path / "link", "one")
    write_text(tmp_path / "dangling", "two")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "one" and (
        tmp_path / "real" / "new"
    ).read_text() == "two"


def test_modes_are_those_of_the_old_file_or_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        for write in (lambda path: path.write_text("x"), lambda path: save_file({"x": torch.zeros(3)}, path)):
            with replacing(tmp_path / "new") as part:
                write(part)
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
            (tmp_path / "new").chmod(0o604)
            with replacing(tmp_path / "new") as part:
                write(part)
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604
            (tmp_path / "new").unlink()
    finally:
        os.umask(old)


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path: Path) -> None:
    import json

    write_text(tmp_path / "t.json", json.dumps({"a": "red \ud83d", "b": "caf\udce9"}, ensure_ascii=False))
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["b"] == "caf\udce9"
