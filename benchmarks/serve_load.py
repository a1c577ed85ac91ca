"""Many requests at once against a real server, a share of them broken, with slow and heavy clients beside them.

Usage: python benchmarks/serve_load.py [CHECKPOINT] [--requests 200] [--broken 0.2] [--clients 8] [--slow 10]
    [--heavy 5] [--media FOLDER]
The server is ``unival serve`` in a process of its own; without a checkpoint it gets a random tiny model of all
modalities. Good uploads are pictures, clips and sounds of a sample world; broken ones are cut, empty or garbled
copies, or with ``--media`` files of a folder with a MANIFEST.tsv whose column should_decode says "no" or "empty".
A full queue (503) is asked again. Slow clients send a byte of a head or of a body every half second until they are
thrown out, and come again; heavy ones ask all the time for the longest list of answers that the limits allow. Prints
how many answers equal those of the predictor asked directly, the latency of the good ones (with all waiting), what
the others got, the server's memory before and after, and whether it still answers. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import random
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch

import unival
from unival.checkpoint import save_folder
from unival.datatools.world import render
from unival.errors import UnivalError
from unival.predict.predictor import Predictor
from unival.vocabulary import Vocabulary

SMALL: dict[str, Any] = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (("embed_dim", 32), ("ffn_embed_dim", 64), ("layers", 1), ("attention_heads", 2))
}
TASK = {"patch_image_size": 64, "patch_frame_size": 64, "num_frames": 2, "max_audio_len": 16000}
ASKED = {  # task -> fields, modalities
    "caption": ({}, ("images", "videos", "audio")),
    "answer": ({"question": "what colour is it?"}, ("images", "videos")),
    "ground": ({"text": "the red circle"}, ("images",)),
    "entails": ({"text": "there is a red circle"}, ("images",)),
}


def tiny(folder: Path, world: Path) -> Path:
    """Write a random model of all modalities whose answers depend on the input."""
    vocabulary = Vocabulary.load(world / "vocabulary")
    torch.manual_seed(0)
    networks = {"video_encoder_name": "all_resnext14", "audio_encoder_name": "pann_cnn6"}
    model = unival.build_model("unival_tiny", len(vocabulary), resnet_type="resnet18", **networks, **SMALL)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_images" not in name:
                parameter.mul_(8 if "embed_videos" not in name and "embed_audios" not in name else 2)
    extra = {"task": {"name": "caption", "modality": "image"}, "task_options": TASK}
    return save_folder(folder / "model", model.eval(), vocabulary, extra=extra)


def broken_uploads(good: list[bytes], media: Path | None) -> list[bytes]:
    """Return contents that no reader accepts."""
    if media is not None:
        with open(media / "MANIFEST.tsv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return [(media / r["file"]).read_bytes() for r in rows if r["should_decode"] in ("no", "empty")]
    rng = random.Random(0)
    return [b"", *(one[:20] for one in good), *(rng.randbytes(2000) for _ in good)]


def refused(model: Predictor, content: bytes) -> bool:
    """Whether the predictor raises its own error; a broken video may well hold a sound to describe."""
    try:
        model.caption(content)
    except UnivalError:
        return True
    return False


def resident(process: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the server is gone")


def told(result: Any) -> Any:
    """What is compared of a result."""
    return [round(c, 3) for c in result.box or ()] if result.text is None else result.text


class Client:
    """Sends requests and counts what comes back."""

    def __init__(self, address: str, expected: dict[tuple[str, bytes], Any]) -> None:
        self.address, self.expected = address, expected
        self.counts: collections.Counter[str] = collections.Counter()
        self.latencies: list[float] = []
        self._lock = threading.Lock()

    def ask(self, request: tuple[str, bytes, bool]) -> None:
        task, content, broken = request
        files = {"media": ("upload", content)}
        begun = time.perf_counter()
        while True:
            reply = httpx.post(f"{self.address}/{task}", files=files, data=ASKED[task][0], timeout=600)
            if reply.status_code != 503:
                break
            self._count("told to come back")
            time.sleep(float(reply.headers["Retry-After"]))
        if broken:
            clean = 400 <= reply.status_code < 500 and list(reply.json()) == ["error"]
            self._count(f"broken: {reply.status_code}" if clean else "broken: WRONG")
            return
        found = reply.json()
        answer = [round(c, 3) for c in found["box"] or ()] if "box" in found else found.get("text")
        with self._lock:
            self.latencies.append(time.perf_counter() - begun)
        self._count("right" if answer == self.expected[task, content] else "WRONG")

    def drip(self, over: threading.Event, body: bool) -> None:
        """Send a request slowly until the server has enough, again and again."""
        host, _, port = self.address.removeprefix("http://").partition(":")
        head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        sent_at_once, slowly = (
            (head + b"Content-Length: 9000\r\n\r\n", b"{" * 9000) if body else (b"", head * 99)
        )
        while not over.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host, int(port)), timeout=30) as opened,
            ):
                opened.sendall(sent_at_once)
                for byte in slowly:
                    opened.sendall(bytes([byte]))
                    readable = select.select([opened], [], [], 0.5)[0]
                    if over.is_set():
                        return
                    if readable:
                        status = opened.recv(4096).split(b" ")[1:2] or [b"closed"]
                        self._count(f"slow {'body' if body else 'head'}: {status[0].decode()}")
                        over.wait(1)
                        break

    def burden(self, over: threading.Event, content: bytes, answers: list[str], expected: str) -> None:
        """Ask for much, again and again."""
        fields = {"question": "what colour is it?", "answers": answers}
        while not over.is_set():
            files = {"media": ("upload", content)}
            reply = httpx.post(f"{self.address}/answer", files=files, data=fields, timeout=600)
            if reply.status_code == 200:
                self._count("heavy: right" if reply.json()["text"] == expected else "heavy: WRONG")
            else:
                self._count(f"heavy: {reply.status_code}")
                over.wait(1)

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def material(
    folder: Path, checkpoint: str | None = None, media: Path | None = None
) -> tuple[str, dict[tuple[str, bytes], Any], list[bytes]]:
    """Return a checkpoint, what the predictor answers by (task, upload), and uploads that it refuses."""
    world = folder / "world"
    render(world, images=8, clips=8, sounds=8, vocabulary_size=400)
    checkpoint = checkpoint or str(tiny(folder, world))
    model = unival.load(checkpoint)
    networks = [kind for kind in ("images", "videos", "audio") if kind.rstrip("s") in model.modalities]
    contents = {kind: [p.read_bytes() for p in sorted((world / kind).iterdir())[:4]] for kind in networks}
    expected: dict[tuple[str, bytes], Any] = {}
    for task, (fields, kinds) in ASKED.items():
        for content in (one for kind in kinds for one in contents.get(kind, ())):
            expected[task, content] = told(getattr(model, task)(content, **fields))
    good = [one for several in contents.values() for one in several]
    return checkpoint, expected, [one for one in broken_uploads(good, media) if refused(model, one)]


@contextlib.contextmanager
def started(checkpoint: str, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``unival serve`` in a process of its own; yields it and its address."""
    command = [sys.executable, "-m", "unival", "serve", checkpoint, "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server, server.stdout.readline().split()[1]
        finally:
            server.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--broken", type=float, default=0.2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--slow", type=int, default=10)
    parser.add_argument("--heavy", type=int, default=5)
    parser.add_argument("--media", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        checkpoint, expected, bad = material(Path(name), args.checkpoint, args.media)
        rng = random.Random(0)
        good = list(expected)
        requests = [
            (rng.choice(list(ASKED)), rng.choice(bad), True)
            if share < args.broken
            else (*rng.choice(good), False)
            for share in ((number + 0.5) / args.requests for number in range(args.requests))
        ]
        rng.shuffle(requests)
        heavy, answers = good[0][1], [f"a{'b' * 8} {number:03}" for number in range(120)]
        heaviest = told(unival.load(checkpoint).answer(heavy, "what colour is it?", answers=answers))
        words = ["--queue", "16", "--head-seconds", "5", "--upload-seconds", "10", "--connections", "60"]
        with started(checkpoint, *words) as (server, address):
            client = Client(address, expected)
            # warm-up: every kind of request once
            for task, content in expected:
                client.ask((task, content, False))
            for content in bad:
                client.ask(("caption", content, True))
            warm, client.counts = client.counts, collections.Counter()
            memory = [resident(server.pid)]
            client.latencies, over = [], threading.Event()
            beside: list[Any] = [(client.drip, (over, bool(number % 2))) for number in range(args.slow)]
            beside += [(client.burden, (over, heavy, answers, heaviest)) for _ in range(args.heavy)]
            threads = [threading.Thread(target=call, args=given) for call, given in beside]
            for thread in threads:
                thread.start()
            start = time.perf_counter()
            with ThreadPoolExecutor(args.clients) as pool:
                for half in (requests[: len(requests) // 2], requests[len(requests) // 2 :]):
                    list(pool.map(client.ask, half))
                    memory.append(resident(server.pid))
            seconds = time.perf_counter() - start
            over.set()
            for thread in threads:
                thread.join()
            alive = httpx.get(f"{client.address}/health", timeout=600).json()["queue"]["taken"] == 0
    different = len(set(map(str, expected.values())))
    print(f"{args.requests} requests, {args.clients} at once, {seconds:.1f} s; {different} different answers")
    print(", ".join(f"{what} {count}" for what, count in sorted(client.counts.items())))
    ordered = sorted(client.latencies)
    median, late = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    print(f"good requests: median {median:.2f} s, 99th percentile {late:.2f} s, most {ordered[-1]:.2f} s")
    print(f"memory: {memory[0]:.0f} MB warm, {memory[1]:.0f} MB half-way, {memory[2]:.0f} MB at the end")
    print(f"server answers afterwards: {alive}; exit code {server.returncode}")
    wrong = [what for what in (*client.counts, *warm) if "WRONG" in what]
    return int(bool(wrong) or not alive or server.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
