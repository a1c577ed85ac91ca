"""References in tables: paths, tar members and base64, in this process and in workers."""

from __future__ import annotations

import base64
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from unival.media import MediaError, MediaLoader
from unival.media.tar import members


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5 + level, 4), (level, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    with tarfile.open(tmp_path / "pack.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "./shots/b.png", png(2))
        add(tar, "shots/c.png", png(3))
        add(tar, "shots/" + "long/" * 30 + "nämé.png", png(4))
        add(tar, "shots/c.png", png(5))
        link = tarfile.TarInfo("alias.png")
        link.type, link.linkname = tarfile.LNKTYPE, "shots/b.png"
        tar.addfile(link)
        add(tar, "noext", png(6))
    return tmp_path


def level(loader: MediaLoader, ref: object) -> int:
    image = loader.image(ref)  # type: ignore[arg-type]
    return int(np.asarray(image)[0, 0, 0])


def test_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert level(MediaLoader(), str(folder / "images" / "a.png")) == 1
    assert level(MediaLoader(folder / "images"), "a.png") == 1
    assert level(MediaLoader(table_dir=folder), "images/a.png") == 1
    assert level(MediaLoader("images", table_dir=folder), "a.png") == 1
    assert level(MediaLoader(), folder / "images" / "a.png") == 1
    monkeypatch.chdir(folder)
    assert level(MediaLoader(), "images/a.png") == 1
    assert MediaLoader().open("images/a.png") == "images/a.png"


def test_tar_members(folder: Path) -> None:
    below = MediaLoader(folder)
    assert level(below, "pack.tar/shots/b.png") == 2
    assert level(MediaLoader(folder / "pack.tar"), "shots/b.png") == 2
    assert level(MediaLoader("pack.tar", table_dir=folder), "./shots/b.png") == 2
    assert level(below, "pack.tar/shots/" + "long/" * 30 + "nämé.png") == 4
    # As 'tar x' would leave it: the last of two members of one name, links followed.
    assert level(below, "pack.tar/shots/c.png") == 5
    assert level(below, "pack.tar/alias.png") == 2
    assert level(below, "pack.tar/noext") == 6
    assert below.open("pack.tar/shots/b.png") == png(2)
    assert members(str(folder / "pack.tar"))[:2] == ["shots/b.png", "shots/c.png"]


def test_a_folder_may_be_called_tar(folder: Path) -> None:
    (folder / "odd.tar").mkdir()
    (folder / "odd.tar" / "a.png").write_bytes(png(9))
    assert level(MediaLoader(folder), "odd.tar/a.png") == 9


def test_a_changed_archive_is_indexed_again(folder: Path) -> None:
    loader = MediaLoader(folder / "pack.tar")
    with pytest.raises(MediaError):
        loader.image("new.png")
    with tarfile.open(folder / "pack.tar", "a") as tar:
        add(tar, "new.png", png(7))
    assert level(loader, "new.png") == 7


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
@pytest.mark.parametrize("padding", [True, False])
def test_base64(encode: object, padding: bool) -> None:
    text = encode(png(8)).decode()  # type: ignore[operator]
    loader = MediaLoader("anywhere")
    assert level(loader, text if padding else text.rstrip("=\n")) == 8
    assert loader.open(text) == png(8)
    assert level(loader, png(8)) == 8


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("images/absent.png", r"images/absent\.png: no such file$"),
        ("absent.tar/a.png", r"absent\.tar: no such archive$"),
        ("pack.tar/shots/d.png", r"pack\.tar/shots/d\.png: the archive of 5 files has no such member"),
        ("pack.tar/c.png", r"Did you mean 'shots/c\.png'\?"),
        ("squeezed.tar/a.png", "uncompressed"),
        ("cut.tar/shots/c.png", r"cut\.tar"),
        ("no/extension?", "neither a path .* nor base64"),
        ("noextension1", r"^noextension1: "),
        ("", "is empty"),
        ("a\0b.png", "not a file name"),
        (b"", "no content"),
    ],
)
def test_bad_references(folder: Path, ref: str | bytes, message: str) -> None:
    with tarfile.open(folder / "squeezed.tar", "w:gz") as tar:
        add(tar, "a.png", png(1))
    data = (folder / "pack.tar").read_bytes()
    (folder / "cut.tar").write_bytes(data[: data.index(png(3)) + 20])
    loader = MediaLoader(folder)
    for call in (loader.image, lambda r: loader.video(r, 2), lambda r: loader.audio(r, 8000)):
        with pytest.raises(MediaError, match=message):
            call(ref)


def test_long_base64_is_not_repeated_in_the_message() -> None:
    text = base64.b64encode(b"not an image" * 1000).decode()
    with pytest.raises(MediaError) as caught:
        MediaLoader().image(text)
    assert len(str(caught.value)) < 200 and "base64, 16000 characters" in str(caught.value)


class Levels(Dataset[int]):
    def __init__(self, loader: MediaLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> int:
        return level(self.loader, f"{index:03d}.png")


def test_workers_read_one_archive_at_the_same_time(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "many.tar", "w") as tar:
        for i in range(40):
            add(tar, f"{i:03d}.png", png(i))
    loader = MediaLoader(tmp_path / "many.tar")
    assert level(pickle.loads(pickle.dumps(loader)), "007.png") == 7
    batches = DataLoader(Levels(loader), batch_size=4, num_workers=2, multiprocessing_context="fork")
    assert [v for batch in batches for v in batch.tolist()] == list(range(40))
