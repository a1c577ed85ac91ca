"""COCO for text-to-image: pictures of train2014 to learn from, drawn pictures of val2014 to test on.

The Karpathy split will not do: its training part holds pictures of val2014, from which the test is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator

from unival.core.seeding import rng_for
from unival.datatools.corpora.coco import captions_by
from unival.datatools.corpora.official import Sources
from unival.datatools.corpora.records import Corpus, Option, Record, Source, Table
from unival.datatools.corpora.texts import TEXT
from unival.errors import ConfigError

_FOLDER = "image_gen_data"


def _pictures(sources: Sources) -> Iterator[Record]:
    """``captions_{train,val}2014.json``: COCO's format. A drawn picture of val2014 has one of its captions."""
    for part in ("train", "val"):
        file = sources.json(part)
        grouped = captions_by(file, file.need(file.content, "annotations", list), "image_id", "id")
        images = file.need(file.content, "images", list)
        splits = ["train"] * len(images) if part == "train" else _drawn(sources, len(images))
        for number, (image, split) in enumerate(zip(images, splits, strict=True)):
            where = f"image {number}"
            name = file.text(image, "id", where)
            captions = grouped.get(name, [])
            if split != "train" and captions:
                draw = rng_for(sources.seed, 0, number, "text-to-image caption")
                captions = [captions[int(draw.integers(len(captions)))]]
            yield Record(
                id=name,
                split=split,
                media_id=name,
                media={"folder": f"{part}2014", "file": file.text(image, "file_name", where), "id": name},
                captions=tuple(text for _, text in captions),
                caption_ids=tuple(key for key, _ in captions),
            )


def _drawn(sources: Sources, count: int) -> list[str]:
    """Return the split of each of ``count`` pictures of val2014: test, val (development) or unused."""
    test, dev = sources.options["test-pictures"], sources.options["dev-pictures"]
    if test < 1 or dev < 1 or test + dev > count:
        raise ConfigError(
            f"--test-pictures {test} and --dev-pictures {dev}: both at least 1, and together at most the {count} "
            "pictures of captions_val2014.json"
        )
    order = rng_for(sources.seed, 0, 0, "text-to-image test pictures").permutation(count)
    splits = ["unused"] * count
    for place, number in enumerate(order[: test + dev]):
        splits[number] = "test" if place < test else "val"
    return splits


IMAGE_GEN = Corpus(
    name="image_gen",
    title="COCO for text-to-image",
    modality="image",
    sources=(Source("train", "captions_train2014.json"), Source("val", "captions_val2014.json")),
    read=_pictures,
    media="{folder}/{file}",
    options=(
        Option("test-pictures", 30_000, "pictures of val2014 to test on, with one caption each"),
        Option("dev-pictures", 1_000, "other pictures of val2014 to validate on, with one caption each"),
        TEXT,
    ),
    tables=tuple(
        Table(f"{_FOLDER}/coco_captions_{name}", "caption", (split,), joined=True, text="lower")
        for name, split in (("train", "train"), ("dev", "val"), ("full_test", "test"))
    ),
)
