"""Downloads from a real server on this machine: resumed, cut off, checked, refused."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest

from unival.checkpoint.download import download
from unival.cli import main
from unival.errors import CheckpointError
from unival.evaluate.reproduce import read_entries

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT. /cut ends each answer after 100 000 bytes, /whole knows no ranges."""

    ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        if self.path == "/absent":
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.path != "/whole" else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:100_000] if self.path == "/cut" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.ranges = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_cut_transfer_goes_on_where_it_stopped(server, tmp_path):
    path = tmp_path / "deep" / "c.pt"
    for have in (100_000, 200_000):
        with pytest.raises(CheckpointError, match=f"cut after {have} bytes.*goes on there"):
            download(f"{server}/cut", path, DIGEST)
        assert not path.exists() and path.with_name("c.pt.part").stat().st_size == have
    seen = []
    done = download(f"{server}/file", path, DIGEST, progress=lambda n, total: seen.append((n, total)))
    assert path.read_bytes() == CONTENT and done.checked and done.resumed_at == 200_000
    assert seen[-1] == (300_000, 300_000)
    assert Handler.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert [p.name for p in path.parent.iterdir()] == ["c.pt"]


def test_what_is_already_there(server, tmp_path):
    part = tmp_path / "c.pt.part"
    part.write_bytes(CONTENT)  # killed between the last byte and the move
    assert download(f"{server}/file", tmp_path / "c.pt").sha256 == DIGEST
    part.write_bytes(CONTENT + b"more")  # of another file
    assert download(f"{server}/file", tmp_path / "d.pt").sha256 == DIGEST
    (tmp_path / "e.pt.part").write_bytes(CONTENT[:1000])
    assert download(f"{server}/whole", tmp_path / "e.pt").resumed_at == 0
    assert (tmp_path / "e.pt").read_bytes() == CONTENT


def test_another_file_is_removed(server, tmp_path):
    with pytest.raises(CheckpointError, match=r"expected 00.*removed"):
        download(f"{server}/file", tmp_path / "c.pt", "00" * 32)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="404"):
        download(f"{server}/absent", tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="refused"):
        download("http://127.0.0.1:9/file", tmp_path / "c.pt")


def test_the_verb(server, tmp_path, monkeypatch, capsys):
    """One name with an address and a hash of one's own."""
    monkeypatch.setenv("UNIVAL_WEIGHTS", str(tmp_path))
    place = tmp_path / "unival_s1" / "checkpoint15.pt"
    words = ["download", "unival_s1"]
    assert main([*words, "--url", f"{server}/file"]) == 0
    said = capsys.readouterr().out
    assert DIGEST in said and "not known before" in said and place.read_bytes() == CONTENT
    assert main([*words, "--url", f"{server}/file"]) == 2
    assert "there already" in capsys.readouterr().err
    place.unlink()
    assert main([*words, "--url", f"{server}/file", "--sha256", DIGEST]) == 0
    assert "as published" in capsys.readouterr().out
    place.unlink()
    assert main([*words, "--url", f"{server}/file", "--sha256", "00" * 32]) == 2
    assert "expected 0000" in capsys.readouterr().err and not place.exists()
    assert main(["download", "unival_caption_stage_1", "--url", f"{server}/file"]) == 2
    assert "the published file has 3074146663" in capsys.readouterr().err
    assert main([*words, "--url", "file:///etc/hostname"]) == 2
    assert "not an http" in capsys.readouterr().err
    assert main([*words, "bpe", "--url", f"{server}/file"]) == 2
    assert main(["download", "unival_captoin"]) == 2
    assert main(["download"]) == 2


def test_every_released_file_is_listed():
    """Names of the authors' list of checkpoints; every published entry has a task and a score."""
    pretrained = {"unival_s1", "unival_s2_hs", "bart.base"}
    tasks = {
        "caption_stage_1",
        "refcoco",
        "refcocoplus",
        "refcocog",
        "vqa",
        "snli_ve",
        "video_caption_stage_1",
    }
    tasks |= {"video_caption_activitynet_stage_1", "video_vqa", "video_vqa_msvd", "audio_caption"}
    tasks |= {"audio_caption_clotho"}
    entries = read_entries()
    assert {*pretrained, *(f"unival_{task}" for task in tasks)} <= set(entries)
    for task in tasks:
        entry = entries[f"unival_{task}"]
        assert entry.recipe_path().is_file() and any(t.expected is not None for t in entry.results)
    for name in (*pretrained, *(f"unival_{task}" for task in tasks)):
        assert f"https://data.isir.upmc.fr/unival/models/{name}/" == entries[name].page
        assert entries[name].files[0].urls[0].startswith(str(entries[name].page))
    known = [entry.sha256 for entry in entries.values() if entry.sha256 is not None]
    assert len(known) >= 8 and all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in known)
