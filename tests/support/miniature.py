"""A miniature of everything that the recipes read: official tables, media, answer lists, negatives, vocabulary.

The rows come from the sample world, whose tables have the column orders of the released files.
"""

from __future__ import annotations

import base64
import csv
import pickle
import random
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path

from tests.support.imagegen_fixtures import CODES, clip_files, vqgan_file

Rows = list[list[str]]
_SPLITS = ("train", "val", "test")
# where a released table lies -> (table of the world, column of the medium); the first that fits
_KINDS = (
    (r"video_data/caption_data/", "video_caption", 4),
    (r"video_data/vqa_data/", "video_vqa", 5),
    (r"audio_data/", "audio_caption", 4),
    (r"caption_data/", "caption", 4),
    (r"vqa_data/", "vqa", 5),
    (r"refcoco\w*_data/", "grounding", 4),
    (r"snli_ve_data/", "entailment", 2),
)
# a table of pretraining -> the world's modality; type of its rows -> their corpora, in turn
_CORPORA = {
    "caption": ("coco", "sbu", "cc3m", "vg"),
    "qa": ("vqa", "vqa_vg", "gqa"),
    "visual_grounding": ("refcoco", "refcocoplus", "refcocog", "vg"),
    "video_caption": ("webvid",),
    "video_qa": ("webvidqa",),
}
_PRETRAIN = (
    (r"_caption\.tsv$", "image", ("caption",)),
    (r"_qa\.tsv$", "image", ("qa",)),
    (r"mini_vqa_ground\.tsv$", "image", ("caption", "qa", "visual_grounding")),
    (r"_ground\.tsv$", "image", ("visual_grounding",)),
    (r"cc12m\.tsv$", "image", ("caption",)),
    (r"video_\w+\.tsv$", "video", ("video_caption", "video_qa")),
)


class Miniature:
    """``data``, ``weights`` and ``out``: the three roots of a run. Tables are made when a recipe names them."""

    def __init__(self, root: Path) -> None:
        from unival.datatools.world import render

        self.data, self.weights, self.out = root / "data", root / "weights", root / "out"
        self.world = self.data / "world"
        self.data.mkdir(parents=True)
        size = {"images": 24, "clips": 16, "sounds": 16, "image_size": 48, "video_size": 32}
        render(self.world, seed=4, vocabulary_size=400, num_codes=CODES, **size)
        (self.data / "standin").symlink_to("world")
        shutil.copytree(self.world / "vocabulary", self.weights / "bpe")
        pools = self.data / "ofa/pretrain_ours/negative_sample"
        shutil.copytree(self.world / "negative_sample", pools)

    def file(self, path: str | Path) -> Path:
        """Make a file that a recipe names; its name decides what is in it."""
        made = Path(path)
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            name = made.relative_to(self.data if made.is_relative_to(self.data) else self.out).as_posix()
            if "image_gen_data/" in name or "emoji/" in name:
                self._write(made, self._codes("train" if "train" in made.name else "val"))
            elif name.endswith(".pkl"):
                kind = "video_vqa" if "video_data" in name else "vqa"
                made.write_bytes(pickle.dumps({answer: k for k, answer in enumerate(self._answers(kind))}))
            elif name.startswith("ofa/"):
                self._write(made, self._official(name))
            else:
                _OWN[made.name](self, made)
        return made

    def rows(self, table: str) -> Rows:
        text = (self.world / f"tables/{table}.tsv").read_text(encoding="utf-8")
        return [line.split("\t") for line in text.splitlines()]

    def _answers(self, kind: str) -> list[str]:
        return (self.world / f"answers/{kind}.txt").read_text(encoding="utf-8").splitlines()

    def _codes(self, split: str) -> Rows:
        """uniq-id, image codes, caption."""
        draw = random.Random(split)
        side = 4  # of 32 pixels
        return [
            [row[0], " ".join(str(draw.randrange(CODES)) for _ in range(side * side)), row[2]]
            for row in self.rows(f"caption_{split}")
        ]

    def image_networks(self) -> dict[str, str]:
        """A tiny VQGAN and a tiny CLIP: {option: file}."""
        if not (self.weights / "clip.pt").exists():
            vqgan_file(self.weights)
            clip_files(self.weights)
        return {
            "vqgan_model_path": str(self.weights / "vqgan.pt"),
            "clip_model_path": str(self.weights / "clip.pt"),
            "clip_architecture": str(self.weights / "tiny-test-clip.json"),
        }

    def _official(self, name: str) -> Rows:
        if "pretrain_ours/" in name:
            modality, types = next((m, t) for pattern, m, t in _PRETRAIN if re.search(pattern, name))
            rows = [row for row in self.rows(f"pretrain_{modality}") if row[7] in types]
            corpora = {
                kind: cycle(names if "cc12m" not in name else ("cc12m",)) for kind, names in _CORPORA.items()
            }
            return [[r[0], f"world/{r[1]}", *r[2:6], next(corpora[r[7]]), r[7]] for r in rows]
        table, column = next((t, c) for pattern, t, c in _KINDS if re.search(pattern, name))
        last = name.rsplit("/", 1)[-1]
        split = (
            "train"
            if re.search("train|development", last)
            else "val"
            if re.search("val|dev", last)
            else "test"
        )
        rows = self.rows(f"{table}_{split}")
        inline = table in ("caption", "vqa", "grounding", "entailment") and split != "test"
        for row in rows:
            path = self.world / row[column]
            row[column] = base64.b64encode(path.read_bytes()).decode() if inline else f"world/{row[column]}"
        return rows

    @staticmethod
    def _write(path: Path, rows: Rows, header: Iterable[str] = ()) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
            writer.writerows([list(header), *rows] if header else rows)

    def _own(self, path: Path, header: str, table: str, pick: Callable[[list[str]], list[str]]) -> None:
        """A table with a header and a split column, as configs/own_data reads them."""
        rows = [[*pick(row), split] for split in _SPLITS for row in self.rows(f"{table}_{split}")]
        self._write(path, rows, [*header.split(","), "split"])

    def _archive(self, path: Path) -> None:
        kind, split = re.fullmatch(r"(\w+?)_(\w+)\.tar", path.name).groups()  # type: ignore[union-attr]
        folder = {"images": "images", "video": "videos", "audio": "audio"}[kind]
        with tarfile.open(path, "w") as tar:
            for medium in sorted((self.world / folder).glob(f"{split}_*")):
                tar.add(medium, arcname=medium.name)


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _best(answers: str) -> str:
    return answers.split("&&")[0].split("|!+")[1]


def _questions(mini: Miniature, path: Path) -> None:
    medium, table = ("video", "video_vqa") if "video" in path.parent.name else ("image", "vqa")
    mini._own(path, f"{medium},question,answer", table, lambda r: [_base(r[5]), r[2], _best(r[3])])


def _matching(mini: Miniature, path: Path) -> None:
    rows = []
    for split in _SPLITS:
        with (mini.world / f"tables/matching_{split}.csv").open(encoding="utf-8", newline="") as file:
            rows += [[_base(row["image"]), row["text"], row["label"], split] for row in csv.DictReader(file)]
    mini._write(path, rows, ("image", "text", "label", "split"))


_OWN: dict[str, Callable[[Miniature, Path], None]] = {
    "captions.tsv": lambda m, p: m._own(p, "image,caption", "caption", lambda r: [_base(r[4]), r[2]]),
    "grounding.tsv": lambda m, p: m._own(
        p,
        "image,phrase,n_boxes,boxes_x0y0x1y1_in_224px_image",
        "grounding",
        lambda r: [_base(r[4]), r[2], "1", r[3]],
    ),
    "entailment.tsv": lambda m, p: m._own(
        p, "image,hypothesis,label", "entailment", lambda r: [_base(r[2]), r[3], r[5]]
    ),
    "image_text_matching.tsv": _matching,
    "questions.tsv": _questions,
    "transcripts.tsv": lambda m, p: m._own(
        p, "clip,sentence", "video_caption", lambda r: [_base(r[4])[:-4], r[2]]
    ),
    "labels.tsv": lambda m, p: m._own(p, "audio,label", "audio_caption", lambda r: [_base(r[4]), r[2]]),
    "answers.txt": lambda m, p: p.write_text("".join(f"{a}\n" for a in m._answers("vqa"))) and None,
    **{
        f"{kind}_{split}.tar": lambda m, p: m._archive(p)
        for kind in ("images", "video", "audio")
        for split in _SPLITS
    },
}
