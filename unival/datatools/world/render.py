"""Render the sample world: media, tables, answers, negative pools and a vocabulary, all from a seed."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unival.core.seeding import rng_for
from unival.datatools.world import describe_clips, describe_scenes
from unival.datatools.world.attributes import COLOURS, PLACES, SHAPES, SIZES, SPLITS, VARIANTS
from unival.datatools.world.clips import draw_clip, save_clip
from unival.datatools.world.describe_clips import ACTION_WORDS
from unival.datatools.world.readme import readme
from unival.datatools.world.scenes import draw_scene, save_scene
from unival.datatools.world.sounds import draw_sound, save_sound
from unival.datatools.world.tables import Item, Writer, objects, write_csv, write_lines, write_tsv
from unival.datatools.world.wording import wording_for
from unival.errors import ConfigError, nearest
from unival.vocabulary.prompts import PROMPTS

FOLDERS = ("images", "videos", "audio", "tables", "answers", "negative_sample", "vocabulary")
FILES = ("world.json", "README.md")
SHARES = {"val": 0.08, "test": 0.15}
ANSWERS = {
    "vqa": [*COLOURS, *SHAPES, *PLACES, "1", "2", "3", "yes", "no", *SIZES, "big", "light", "dark"],
    "video_vqa": [*COLOURS, *SHAPES, *(does for does, _ in ACTION_WORDS.values()), "yes", "no", "1", "2"],
}


def split_sizes(count: int) -> dict[str, int]:
    """Return how many of ``count`` items go to each split; at least one each."""
    held = {split: max(1, round(count * share)) for split, share in SHARES.items()}
    return {"train": count - sum(held.values()), **held}


def render(
    folder: str | Path,
    seed: int = 0,
    images: int = 2500,
    clips: int = 600,
    sounds: int = 500,
    image_size: int = 64,
    video_size: int = 64,
    variant: str = "base",
    vocabulary_size: int = 800,
    num_codes: int = 0,
    num_bins: int = 1000,
    questions: int = 2,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write a small multimodal world with real media files into ``folder`` and return what was written.

    images, clips, sounds: how many of each, shared out over train, val and test (77, 8 and 15 %; contents of
    the splits are disjoint). image_size: shorter side in pixels; every fifth picture has aspect 5:4 or 4:5.
    variant: "base"; "new_objects" (each item holds a colour/shape or kind/pitch pair that the base world
    lacks); "new_words" (the base world's objects in other words). vocabulary_size: entries of the byte-level
    BPE (0 trains none), num_codes and num_bins: image codes and location bins behind it. questions: different ones
    about each training picture (2 to 5); the pretraining table has one less.
    The same arguments give the same bytes within one version of the media libraries.
    Returns {"folder", "seed", "variant", "files": {table: rows}, "media": {kind: count}, "bytes"}.
    Raises ConfigError for an unknown variant, sizes or numbers out of bounds, or a folder that holds something else.
    """
    _check(variant, {"images": images, "clips": clips, "sounds": sounds}, image_size, video_size)
    if not 2 <= questions <= 5:
        raise ConfigError(f"questions is {questions}; give 2 to 5 for each picture.")
    root = Path(folder)
    _clear(root)
    say = progress or (lambda message: None)
    held_out = variant == "new_objects"
    sizes = {"images": image_size, "videos": video_size}
    say(f"drawing {images} pictures")
    scenes = list(_media(root, "images", images, seed, sizes["images"], held_out))
    say(f"filming {clips} clips")
    films = list(_media(root, "videos", clips, seed, sizes["videos"], held_out))
    say(f"recording {sounds} sounds")
    noises = list(_media(root, "audio", sounds, seed, 0, held_out))

    say("writing tables")
    writer = Writer(seed, wording_for(variant))
    files, texts = _write_tables(root, writer, scenes, films, noises, questions)
    files.update(_write_pools(root, writer, scenes, films, noises, questions))
    _write_world(root, seed, variant, scenes + films + noises)
    if vocabulary_size:
        say("training the vocabulary")
        _write_vocabulary(root, texts, vocabulary_size, num_codes, num_bins)
    summary = {
        "folder": str(root),
        "seed": seed,
        "variant": variant,
        "files": files,
        "media": {"images": len(scenes), "videos": len(films), "audio": len(noises)},
    }
    (root / "README.md").write_text(readme(summary), encoding="utf-8", newline="\n")
    summary["bytes"] = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return summary


def _check(variant: str, counts: dict[str, int], image_size: int, video_size: int) -> None:
    if variant not in VARIANTS:
        raise ConfigError(
            f"variant '{variant}' is not one of {', '.join(VARIANTS)}.{nearest(variant, VARIANTS)}"
        )
    for name, count in counts.items():
        if count < 8:
            raise ConfigError(f"{name} is {count}; each split needs some, so give at least 8.")
    if not 32 <= image_size <= 512:
        raise ConfigError(
            f"image_size is {image_size}; shapes can be told apart from 32 on, 512 is the largest."
        )
    if not 32 <= video_size <= 512 or video_size % 2:
        raise ConfigError(
            f"video_size is {video_size}; give an even number from 32 to 512 (H.264 needs even sides)."
        )


def _clear(root: Path) -> None:
    """Make the folders of a world; what an earlier rendering left there goes first."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file. Give a new or empty folder.")
    foreign = sorted({p.name for p in root.iterdir()} - {*FOLDERS, *FILES}) if root.exists() else []
    if foreign:
        raise ConfigError(
            f"{root} holds '{foreign[0]}', so it is no sample world. Give a new or empty folder."
        )
    for name in FOLDERS:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)


def _media(root: Path, kind: str, count: int, seed: int, side: int, held_out: bool) -> Iterator[Item]:
    """Draw, write and yield all items of one kind, file formats in turn."""
    suffixes = {"images": (".jpg", ".png"), "videos": (".mp4",), "audio": (".wav", ".flac")}[kind]
    for split, number in split_sizes(count).items():
        for k in range(number):
            rng = rng_for(seed, 0, k, f"{kind} {split} {'held out' if held_out else 'base'}")
            name = f"{split}_{k:05d}"
            path = f"{kind}/{name}{suffixes[k % len(suffixes)]}"
            content: Any
            if kind == "images":
                content = draw_scene(rng, split, side, held_out)
                save_scene(content, root / path, rng)
            elif kind == "videos":
                content = draw_clip(rng, split, side, held_out)
                save_clip(content, root / path, rng)
            else:
                content = draw_sound(rng, split, held_out)
                save_sound(content, root / path, rng)
            yield Item(f"{kind[0]}_{name}", path, split, k, content)


def _write_tables(
    root: Path, writer: Writer, scenes: list[Item], films: list[Item], noises: list[Item], questions: int
) -> tuple[dict[str, int], list[str]]:
    """Write all tables; returns the number of rows of each, and every text of the training tables."""
    files: dict[str, int] = {}
    # leading blank: tasks put one before every text, and it belongs to the first piece
    texts = [text.format_map(defaultdict(str)) for text in PROMPTS.values()]

    def tsv(name: str, rows: list[list[str]], *text_columns: int) -> None:
        files[f"tables/{name}.tsv"] = write_tsv(root / "tables" / f"{name}.tsv", rows)
        if name.endswith("_train") or name.startswith("pretrain"):
            texts.extend(f" {row[column]}" for row in rows for column in text_columns if row[column])

    for split in SPLITS:
        training = split == "train"
        pictures, videos, audio = (
            [i for i in items if i.split == split] for items in (scenes, films, noises)
        )
        tsv(f"caption_{split}", writer.caption_rows(pictures, training), 2)
        tsv(f"vqa_{split}", writer.vqa_rows(pictures, questions if training else 2), 2)
        tsv(f"grounding_{split}", writer.grounding_rows(pictures, training), 2)
        tsv(f"entailment_{split}", writer.entailment_rows(pictures), 3)
        # as released: the fourth column of video and audio tables is empty
        tsv(f"video_caption_{split}", _without_objects(writer.caption_rows(videos, training), 3), 2)
        tsv(f"video_vqa_{split}", _without_objects(writer.vqa_rows(videos, 3 if training else 2), 4), 2)
        tsv(f"audio_caption_{split}", _without_objects(writer.caption_rows(audio, training), 3), 2)
        header, rows = ["id", "image", "text", "label"], writer.matching_rows(pictures)
        files[f"tables/matching_{split}.csv"] = write_csv(root / f"tables/matching_{split}.csv", header, rows)
        if training:
            tsv("pretrain_image", writer.pretrain_rows(pictures, questions - 1), 2, 3)
            tsv("pretrain_video", writer.pretrain_rows(videos, 1), 2, 3)
            tsv("pretrain_audio", writer.pretrain_audio_rows(audio), 2)
    texts.extend(f" {answer}" for answers in ANSWERS.values() for answer in answers)
    return files, texts


def _without_objects(rows: list[list[str]], column: int) -> list[list[str]]:
    return [[*row[:column], "", *row[column + 1 :]] for row in rows]


def _write_pools(
    root: Path, writer: Writer, scenes: list[Item], films: list[Item], noises: list[Item], questions: int
) -> dict[str, int]:
    """Write the answer lists and what pretraining draws wrong captions, objects and answers from."""
    files = {f"answers/{k}.txt": write_lines(root / f"answers/{k}.txt", v) for k, v in ANSWERS.items()}
    pool = root / "negative_sample"
    for name, items in (("", scenes), ("_video", films), ("_audio", noises)):
        texts = {writer.captions(i, 1, "pretrain caption")[0] for i in items if i.split == "train"}
        file = f"all_captions{name}.txt"
        files[f"negative_sample/{file}"] = write_lines(pool / file, sorted(texts))
    names = {
        name for i in scenes + films if i.split == "train" for name in objects(i, writer.wording).split("&&")
    }
    files["negative_sample/object.txt"] = write_lines(pool / "object.txt", sorted(names))
    types: dict[str, set[str]] = {}
    for module, items in ((describe_scenes, scenes), (describe_clips, films)):
        for item in (i for i in items if i.split == "train"):
            asked = questions if module is describe_scenes else 2
            for purpose, count in (("question", asked), ("pretrain question", asked - 1)):
                for kind, _, found in writer.questions(item, count, purpose):
                    types.setdefault(module.ANSWER_TYPES[kind], set()).update(found)
    types["other"] = {"none", "unknown"}
    by_type = {kind: sorted(found) for kind, found in sorted(types.items())}
    (pool / "type2ans.json").write_text(json.dumps(by_type, indent=1) + "\n", encoding="utf-8", newline="\n")
    files["negative_sample/type2ans.json"] = len(by_type)
    return files


def _write_world(root: Path, seed: int, variant: str, items: list[Item]) -> None:
    lines = ",\n".join(
        json.dumps(
            {
                "id": i.id,
                "path": i.path,
                "split": i.split,
                "content": i.content.content(),
                "attributes": i.content.to_dict(),
            }
        )
        for i in items
    )
    head = f'{{"seed": {seed}, "variant": "{variant}", "items": [\n'
    (root / "world.json").write_text(head + lines + "\n]}\n", encoding="utf-8", newline="\n")


def _write_vocabulary(root: Path, texts: list[str], size: int, num_codes: int, num_bins: int) -> None:
    from unival.vocabulary.vocabulary import Vocabulary

    vocabulary = Vocabulary.train(texts, size=size, num_codes=num_codes, num_bins=num_bins)
    vocabulary.save(root / "vocabulary")
