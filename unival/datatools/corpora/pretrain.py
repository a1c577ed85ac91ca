"""Pretraining tables from the parts that corpora wrote, and what wrong captions and answers are drawn from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from unival.core.seeding import rng_for
from unival.datatools.corpora.report import Report
from unival.datatools.corpora.write import Output, permuted
from unival.errors import DataError
from unival.tables import open_table
from unival.tables.index import open_index
from unival.tables.row import Row
from unival.vocabulary.cleaning import clean_question, parse_answers, split_joined

_CAPTION = ("coco_caption", "sbu_caption", "cc3m_caption", "vg_caption")
_QA = ("vqa_qa", "vqa_vg_qa", "gqa_qa")
_GROUND = ("refcoco_ground", "refcocoplus_ground", "refcocog_ground", "vg_ground")

# table of the pretraining recipes -> the parts it is made of (paper, section 3.3; reference names)
MERGES = {
    "vision_language_caption": _CAPTION,
    "vision_language_qa": _QA,
    "vision_language_ground": _GROUND,
    "cc12m": ("cc12m_caption",),
    "vision_language_mini_vqa_ground": (*_CAPTION, *_QA, *_GROUND),
    "video_mini_webvid2mccapqa": ("webvid_video_caption", "webvid_video_qa"),
    "audio_caption": ("audiocaps_audio",),
}
# negatives -> the merged tables they are read from
_NEGATIVES = {
    "all_captions.txt": "vision_language_caption",
    "all_captions_video.txt": "video_mini_webvid2mccapqa",
    "all_captions_audio.txt": "audio_caption",
}
OTHER = "other"


def merge(out: Path, seed: int = 7, min_object_count: int = 1) -> Report:
    """Merge and shuffle the parts below ``out/pretrain_ours/parts``; write the negatives beside them.

    Writes ``out/pretrain_ours/NAME.tsv`` for every name of ``MERGES`` that has a part, and
    ``negative_sample/{all_captions.txt,object.txt,type2ans.json}``; wrong captions of videos and sounds get
    files of their own. Raises DataError when there are no parts.
    """
    folder = out / "pretrain_ours"
    report, output = Report("pretrain"), Output()
    try:
        merged: dict[str, list[Path]] = {}
        for name, parts in MERGES.items():
            present = [folder / "parts" / f"{part}.tsv" for part in parts]
            report.notes += [f"{name}: without {p.stem}, not prepared" for p in present if not p.is_file()]
            present = [p for p in present if p.is_file()]
            if present:
                merged[name] = present
                offsets = [(p, open_index(str(p)).offsets[:, 0]) for p in present]
                count = sum(len(o) - 1 for _, o in offsets)
                order = rng_for(seed, 0, 0, f"merge {name}").permutation(count)
                report.tables[f"pretrain_ours/{name}.tsv"] = permuted(
                    offsets, order, output.new(folder / f"{name}.tsv")
                )
        if not merged:
            raise DataError(
                "there are no parts to merge; prepare corpora first, such as 'unival data prepare coco'",
                path=str(folder / "parts"),
            )
        _negatives(merged, folder / "negative_sample", output, report, min_object_count)
        output.text(out / "reports" / "pretrain.json", report.to_json())
        output.commit()
    finally:
        output.discard()
    return report


def _rows(merged: dict[str, list[Path]], name: str) -> Iterator[Row]:
    for part in merged.get(name, ()):
        yield from open_table(str(part), layout="pretrain", header=False)


def _negatives(
    merged: dict[str, list[Path]], folder: Path, output: Output, report: Report, min_object_count: int
) -> None:
    objects: Counter[str] = Counter()
    for file, name in _NEGATIVES.items():
        captions = []
        for row in _rows(merged, name):
            captions.append(row["caption"])
            objects.update(split_joined(row["objects"]))
        lines = list(unique(captions))
        if lines or file == "all_captions.txt":
            _lines(output, folder / file, lines, report)
    for row in _rows(merged, "vision_language_ground"):
        objects.update(split_joined(row["objects"]))
    named = sorted((o for o, n in objects.items() if n >= min_object_count), key=lambda o: (-objects[o], o))
    _lines(output, folder / "object.txt", named, report)
    asked = (
        (row["question"], row["refs"])
        for name in ("vision_language_qa", "video_mini_webvid2mccapqa")
        for row in _rows(merged, name)
        if row["question"]
    )
    types = answer_types(asked)
    output.text(folder / "type2ans.json", json.dumps(types, ensure_ascii=False, indent=0) + "\n")
    report.tables["pretrain_ours/negative_sample/type2ans.json"] = len(types)


def _lines(output: Output, place: Path, lines: list[str], report: Report) -> None:
    output.text(place, "".join(f"{line}\n" for line in lines))
    report.tables[f"pretrain_ours/negative_sample/{place.name}"] = len(lines)


def unique(texts: Iterable[str]) -> Iterator[str]:
    """Yield each text once, remembering eight bytes of it: there are millions."""
    seen: set[bytes] = set()
    for text in texts:
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
        if text and digest not in seen:
            seen.add(digest)
            yield text


def answer_types(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group best answers by the first two words of their questions ("how many", "what color"), as
    ``NegativePool.from_texts`` does; a group of one answer joins "other", which is always there."""
    types: dict[str, dict[str, None]] = {}
    for question, refs in pairs:
        answers = parse_answers(refs)
        kind = " ".join(clean_question(question).split()[:2])
        types.setdefault(kind, {})[max(answers, key=answers.__getitem__)] = None
    found = {kind: sorted(answers) for kind, answers in sorted(types.items()) if len(answers) > 1}
    rest = sorted({a for answers in types.values() if len(answers) == 1 for a in answers})
    found[OTHER] = sorted({*found.get(OTHER, []), *rest})
    return found
