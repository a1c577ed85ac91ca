"""COCO captions in the Karpathy split, and nocaps: pictures with several captions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unival.datatools.corpora.official import Official, Sources
from unival.datatools.corpora.records import Corpus, Record, Source, Table
from unival.datatools.corpora.texts import TEXT
from unival.errors import DataError

KARPATHY = {"train": "train", "restval": "train", "val": "val", "test": "test"}
# what an official file of object names is for
SWAPS = "object names: 40 % of the wrong captions of pretraining swap one; the published tables have none"
_DOMAINS = {"in-domain": "indomain", "near-domain": "neardomain", "out-domain": "outdomain"}


def _karpathy(sources: Sources) -> Iterator[Record]:
    """``dataset_coco.json``: images with ``split`` (train, restval, val, test) and ``sentences``."""
    file = sources.json("karpathy")
    objects = _objects(sources)
    for number, image in enumerate(file.need(file.content, "images", list)):
        where = f"image {number}"
        split = file.text(image, "split", where)
        if split not in KARPATHY:
            raise DataError(
                f"{where}: the split is '{split}'; expected {', '.join(KARPATHY)}", path=str(file.path)
            )
        name = file.text(image, "cocoid", where)
        sentences = file.need(image, "sentences", list, where)
        yield Record(
            id=name,
            split=KARPATHY[split],
            media_id=name,
            media={
                "folder": image.get("filepath", ""),
                "file": file.text(image, "filename", where),
                "id": name,
            },
            captions=tuple(file.text(s, "raw", where) for s in sentences),
            caption_ids=tuple(file.text(s, "sentid", where) for s in sentences),
            objects=objects.get(name, ()),
        )


def _objects(sources: Sources) -> dict[str, tuple[str, ...]]:
    """Return image id -> category names of the instance annotations, where they are given."""
    found: dict[str, dict[str, None]] = {}
    for name in ("instances-train", "instances-val"):
        if name not in sources:
            continue
        file = sources.json(name)
        names = {c["id"]: file.text(c, "name", "a category") for c in file.listing("categories")}
        for thing in file.listing("annotations"):
            category = file.need(thing, "category_id", int, "an annotation")
            if category in names:
                found.setdefault(file.text(thing, "image_id", "an annotation"), {})[names[category]] = None
    return {image: tuple(things) for image, things in found.items()}


def captions_by(file: Official, entries: list[Any], key: str, name: str) -> dict[str, list[tuple[str, str]]]:
    """Return medium -> [(caption id, caption)] of a list of single captions."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for number, entry in enumerate(entries):
        where = f"caption {number}"
        caption = (file.text(entry, name, where), file.text(entry, "caption", where))
        grouped.setdefault(file.text(entry, key, where), []).append(caption)
    return grouped


def _nocaps(sources: Sources) -> Iterator[Record]:
    """``nocaps_val_4500_captions.json``: COCO's format, images with ``domain``; the test file has no captions."""
    for source, split in (("val", "val"), ("test", "test")):
        if source not in sources:
            continue
        file = sources.json(source)
        grouped = captions_by(file, file.mapping().get("annotations") or [], "image_id", "id")
        for number, image in enumerate(file.need(file.content, "images", list)):
            where = f"image {number}"
            name = file.text(image, "id", where)
            captions = grouped.get(name, [])
            yield Record(
                id=name,
                split=split,
                media_id=f"{split}{name}" if split == "test" else name,  # both files count from 0
                media={"file": file.text(image, "file_name", where), "split": split, "id": name},
                captions=tuple(text for _, text in captions),
                group=_DOMAINS.get(str(image.get("domain")), ""),
            )


COCO = Corpus(
    name="coco",
    title="COCO captions (Karpathy split)",
    modality="image",
    sources=(
        Source("karpathy", "dataset_coco.json"),
        Source("instances-train", "instances_train2014.json", False, SWAPS, asked=True),
        Source("instances-val", "instances_val2014.json", False, SWAPS, asked=True),
    ),
    read=_karpathy,
    media="{folder}/{file}",
    options=(TEXT,),
    tables=(
        Table("caption_data/caption_stage1_train", "caption", shuffled=True, text="lower"),
        *(
            Table(
                f"caption_data/caption_{split}",
                "caption",
                (split,),
                joined=True,
                text="lower",
                references=f"caption_data/{split}_caption_coco_format.json",
            )
            for split in ("val", "test")
        ),
        Table("pretrain_ours/parts/coco_caption", "pretrain", kind="caption", dataset="coco"),
    ),
)

NOCAPS = Corpus(
    name="nocaps",
    title="nocaps",
    modality="image",
    sources=(
        Source("val", "nocaps_val_4500_captions.json"),
        Source("test", "nocaps_test_image_info.json", False),
    ),
    read=_nocaps,
    media="{file}",
    tables=(
        *(
            Table(
                f"caption_data/nocaps_{name}val",
                "caption",
                ("val",),
                groups=groups,
                joined=True,
                references=f"caption_data/nocaps_{name}val_caption_coco_format.json",
            )
            for name, groups in {"": (), **{f"{name}_": (name,) for name in _DOMAINS.values()}}.items()
        ),
        Table("caption_data/nocaps_test", "jsonl", ("test",)),
    ),
)
