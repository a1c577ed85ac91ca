"""A file's checksum is computed once, unless the file is another one by then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from unival.core import checksum
from unival.errors import CheckpointError


def test_a_file_is_read_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every load read the whole file for it, a sweep the same files again and again."""
    path, read = tmp_path / "model.pt", []
    compare = checksum._compare
    monkeypatch.setattr(checksum, "_compare", lambda place: read.append(place) or compare(place))
    torch.save({"model": torch.ones(1000)}, path)
    assert checksum.verify(path) and checksum.verify(str(path)) and len(read) == 1
    os.link(path, tmp_path / "other.pt")
    assert checksum.verify(tmp_path / "other.pt") and len(read) == 1
    content = path.read_bytes()
    at = content.index(torch.ones(8).numpy().tobytes())
    path.write_bytes(content[:at] + b"\1" + content[at + 1 :])
    os.utime(path, ns=(1, 1))
    for _ in range(2):  # what is damaged stays so
        with pytest.raises(CheckpointError, match="is damaged"):
            checksum.verify(path)
    assert len(read) == 3
    path.write_bytes(content)
    os.utime(path, ns=(2, 2))
    assert checksum.verify(path) and checksum.verify(path, anew=True) and len(read) == 5
