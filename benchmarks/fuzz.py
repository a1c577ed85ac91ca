"""Seeded mutations of every kind of file that users bring: each must be read, or refused in documented words.

``python benchmarks/fuzz.py --items 2000`` prints a table: kind, items, read, refused, anything else. Every item has
20 seconds and 2 GB; what takes longer, takes more, or ends its process is counted and named with the number that
makes it again (``--kind NAME --first NUMBER --items 1``).
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unival.core.seeding import rng_for
from unival.errors import UnivalError

SECONDS, BYTES = 20.0, 2 << 30  # of one item
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 10**30, float("nan"), float("inf"), "", "x", "\0", "\ud83d", "x" * 5000,
    "../../etc/passwd", "${NOPE}", [], [None], [[1]], {}, {"a": {"b": 1}}, "2020-99-99", "9" * 5000,
)  # fmt: skip
SMALL: dict[str, Any] = {
    "encoder_embed_dim": 16, "decoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "decoder_ffn_embed_dim": 16,
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "image_encoder_name": "none", "max_source_positions": 64, "max_target_positions": 64, "image_bucket_size": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Files of one kind: seeds by name, a reader, and whether values are mutated too ("json", "yaml", "torch")."""

    seeds: dict[str, bytes]
    read: Callable[[Path], Any]
    values: str = ""


def kinds(world: Path) -> dict[str, Kind]:
    """Every kind, with seeds made in ``world`` (a sample world that this makes beside a small checkpoint)."""
    import torch
    from safetensors.torch import load_file, save

    from unival import build_model
    from unival.checkpoint import export, load_checkpoint, save_folder
    from unival.core.recipe import load_recipe
    from unival.datatools.world import render
    from unival.media import MediaLoader
    from unival.merge.recipe import MergeRecipe, read_document
    from unival.merge.tensorfile import TensorFile
    from unival.metrics import io as scored
    from unival.specs.answers import read_answer_list
    from unival.tables import open_table
    from unival.vocabulary import Vocabulary

    sizes = {"images": 8, "clips": 8, "sounds": 8, "image_size": 32, "video_size": 32}
    render(world, vocabulary_size=300, num_codes=16, num_bins=16, **sizes)
    vocabulary = Vocabulary.load(world / "vocabulary")
    own = save_folder(
        world.parent / "model", build_model("unival_tiny", vocab_size=len(vocabulary), **SMALL), vocabulary
    )
    (world.parent / "t.csv").write_bytes(b"id,image,caption\n1,1.jpg,a cat\n2,2.jpg,a dog\n")
    exported = export.export_fairseq(load_checkpoint(own), world.parent / "model.pt").read_bytes()

    config = (own / "config.json").read_bytes()
    sealed = (own / "model.safetensors").read_bytes()
    plain = save(load_file(own / "model.safetensors"), metadata={"format": "pt"})

    def table(path: Path) -> None:
        opened = open_table(str(path), ("image", "caption"), "caption")
        for row in opened:
            str(row["image"]), str(row["caption"])

    def folder_with(name: str, path: Path, read: Callable[[Path], Any]) -> Any:
        place = path.parent / f"{path.stem}-folder"
        shutil.copytree(own, place)
        try:
            shutil.copy(path, place / name)
            return read(place)
        finally:
            shutil.rmtree(place)

    def configured(path: Path) -> None:
        folder_with("config.json", path, load_checkpoint)

    def weights(path: Path) -> None:
        try:
            file = TensorFile(path)
        except UnivalError:
            file = None
        if file is not None:
            for name in list(file.specs)[:50]:
                file.read(name)
        folder_with("model.safetensors", path, load_checkpoint)

    def media(path: Path) -> None:
        loader = MediaLoader(str(path.parent), str(path.parent))
        name = str(path)
        one_of([lambda: loader.image(name), lambda: loader.audio(name, 16000), lambda: loader.video(name, 2)])

    def predictions(path: Path) -> None:
        readers = (scored.read_predictions, scored.read_references)
        tasks = ("caption", "vqa", "grounding")
        one_of([partial(read, str(path), task, "as-is") for read in readers for task in tasks])

    rows = [{"id": str(k), "image": f"{k}.jpg", "caption": f"a cat {k}"} for k in range(6)]
    jsonl = "".join(json.dumps(row) + "\n" for row in rows).encode()
    tsv = "".join(f"{k}\t{k}\ta cat {k}\tcat\t{k}.jpg\n" for k in range(6)).encode()
    csv = b"id,image,caption\n" + b'1,1.jpg,"a, cat"\n2,2.jpg,a dog\n'
    answers = [{"question_id": k, "answer": "red"} for k in range(3)]
    human = [{"answer": "red"}] * 10
    notes = [
        {"image_id": k, "id": k, "caption": "a cat", "question_id": k, "answers": human} for k in range(3)
    ]
    official = {"images": [{"id": k} for k in range(3)], "annotations": notes}
    recipe = {
        **{"task": "caption", "arch": "unival_tiny", "criterion": "x"},
        "data": {"train": "t.tsv", "valid": "v.tsv"},
        "optimization": {"lr": 0.001, "batch_size": 8},
        "checkpoint": {"save_dir": "out"},
    }
    merge = {
        **{"method": "ties", "base": "c/m", "out": "o", "density": 0.5, "scale": 1.0, "seed": 1},
        "models": ["a/m", {"path": "b/m", "name": "b"}],
        "parts": [{"include": ["encoder"], "coefficients": [1, 1]}],
    }
    description = {
        **{"path": "t.csv", "media": ".", "limit": 2, "where": {"image": "1.jpg"}},
        "fields": {"image": "{image}", "caption": "{caption}"},
        "constants": {"answer": "x"},
    }
    dump = lambda value: yaml.safe_dump(value).encode()  # noqa: E731
    files = {
        p.name: p.read_bytes()
        for n in ("images", "videos", "audio")
        for p in sorted((world / n).iterdir())[:2]
    }
    listed = ["red", "blue", "two cats"]
    words = {
        name: (own / name).read_bytes()
        for name in ("dict.txt", "encoder.json", "vocab.bpe", "vocabulary.json")
    }
    torch.set_num_threads(1)
    return {
        "tables": Kind({"t.jsonl": jsonl, "t.tsv": tsv, "t.csv": csv}, table, "json"),
        "descriptions": Kind({"t.yaml": dump(description)}, table, "yaml"),
        "recipes": Kind({"r.yaml": dump(recipe)}, load_recipe, "yaml"),
        "merge recipes": Kind({"m.yaml": dump(merge)}, lambda p: read_document(p, MergeRecipe), "yaml"),
        "vocabularies": Kind(
            words, lambda p: folder_with(p.name.partition("-")[2], p, Vocabulary.load), "json"
        ),
        "checkpoints": Kind({"c.pt": exported}, load_checkpoint, "torch"),
        "safetensors": Kind({"sealed.safetensors": sealed, "w.safetensors": plain}, weights),
        "configs": Kind({"config.json": config}, configured, "json"),
        "predictions and references": Kind(
            {
                "p.json": json.dumps(answers).encode(),
                "q.json": json.dumps(official).encode(),
                "p.jsonl": jsonl,
            },
            predictions,
            "json",
        ),
        "answer lists": Kind(
            {
                "a.json": json.dumps(listed).encode(),
                "a.pkl": pickle.dumps(dict.fromkeys(listed, 1)),
                "a.txt": b"red\nblue\n",
            },
            read_answer_list,
            "json",
        ),
        "media": Kind(files, media),
    }


def one_of(attempts: list[Callable[[], Any]]) -> None:
    """Make every attempt; raises the last refusal when all are refused."""
    refusals: list[UnivalError] = []
    for attempt in attempts:
        try:
            attempt()
        except UnivalError as error:
            refusals.append(error)
    if len(refusals) == len(attempts):
        raise refusals[-1]


def mutated(kind: Kind, seed: int, number: int) -> tuple[str, bytes]:
    """File name and content of one item; a function of (seed, number)."""
    rng = rng_for(seed, 0, number, "fuzz")
    name = list(kind.seeds)[int(rng.integers(len(kind.seeds)))]
    data = kind.seeds[name]
    structured = kind.values in ("yaml", "torch") or (
        kind.values == "json" and name.endswith((".json", ".jsonl"))
    )
    if structured and rng.random() < 0.7:
        data = _values(data, name, rng)
    if not structured or rng.random() < 0.2:
        data = _bytes(data, rng)
    return name, data


def _values(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    """Replace, remove or repeat some values of a document."""
    if name.endswith(".jsonl"):
        lines = data.splitlines()
        place = int(rng.integers(len(lines)))
        lines[place] = json.dumps(_changed(json.loads(lines[place]), rng)).encode()
        return b"\n".join(lines) + b"\n"
    if name.endswith(".pt"):
        return _torch_values(data, rng)
    if name.endswith(".json"):
        return json.dumps(_changed(json.loads(data), rng)).encode()
    return yaml.safe_dump(_changed(yaml.safe_load(data), rng)).encode("utf-8", "surrogatepass")


def _torch_values(data: bytes, rng: np.random.Generator) -> bytes:
    """The same for the plain values of a file of torch, and for whole tensors."""
    import torch

    file = io.BytesIO()
    torch.save(_changed(torch.load(io.BytesIO(data), weights_only=False), rng), file)
    return file.getvalue()


def _changed(value: Any, rng: np.random.Generator) -> Any:
    spots = list(_spots(value))
    for _ in range(int(rng.integers(1, 4))):
        holder, key = spots[int(rng.integers(len(spots)))]
        choice = rng.random()
        odd = ODD[int(rng.integers(len(ODD)))]
        if choice < 0.6:
            holder[key] = odd
        elif choice < 0.8 and isinstance(holder, dict):
            holder[str(odd)[:40]] = holder.get(key)
        elif isinstance(holder, dict):
            holder.pop(key, None)
    return value


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(places):
        yield value, key
        yield from _spots(part)


def _bytes(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not changed:
            break
        start = int(rng.integers(len(changed)))
        # damage near the start reaches headers, which are what a reader trusts
        start = start if rng.random() < 0.5 else start % min(len(changed), 512)
        length = int(rng.integers(1, 1 + min(64, len(changed))))
        what = int(rng.integers(6))
        if what == 0:
            changed[start] ^= 1 << int(rng.integers(8))
        elif what == 1:
            del changed[start:]
        elif what == 2:
            del changed[start : start + length]
        elif what == 3:
            changed[start:start] = rng.bytes(length)
        elif what == 4:
            changed[start : start + 8] = (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7)[int(rng.integers(3))]
        else:
            changed[start:start] = changed[start : start + length] * int(rng.integers(1, 40))
    return bytes(changed)


def outcome(kind: Kind, seed: int, number: int, folder: Path) -> str:
    """Read one item: "read", "refused", or what happened instead."""
    name, data = mutated(kind, seed, number)
    path = folder / f"{number}-{name}"
    path.write_bytes(data)
    try:
        kind.read(path)
    except UnivalError:
        return "refused"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} ({Path(place.filename).name}:{place.lineno})"
    finally:
        path.unlink(missing_ok=True)
    return "read"


def _work(kind: Kind, seed: int, first: int, items: int, folder: Path, pipe: Any) -> None:
    """Read items one after the other and send each outcome; memory beyond the limit is an outcome too."""
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for number in range(first, first + items):
        pipe.send((number, None))
        found = outcome(kind, seed, number, folder)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base
        pipe.send((number, f"memory {grown >> 20} MB" if grown > BYTES else found))
        if grown > BYTES:
            return
    pipe.send((first + items, None))


def campaign(kind: Kind, seed: int, first: int, items: int, folder: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, outcome) of every item; a process that hangs or dies is replaced, its item counted."""
    context = multiprocessing.get_context("fork")
    end = first + items
    while first < end:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(kind, seed, first, end - first, folder, theirs))
        process.start()
        theirs.close()
        current, broken = first, ""
        while first < end:
            if not mine.poll(SECONDS):
                broken = f"hang (over {SECONDS:g} s)"
                break
            try:
                current, found = mine.recv()
            except EOFError:
                broken = "died"
                break
            if found is not None:
                yield current, found
                first = current + 1
        process.kill()
        process.join()
        if first < end and broken:
            yield first, broken if broken != "died" else f"died (signal {-(process.exitcode or 0)})"
            first += 1


def main() -> int:
    """Run the campaign and print its table; exit code 1 when an outcome is not documented."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=200, help="mutations of every kind (default: 200)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", help="only this kind")
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="unival-fuzz-") as folder:
        found = kinds(Path(folder) / "world")
        print(f"{'kind':<28} {'items':>6} {'read':>6} {'refused':>8} {'other':>6} {'seconds':>8}")
        for name, kind in found.items():
            if args.kind not in (None, name):
                continue
            started, counts, first = time.monotonic(), Counter[str](), dict[str, int]()
            for number, what in campaign(kind, args.seed, args.first, args.items, Path(folder)):
                counts[what] += 1
                first.setdefault(what, number)
            other = {what: n for what, n in counts.items() if what not in ("read", "refused")}
            bad += sum(other.values())
            print(
                f"{name:<28} {sum(counts.values()):>6} {counts['read']:>6} {counts['refused']:>8} "
                f"{sum(other.values()):>6} {time.monotonic() - started:>8.1f}",
                flush=True,
            )
            for what, count in sorted(other.items()):
                print(f"    {count} x {what}, first: number {first[what]}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
