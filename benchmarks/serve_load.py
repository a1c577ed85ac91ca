"""Many requests at once against a real server, a share of them broken.

Usage: python benchmarks/serve_load.py [CHECKPOINT] [--requests 200] [--broken 0.2] [--clients 8] [--media FOLDER]
The server is ``unival serve`` in a process of its own; without a checkpoint it gets a random tiny model of all
modalities. Good uploads are pictures, clips and sounds of a sample world; broken ones are cut, empty or garbled
copies, or with ``--media`` files of a folder with a MANIFEST.tsv whose column should_decode says "no" or "empty".
A full queue (503) is asked again. Prints how many answers equal those of the predictor asked directly, what the
broken ones got, the server's memory before and after, and whether it still answers. Exit code 1 if anything is
wrong.
"""

from __future__ import annotations

import argparse
import collections
import csv
import random
import subprocess
import sys
import tempfile
import threading
import time
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
        self._lock = threading.Lock()

    def ask(self, request: tuple[str, bytes, bool]) -> None:
        task, content, broken = request
        files = {"media": ("upload", content)}
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
        self._count("right" if answer == self.expected[task, content] else "WRONG")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--broken", type=float, default=0.2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--media", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = folder / "world"
        render(world, images=8, clips=8, sounds=8, vocabulary_size=400)
        checkpoint = args.checkpoint or tiny(folder, world)
        model = unival.load(checkpoint)
        networks = [kind for kind in ("images", "videos", "audio") if kind.rstrip("s") in model.modalities]
        contents = {kind: [p.read_bytes() for p in sorted((world / kind).iterdir())[:4]] for kind in networks}
        expected: dict[tuple[str, bytes], Any] = {}
        for task, (fields, kinds) in ASKED.items():
            for content in (one for kind in kinds for one in contents.get(kind, ())):
                expected[task, content] = told(getattr(model, task)(content, **fields))
        good_contents = [one for several in contents.values() for one in several]
        bad = [one for one in broken_uploads(good_contents, args.media) if refused(model, one)]
        rng = random.Random(0)
        good = list(expected)
        requests = [
            (rng.choice(list(ASKED)), rng.choice(bad), True)
            if share < args.broken
            else (*rng.choice(good), False)
            for share in ((number + 0.5) / args.requests for number in range(args.requests))
        ]
        rng.shuffle(requests)
        command = [sys.executable, "-m", "unival", "serve", str(checkpoint), "--port", "0", "--queue", "4"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            client = Client(server.stdout.readline().split()[1], expected)
            # warm-up: every kind of request once
            for task, content in expected:
                client.ask((task, content, False))
            for content in bad:
                client.ask(("caption", content, True))
            warm, client.counts = client.counts, collections.Counter()
            memory = [resident(server.pid)]
            start = time.perf_counter()
            with ThreadPoolExecutor(args.clients) as pool:
                for half in (requests[: len(requests) // 2], requests[len(requests) // 2 :]):
                    list(pool.map(client.ask, half))
                    memory.append(resident(server.pid))
            seconds = time.perf_counter() - start
            alive = httpx.get(f"{client.address}/health", timeout=600).json()["queue"]["taken"] == 0
            server.terminate()
    different = len(set(map(str, expected.values())))
    print(f"{args.requests} requests, {args.clients} at once, {seconds:.1f} s; {different} different answers")
    print(", ".join(f"{what} {count}" for what, count in sorted(client.counts.items())))
    print(f"memory: {memory[0]:.0f} MB warm, {memory[1]:.0f} MB half-way, {memory[2]:.0f} MB at the end")
    print(f"server answers afterwards: {alive}; exit code {server.returncode}")
    wrong = [what for what in (*client.counts, *warm) if "WRONG" in what]
    return int(bool(wrong) or not alive or server.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
