"""Videos: WebVid and WebVidQA, MSRVTT and MSVD with captions and questions, ActivityNet Captions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from unival.datatools.corpora.coco import captions_by
from unival.datatools.corpora.official import Sources, seconds
from unival.datatools.corpora.records import AnswerList, Corpus, Option, Record, Source, Table, caption_tables
from unival.datatools.corpora.texts import TEXT, letters_and_digits
from unival.errors import DataError

_CAPTIONS, _QA = "video_data/caption_data", "video_data/vqa_data"
_PARTS = ("train", "val", "test")


def _webvid(sources: Sources) -> Iterator[Record]:
    for split in ("train", "val"):
        if split in sources:
            for row in sources.csv(split, ("videoid", "page_dir", "name")):
                name = row["videoid"]
                yield Record(
                    id=f"webvid{name}",
                    split=split,
                    media_id=name,
                    media={"id": name, "page_dir": row["page_dir"]},
                    captions=(row["name"],),
                    caption_ids=(f"webvid{name}",),
                )


def _webvidqa(sources: Sources) -> Iterator[Record]:
    """``webvidvqa.pkl``: video id -> {question: [...], answer: [...]}; the CSV of WebVid says the folder."""
    folders = {row["videoid"]: row["page_dir"] for row in sources.csv("train", ("videoid", "page_dir"))}
    file = sources.pickle("questions")
    for name, entry in file.mapping().items():
        where = f"video {name}"
        questions = file.need(entry, "question", list, where)
        answers = file.need(entry, "answer", list, where)
        if len(questions) != len(answers):
            raise DataError(
                f"{where}: {len(questions)} questions, {len(answers)} answers", path=str(file.path)
            )
        for number, (asked, answer) in enumerate(zip(questions, answers, strict=True)):
            question = str(asked[0] if isinstance(asked, list) and asked else asked)
            yield Record(
                id=f"webvidqa{name}_{number}",
                split="train" if str(name) in folders else "not in the training list",
                media_id=str(name),
                media={"id": name, "page_dir": folders.get(str(name), "")},
                question=question,
                answers={str(answer): 1.0} if str(answer).strip() else {},
            )


def _msrvtt(sources: Sources) -> Iterator[Record]:
    """``*_videodatainfo.json``: ``videos`` with their split, ``sentences`` with their video."""
    splits = {"train": "train", "validate": "val", "test": "test"}
    if sources.options["train-on"] == "train+val":
        splits["validate"] = "train"
    for source in ("trainval", "test"):
        if source not in sources:
            continue
        file = sources.json(source)
        grouped = captions_by(file, file.need(file.content, "sentences", list), "video_id", "sen_id")
        for number, video in enumerate(file.need(file.content, "videos", list)):
            where = f"video {number}"
            split, name = file.text(video, "split", where), file.text(video, "video_id", where)
            if split not in splits:
                raise DataError(
                    f"{where}: the split is '{split}'; expected {', '.join(splits)}", path=str(file.path)
                )
            captions = grouped.get(name, [])
            yield Record(
                id=name,
                split=splits[split],
                media_id=name,
                media={"id": name},
                captions=tuple(text for _, text in captions),
                caption_ids=tuple(f"{name}_{key}" for key, _ in captions),
            )


def _video_qa(sources: Sources, prefix: str) -> Iterator[Record]:
    """``{train,val,test}_qa.json``: lists of {id, video_id (a number), question, answer}."""
    names = _youtube_names(sources) if "mapping" in sources else {}
    rule = letters_and_digits if sources.options["text"] == "published" else str
    for part in _PARTS:
        if part not in sources:
            continue
        file = sources.json(part)
        for number, entry in enumerate(file.listing()):
            where = f"entry {number}"
            video = f"{prefix}{file.text(entry, 'video_id', where)}"
            if names and video not in names:
                raise DataError(
                    f"{where}: {video} is not in {sources.paths['mapping']}; expected lines 'YOUTUBE_ID {video}'",
                    path=str(file.path),
                )
            answer = rule(file.text(entry, "answer", where))
            yield Record(
                id=file.text(entry, "id", where),
                split=part,
                media_id=video,
                media={"id": video, "youtube": names.get(video, video)},
                question=rule(file.text(entry, "question", where)),
                answers={answer: 1.0} if answer.strip() else {},
            )


def _youtube_names(sources: Sources) -> dict[str, str]:
    """``youtube_mapping.txt``: lines "YOUTUBE_ID vid1"; returns vid1 -> YOUTUBE_ID in the file's order."""
    names = {}
    for number, line in sources.lines("mapping"):
        if line.strip():
            youtube, _, video = line.strip().rpartition(" ")
            if not youtube:
                raise DataError("expected 'YOUTUBE_ID vid1'", path=str(sources.paths["mapping"]), line=number)
            names[video] = youtube.strip()
    return names


def _msvd(sources: Sources) -> Iterator[Record]:
    """``AllVideoDescriptions.txt``: lines "YOUTUBE_ID caption"; splits by the number of the mapping file."""
    captions: dict[str, list[str]] = {}
    for _, line in sources.lines("descriptions"):
        name, _, text = line.strip().partition(" ")
        if text and not line.startswith("#"):
            captions.setdefault(name, []).append(text)
    train, val = sources.options["train-videos"], sources.options["val-videos"]
    for video, youtube in _youtube_names(sources).items():
        digits = video.removeprefix("vid")
        if not digits.isdecimal():
            raise DataError(
                f"the video is called '{video}'; expected vid1, vid2, ...", path=str(sources.paths["mapping"])
            )
        number = int(digits)
        yield Record(
            id=video,
            split="train" if number <= train else "val" if number <= train + val else "test",
            media_id=video,
            media={"id": video, "youtube": youtube},
            captions=tuple(captions.get(youtube, ())),
        )


def _activitynet(sources: Sources) -> Iterator[Record]:
    """``train.json``, ``val_2.json``: video -> {duration, timestamps, sentences}. A record is a segment.

    ``val_1.json`` describes the videos of ``val_2.json`` again, so it is no validation split.
    """
    for source, split in (("train", "train"), ("val-2", "test")):
        file = sources.json(source)
        for name, entry in file.mapping().items():
            times = file.need(entry, "timestamps", list, name)
            sentences = file.need(entry, "sentences", list, name)
            if len(times) != len(sentences):
                raise DataError(
                    f"{name}: {len(times)} timestamps, {len(sentences)} sentences", path=str(file.path)
                )
            for number, (time, sentence) in enumerate(zip(times, sentences, strict=True)):
                if not isinstance(time, list) or len(time) != 2:
                    raise DataError(f"{name}: a timestamp is {time!r}, not [start, end]", path=str(file.path))
                yield Record(
                    id=f"{name}_{number}",
                    split=split,
                    media_id=name,
                    media={
                        "id": name,
                        "segment": number,
                        "clip": (name, *(seconds(t, file.path, name) for t in time)),
                    },
                    captions=(str(sentence),),
                    caption_ids=(f"{name}_{number}",),
                )


def _tables(name: str, test: str) -> tuple[Table, ...]:
    return caption_tables(
        "video_caption", *(f"{_CAPTIONS}/{name}_caption_{part}" for part in ("train", "val", test))
    )


WEBVID = Corpus(
    name="webvid",
    title="WebVid",
    modality="video",
    sources=(Source("train", "results_2M_train.csv"), Source("val", "results_2M_val.csv", False)),
    read=_webvid,
    media="{page_dir}/{id}.mp4",
    options=(TEXT,),
    tables=(
        Table("pretrain_ours/parts/webvid_video_caption", "pretrain", kind="video_caption", dataset="webvid"),
        Table(f"{_CAPTIONS}/webvid_val", "video_caption", ("val",), joined=True, text="letters"),
    ),
)

WEBVIDQA = Corpus(
    name="webvidqa",
    title="WebVidVQA3M",
    modality="video",
    sources=(Source("questions", "webvidvqa.pkl"), Source("train", "results_2M_train.csv")),
    read=_webvidqa,
    media="{page_dir}/{id}.mp4",
    options=(TEXT,),
    tables=(Table("pretrain_ours/parts/webvid_video_qa", "pretrain", kind="video_qa", dataset="webvidqa"),),
)

MSRVTT = Corpus(
    name="msrvtt",
    title="MSR-VTT captions",
    modality="video",
    sources=(
        Source("trainval", "train_val_videodatainfo.json"),
        Source("test", "test_videodatainfo.json", False),
    ),
    read=_msrvtt,
    media="{id}.mp4",
    options=(
        Option(
            "train-on",
            "train",
            "train: the official 6,513 videos; train+val: also the 497 validation videos, as the reference does "
            "(train7k), which leaves none to choose a checkpoint on",
            ("train", "train+val"),
        ),
        TEXT,
    ),
    tables=_tables("msrvtt", "test3k"),
)


def _qa_corpus(name: str, title: str, prefix: str, top: int, mapped: bool) -> Corpus:
    size = f"{top // 1000}k"
    stem = f"{_QA}/{name}_{size}"
    mapping = (Source("mapping", "youtube_mapping.txt", False, "number -> YouTube name"),) if mapped else ()
    return Corpus(
        name=name,
        title=title,
        modality="video",
        sources=(*(Source(p, f"{p}_qa.json", p == "train") for p in _PARTS), *mapping),
        read=partial(_video_qa, prefix=prefix),
        media="{youtube}.avi" if mapped else "{id}.mp4",
        options=(TEXT,),
        answers=AnswerList(
            f"{_QA}/{name.removesuffix('_qa')}_trainval_{size}_ans2label", min_count=1, max_answers=top
        ),
        tables=(
            Table(f"{stem}_train", "video_vqa", shuffled=True, closed=True),
            Table(f"{stem}_val", "video_vqa", ("val",)),
            Table(f"{stem}_test", "video_vqa", ("test",)),
        ),
    )


MSRVTT_QA = _qa_corpus("msrvtt_qa", "MSRVTT-QA", "video", 4000, False)
MSVD_QA = _qa_corpus("msvd_qa", "MSVD-QA", "vid", 1000, True)

MSVD = Corpus(
    name="msvd",
    title="MSVD captions",
    modality="video",
    sources=(Source("descriptions", "AllVideoDescriptions.txt"), Source("mapping", "youtube_mapping.txt")),
    read=_msvd,
    media="{youtube}.avi",
    options=(
        Option("train-videos", 1200, "the first videos of the mapping are for training"),
        Option("val-videos", 100, "the next for validation, the rest for testing"),
        TEXT,
    ),
    tables=_tables("msvd", "test"),
)

ACTIVITYNET = Corpus(
    name="activitynet",
    title="ActivityNet Captions",
    modality="video",
    sources=(Source("train", "train.json"), Source("val-2", "val_2.json")),
    read=_activitynet,
    media="{id}_{segment}.mp4",
    options=(TEXT,),
    hold_out=500,
    segments="video_data/activitynet_segments.jsonl",
    tables=_tables("activitynet", "val2"),
)
