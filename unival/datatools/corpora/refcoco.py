"""RefCOCO, RefCOCO+ and RefCOCOg: ``refs(SPLIT BY).p`` and ``instances.json``."""

from __future__ import annotations

from collections.abc import Iterator

from unival.datatools.corpora.official import Sources
from unival.datatools.corpora.records import Corpus, Option, Record, Source, Table
from unival.datatools.corpora.texts import TEXT
from unival.errors import DataError

_SPLITS = ("train", "val", "test", "testA", "testB")


def _refs(sources: Sources) -> Iterator[Record]:
    """A list of refs (one annotated thing each) with ``sentences``; boxes come from the instances."""
    instances, refs = sources.json("instances"), sources.pickle("refs")
    files = {
        instances.text(i, "id", "an image"): instances.text(i, "file_name", "an image")
        for i in instances.need(instances.content, "images", list)
    }
    boxes = {
        instances.text(a, "id", "an annotation"): instances.need(a, "bbox", list, "an annotation")
        for a in instances.need(instances.content, "annotations", list)
    }
    wording = sources.options["wording"]
    for number, ref in enumerate(refs.listing()):
        where = f"ref {number}"
        split, image = refs.text(ref, "split", where), refs.text(ref, "image_id", where)
        thing = refs.text(ref, "ann_id", where)
        if split not in _SPLITS:
            raise DataError(
                f"{where}: the split is '{split}'; expected {', '.join(_SPLITS)}", path=str(refs.path)
            )
        if thing not in boxes or image not in files:
            raise DataError(
                f"{where}: annotation {thing} on image {image} is not in {instances.path}; take both files from "
                "one archive",
                path=str(refs.path),
            )
        x, y, width, height = map(float, boxes[thing])
        for sentence in refs.need(ref, "sentences", list, where):
            yield Record(
                id=f"{refs.text(ref, 'ref_id', where)}_{refs.text(sentence, 'sent_id', where)}",
                split=split,
                media_id=image,
                media={"folder": "train2014", "file": files[image], "id": image},
                text=refs.text(sentence, wording, where),
                pretraining_text=refs.text(sentence, "sent", where),
                box=(x, y, x + width, y + height),
            )


def _corpus(name: str, title: str, by: str, tests: tuple[str, ...]) -> Corpus:
    folder = f"{name}_data/{name}"
    return Corpus(
        name=name,
        title=title,
        modality="image",
        sources=(
            Source("refs", f"refs({by}).p", help="the pickle of the split: unc, google or umd"),
            Source("instances", "instances.json"),
        ),
        read=_refs,
        media="{folder}/{file}",
        options=(
            Option(
                "wording",
                "raw",
                "finetuning tables hold the sentence as it was typed (raw, as published) or cleaned (sent, as "
                "pretraining rows do)",
                ("raw", "sent"),
            ),
            TEXT,
        ),
        tables=(
            Table(f"{folder}_train", "grounding", shuffled=True),
            Table(f"{folder}_train", "grounding"),
            *(Table(f"{folder}_{split}", "grounding", (split,)) for split in ("val", *tests)),
            Table(f"pretrain_ours/parts/{name}_ground", "pretrain", kind="visual_grounding", dataset=name),
        ),
    )


REFCOCO = _corpus("refcoco", "RefCOCO", "unc", ("testA", "testB"))
REFCOCOPLUS = _corpus("refcocoplus", "RefCOCO+", "unc", ("testA", "testB"))
REFCOCOG = _corpus("refcocog", "RefCOCOg", "umd", ("test",))
