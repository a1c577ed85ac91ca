"""Sounds with captions: AudioCaps and Clotho."""

from __future__ import annotations

from collections.abc import Iterator

from unival.datatools.corpora.official import Sources, seconds
from unival.datatools.corpora.records import Corpus, Record, Source, Table, caption_tables
from unival.datatools.corpora.texts import TEXT

_CAPTIONS = "audio_data/caption_data"
_CLIP = 10.0  # seconds
_CLOTHO = {"development": "train", "validation": "val", "evaluation": "test"}


def _audiocaps(sources: Sources) -> Iterator[Record]:
    """``{train,val,test}.csv``: audiocap_id, youtube_id, start_time, caption; clips of 10 seconds."""
    for split in ("train", "val", "test"):
        if split not in sources:
            continue
        clips: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for row in sources.csv(split, ("audiocap_id", "youtube_id", "start_time", "caption")):
            clip = clips.setdefault((row["youtube_id"], row["start_time"]), [])
            clip.append((row["audiocap_id"], row["caption"]))
        for (youtube, start), captions in clips.items():
            begin = seconds(start, sources.paths[split], f"clip {captions[0][0]}")
            yield Record(
                id=captions[0][0],
                split=split,
                media_id=youtube,
                media={
                    "youtube": youtube,
                    "start": start,
                    "split": split,
                    "id": captions[0][0],
                    "clip": (youtube, begin, begin + _CLIP),
                },
                captions=tuple(text for _, text in captions),
                caption_ids=tuple(name for name, _ in captions),
            )


def _clotho(sources: Sources) -> Iterator[Record]:
    """``clotho_captions_{development,validation,evaluation}.csv``: file_name, caption_1 to caption_5."""
    columns = tuple(f"caption_{n}" for n in range(1, 6))
    for part, split in _CLOTHO.items():
        if part in sources:
            for number, row in enumerate(sources.csv(part, ("file_name", *columns))):
                yield Record(
                    id=f"{part}{number}",
                    split=split,
                    media_id=row["file_name"],
                    media={"folder": part, "file": row["file_name"]},
                    captions=tuple(row[c] for c in columns),
                )


def _tables(name: str, train: str, val: str, test: str) -> tuple[Table, ...]:
    return caption_tables("audio_caption", *(f"{_CAPTIONS}/{name}_{part}" for part in (train, val, test)))


AUDIOCAPS = Corpus(
    name="audiocaps",
    title="AudioCaps",
    modality="audio",
    sources=tuple(Source(s, f"{s}.csv", s == "train") for s in ("train", "val", "test")),
    read=_audiocaps,
    media="{youtube}_{start}.wav",
    options=(TEXT,),
    segments="audio_data/audiocaps_segments.jsonl",
    tables=(
        *_tables("audiocaps", "train", "val", "test"),
        Table("pretrain_ours/parts/audiocaps_audio", "pretrain", kind="audio_caption", dataset="audiocaps"),
    ),
)

CLOTHO = Corpus(
    name="clotho",
    title="Clotho",
    modality="audio",
    sources=tuple(Source(p, f"clotho_captions_{p}.csv", p == "development") for p in _CLOTHO),
    read=_clotho,
    media="{folder}/{file}",
    options=(TEXT,),
    hold_out=290,
    tables=(*_tables("clotho", *_CLOTHO),),
)
