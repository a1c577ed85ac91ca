"""Names that are not spelled as the file system has them: found where that is safe, else named in the message."""

from __future__ import annotations

import os
import tarfile
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from unival.media import MediaError, MediaLoader, read_image
from unival.media.names import existing, files_below


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    nfd = unicodedata.normalize("NFD", "Bücher/café.png")
    places = ["Photo0.JPG", "sub/a b.png", "with, comma/{1..2}/x.png", nfd, "plain.png", "%20.png"]
    for name in places:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)
    with tarfile.open(root / "pack.tar", "w") as tar:
        tar.add(root / nfd, nfd)
        tar.add(root / "sub/a b.png", "sub/a b.png")
    return root


FOUND = ["Bücher/café.png", unicodedata.normalize("NFD", "Bücher") + "/café.png", "sub\\a b.png", "./plain.png",
         "sub/../plain.png", "with, comma/{1..2}/x.png", "%20.png", "pack.tar/Bücher/café.png",
         "pack.tar/sub\\a b.png"]  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_other_spellings_of_a_name_are_found(name: str, folder: Path) -> None:
    assert MediaLoader(folder).image(name).size == (4, 4)


NAMED = {
    "photo0.jpg": "there is 'Photo0.JPG': upper and lower case count",
    "https://example.org/a.jpg": "address of the web",
    "C:\\data\\a.jpg": "path of another system",
    "absent/deep/a.jpg": "its folder '.*absent' does not exist",
    "plane.png": "plane.png: no such file$",
    "plain.png/a.jpg": "does not exist",
    "x.tar/a.jpg": "no such archive",
}


@pytest.mark.parametrize("name", NAMED)
def test_what_stands_in_the_way_is_named(name: str, folder: Path) -> None:
    with pytest.raises(MediaError, match=NAMED[name]):
        MediaLoader(folder).image(name)


def test_half_a_surrogate_pair_names_no_file(folder: Path) -> None:
    with pytest.raises(MediaError, match=r"cannot be opened|no such file"):
        read_image(str(folder / "\ud83d.png"))


def test_a_link_leads_where_the_system_says(folder: Path, tmp_path: Path) -> None:
    """``link/..`` is the folder above the link's target, not the one that holds the link."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(folder / "sub")
    assert read_image(tmp_path / "here" / "link" / ".." / "plain.png").size == (4, 4)


def test_files_below_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/b.png", "__MACOSX/x/._c.png", "d/e.png"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).touch()
    (tmp_path / "own" / "linked").symlink_to(folder / "sub")
    (tmp_path / "own" / "d" / "round").symlink_to(tmp_path / "own")
    assert files_below(tmp_path / "own") == (["a.png", "d/e.png", "linked/a b.png"], 3)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", path)
    assert existing(os.fsdecode(path)) and MediaLoader(tmp_path).image("caf\udce9.png").size == (4, 4)
