"""SNLI-VE: hypotheses on Flickr30k pictures."""

from __future__ import annotations

from collections.abc import Iterator

from unival.datatools.corpora.official import Sources
from unival.datatools.corpora.records import Corpus, Record, Source, Table
from unival.datatools.corpora.rows import NO_LABEL
from unival.errors import DataError

LABELS = ("entailment", "neutral", "contradiction")


def _snli_ve(sources: Sources) -> Iterator[Record]:
    """``snli_ve_{train,dev,test}.jsonl``: sentence1 is the premise, sentence2 the hypothesis.

    The image is the part of ``captionID`` ("4705552913.jpg#2") before its mark. "-" is no majority label.
    """
    for split in ("train", "dev", "test"):
        if split not in sources:
            continue
        for file, entry, where in sources.jsonl(split):
            label = file.text(entry, "gold_label", where)
            if label not in (*LABELS, NO_LABEL):
                raise DataError(
                    f"{where}: gold_label is '{label}'; expected {', '.join(LABELS)}", path=str(file.path)
                )
            image = file.text(entry, "captionID", where).partition("#")[0]
            yield Record(
                id=file.text(entry, "pairID", where),
                split="val" if split == "dev" else split,
                media_id=image.partition(".")[0],
                media={"file": image if "." in image else f"{image}.jpg"},
                text=file.text(entry, "sentence2", where),
                premise=file.text(entry, "sentence1", where),
                label=label,
            )


SNLI_VE = Corpus(
    name="snli_ve",
    title="SNLI-VE",
    modality="image",
    sources=tuple(Source(s, f"snli_ve_{s}.jsonl", s == "train") for s in ("train", "dev", "test")),
    read=_snli_ve,
    media="{file}",
    tables=(
        Table("snli_ve_data/snli_ve_train", "entailment"),
        Table("snli_ve_data/snli_ve_dev", "entailment", ("val",)),
        Table("snli_ve_data/snli_ve_test", "entailment", ("test",)),
    ),
)
