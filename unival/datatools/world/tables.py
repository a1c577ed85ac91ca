"""Tables of the sample world, in the column orders of the released data files.

Every method of ``Writer`` takes the items of one split and returns rows. Paths inside the tables are relative
to the world's folder. Every table draws from its own generators, so adding a table changes no other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unival.core.seeding import rng_for
from unival.datatools.world import describe_clips, describe_scenes, describe_sounds
from unival.datatools.world.clips import Clip
from unival.datatools.world.scenes import Scene, Thing
from unival.datatools.world.sounds import Sound
from unival.datatools.world.wording import Wording

REFERENCES = 4
ENTAILMENT_LABELS = ("entailment", "neutral", "contradiction")

Rows = list[list[str]]


@dataclass(frozen=True)
class Item:
    """One picture, clip or sound: its id, path relative to the world's folder, split and content."""

    id: str
    path: str
    split: str
    index: int
    content: Any


@dataclass(frozen=True)
class Writer:
    """Everything that the wording of a world depends on."""

    seed: int
    wording: Wording

    def _rng(self, item: Item, purpose: str) -> Any:
        return rng_for(self.seed, 0, item.index, f"{item.id[0]} {item.split} {purpose}")

    def captions(self, item: Item, count: int, purpose: str) -> list[str]:
        """Write captions of one item, whatever its kind."""
        rng = self._rng(item, purpose)
        if isinstance(item.content, Scene):
            return describe_scenes.captions(item.content, self.wording, count, rng)
        if isinstance(item.content, Clip):
            return describe_clips.captions(item.content, self.wording, count, rng)
        sound: Sound = item.content
        return describe_sounds.captions(sound, self.wording, count, rng)

    def questions(self, item: Item, count: int, purpose: str) -> list[tuple[str, str, dict[str, float]]]:
        """Ask questions about a picture or clip: (kind, question, answers)."""
        ask = describe_scenes.questions if isinstance(item.content, Scene) else describe_clips.questions
        return ask(item.content, self.wording, count, self._rng(item, purpose))

    def caption_rows(self, items: list[Item], training: bool) -> Rows:
        """uniq-id, media-id, caption (references joined by && outside training), objects, path."""
        rows: Rows = []
        for item in items:
            texts = self.captions(item, 1 if training else REFERENCES, "caption")
            rows.append([f"{item.id}_c", item.id, "&&".join(texts), objects(item, self.wording), item.path])
        return rows

    def vqa_rows(self, items: list[Item], count: int) -> Rows:
        """question-id, media-id, question, answers, objects, path."""
        return [
            [
                f"{item.id}_q{k}",
                item.id,
                question,
                join_answers(answers),
                objects(item, self.wording),
                item.path,
            ]
            for item in items
            for k, (_, question, answers) in enumerate(self.questions(item, count, "question"))
        ]

    def grounding_rows(self, items: list[Item], training: bool) -> Rows:
        """uniq-id, image-id, text, box in pixels, path. Training: one row per thing; else one."""
        rows: Rows = []
        for item in items:
            rng = self._rng(item, "grounding")
            things = item.content.things
            chosen = range(len(things)) if training else [int(rng.integers(len(things)))]
            for k in chosen:
                text = describe_scenes.referring(item.content, things[k], self.wording, rng)
                rows.append([f"{item.id}_g{k}", item.id, text, box_text(things[k]), item.path])
        return rows

    def entailment_rows(self, items: list[Item]) -> Rows:
        """uniq-id, image-id, path, hypothesis, caption, label; the three labels in turn."""
        rows: Rows = []
        for item in items:
            rng = self._rng(item, "entailment")
            caption = self.captions(item, 1, "premise")[0]
            for k in range(2):
                label = ENTAILMENT_LABELS[(2 * item.index + k) % 3]
                text = describe_scenes.hypothesis(item.content, label, self.wording, rng)
                rows.append([f"{item.id}_e{k}", item.id, item.path, text, caption, label])
        return rows

    def matching_rows(self, items: list[Item]) -> Rows:
        """id, image, text, label (match or mismatch, in turn)."""
        rows: Rows = []
        for item in items:
            text = self.captions(item, 1, "matching")[0]
            label = "match" if item.index % 2 == 0 else "mismatch"
            if label == "mismatch":
                rng = self._rng(item, "mismatch")
                text = describe_scenes.mismatched(item.content, text, self.wording, rng)
            rows.append([f"{item.id}_m", item.path, text, label])
        return rows

    def pretrain_rows(self, items: list[Item], questions: int) -> Rows:
        """uniq-id, path, caption, question, refs, gt objects, dataset name, type."""
        rows: Rows = []
        for item in items:
            video = isinstance(item.content, Clip)
            name, prefix = ("world_clips", "video_") if video else ("world_scenes", "")
            things = objects(item, self.wording)
            caption = self.captions(item, 1, "pretrain caption")[0]
            rows.append([f"{item.id}_pc", item.path, caption, "", "", things, name, f"{prefix}caption"])
            for k, (_, question, answers) in enumerate(self.questions(item, questions, "pretrain question")):
                refs = join_answers(answers)
                rows.append(
                    [f"{item.id}_pq{k}", item.path, caption, question, refs, things, name, f"{prefix}qa"]
                )
            if not video:
                rng = self._rng(item, "pretrain grounding")
                thing = item.content.things[int(rng.integers(len(item.content.things)))]
                text = describe_scenes.referring(item.content, thing, self.wording, rng)
                rows.append(
                    [f"{item.id}_pg", item.path, text, "", box_text(thing), things, name, "visual_grounding"]
                )
        order = rng_for(self.seed, 0, len(rows), "pretrain order").permutation(len(rows))
        return [rows[i] for i in order]

    def pretrain_audio_rows(self, items: list[Item]) -> Rows:
        """The same eight columns for sounds; type "audio"."""
        return [
            [
                f"{i.id}_pc",
                i.path,
                self.captions(i, 1, "pretrain caption")[0],
                "",
                "",
                "",
                "world_sounds",
                "audio",
            ]
            for i in items
        ]


def objects(item: Item, wording: Wording) -> str:
    """Return the things of a picture or clip as "red circle&&blue star"; empty for a sound."""
    content = item.content
    if isinstance(content, Scene):
        return "&&".join(describe_scenes.thing_name(thing, wording) for thing in content.things)
    if isinstance(content, Clip):
        actors = [a for a in (content.actor, content.other) if a]
        return "&&".join(f"{wording.word(a.color)} {wording.word(a.shape)}" for a in actors)
    return ""


def box_text(thing: Thing) -> str:
    """Return "x0,y0,x1,y1" in pixels with two decimals."""
    return ",".join(f"{value:.2f}" for value in thing.box)


def join_answers(answers: dict[str, float]) -> str:
    """Return "1.0|!+large&&0.6|!+big"."""
    return "&&".join(f"{confidence:.1f}|!+{answer}" for answer, confidence in answers.items())


def write_tsv(path: Path, rows: Rows) -> int:
    """Write rows without a header, tab-separated, LF line ends; returns their number."""
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
    return len(rows)


def write_csv(path: Path, header: list[str], rows: Rows) -> int:
    """Write rows under a header, quoted where needed."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return len(rows)


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write one text per line."""
    kept = list(lines)
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8", newline="\n")
    return len(kept)
