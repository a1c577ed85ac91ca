"""Questions on pictures: VQA v2 (with Visual Genome's questions), OK-VQA, VizWiz, GQA."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from unival.core.seeding import rng_for
from unival.datatools.corpora.answers import ROWS, WEIGHTS, confidences
from unival.datatools.corpora.official import Sources
from unival.datatools.corpora.records import AnswerList, Corpus, Option, Record, Source, Table
from unival.datatools.corpora.texts import TEXT
from unival.datatools.corpora.visual_genome import image_name, vg_images
from unival.errors import ConfigError, DataError


def _official(sources: Sources, part: str, coco: str) -> Iterator[dict[str, Any]]:
    """Yield the fields of a Record, but for its split, of one part in the official VQA format."""
    questions = sources.json(f"{part}-questions")
    humans: dict[str, tuple[str, ...]] = {}
    if f"{part}-annotations" in sources:
        humans = sources.once(f"{part}-answers", lambda: _answers(sources, f"{part}-annotations"))
    for number, entry in enumerate(questions.need(questions.content, "questions", list)):
        where = f"question {number}"
        image = questions.text(entry, "image_id", where)
        name = questions.text(entry, "question_id", where)
        if humans and name not in humans:
            raise DataError(
                f"question {name} has no annotation; question and annotation files of '{part}' do not belong "
                "together",
                path=str(questions.path),
            )
        file_name = f"COCO_{coco}_{int(image):012d}.jpg" if image.isdecimal() else image
        yield {
            "id": name,
            "media_id": image,
            "media": {"folder": coco, "file": file_name, "id": image},
            "question": questions.text(entry, "question", where),
            **_answered(sources, humans.get(name, ())),
        }


def _answers(sources: Sources, name: str) -> dict[str, tuple[str, ...]]:
    """Return question id -> what each person answered."""
    file = sources.json(name, keep=False)
    answers = {}
    for number, entry in enumerate(file.need(file.content, "annotations", list)):
        where = f"annotation {number}"
        said = (file.text(a, "answer", where) for a in file.need(entry, "answers", list, where))
        answers[file.text(entry, "question_id", where)] = tuple(map(sys.intern, said))
    return answers


def _answered(sources: Sources, said: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a Record that hold answers."""
    return {"answers": confidences(said, sources.options["answer-weights"]), "humans": said}


def _vqa(sources: Sources) -> Iterator[Record]:
    """Train, val with the reserved images, test, and Visual Genome's questions as training rows."""
    for fields in _official(sources, "train", "train2014"):
        yield Record(split="train", group=_TRAIN, **fields)
    if "val-questions" in sources:
        rows = list(_official(sources, "val", "val2014"))
        images = sorted({fields["media_id"] for fields in rows})
        count = sources.options["reserved-images"]
        if not 0 < count <= len(images):
            raise ConfigError(
                f"--reserved-images is {count}; VQA v2 val has {len(images)} images here: give 1 to {len(images)}"
            )
        order = rng_for(sources.seed, 0, 0, "vqa reserved images").permutation(len(images))
        reserved = {images[i] for i in order[:count]}
        apart = sources.options["train-on"] == "train"
        rest, group = ("restval", _FULL) if apart else ("train", "val2014")
        for fields in rows:
            split = "val" if fields["media_id"] in reserved else rest
            yield Record(split=split, group=group, **fields)
    if "test-questions" in sources:
        for fields in _official(sources, "test", "test2015"):
            yield Record(split="test", **fields)
    if "vg-questions" in sources:
        yield from _vg_questions(sources)


def _vg_questions(sources: Sources) -> Iterator[Record]:
    images = vg_images(sources)
    file = sources.json("vg-questions")
    for number, image in enumerate(file.listing()):
        where = f"image {number}"
        name = file.text(image, "id", where)
        known = images(name)
        for entry in file.need(image, "qas", list, where):
            said = file.text(entry, "answer", where)
            yield Record(
                id=f"vg{file.text(entry, 'qa_id', where)}",
                split="train",
                group=_VG,
                root="vg",
                media_id=known.media_id,
                media={"folder": known.folder, "file": image_name(name), "id": name},
                question=file.text(entry, "question", where),
                answers=confidences([said]),
            )


def _okvqa(sources: Sources) -> Iterator[Record]:
    for part in ("train", "val"):
        if f"{part}-questions" in sources:
            for fields in _official(sources, part, f"{part}2014"):
                yield Record(split=part, **fields)


def _vizwiz(sources: Sources) -> Iterator[Record]:
    """``train.json``, ``val.json``, ``test.json``: lists of {image, question, answers}; test has no answers."""
    for part in ("train", "val", "test"):
        if part not in sources:
            continue
        file = sources.json(part)
        for number, entry in enumerate(file.listing()):
            where = f"entry {number}"
            image = file.text(entry, "image", where)
            humans = [] if part == "test" else file.need(entry, "answers", list, where)
            yield Record(
                id=image,
                split=part,
                media_id=image,
                media={"folder": part, "file": image},
                question=file.text(entry, "question", where),
                **_answered(sources, tuple(file.text(a, "answer", where) for a in humans)),
            )


def _gqa(sources: Sources) -> Iterator[Record]:
    """Files (or a folder of files) of question id -> {question, answer, imageId}."""
    images = vg_images(sources)
    for part in ("train", "val", "testdev"):
        if part not in sources:
            continue
        for file in sources.json_files(part):
            for name, entry in file.mapping().items():
                where = f"question {name}"
                image = file.text(entry, "imageId", where)
                yield Record(
                    id=f"gqa{name}",
                    split="test" if part == "testdev" else part,
                    media_id=images(image).media_id,
                    media={"file": image_name(image), "id": image},
                    question=file.text(entry, "question", where),
                    answers={file.text(entry, "answer", where): 1.0},
                )


def _pair(part: str, questions: str, annotations: str, required: bool = True) -> tuple[Source, Source]:
    return Source(f"{part}-questions", questions, required), Source(
        f"{part}-annotations", annotations, required
    )


_VQA_MEDIA = "{folder}/{file}"
# groups of VQA v2's records: what is pretrained on, the whole of val where it is not trained on, Visual Genome's
_TRAIN, _FULL, _VG = "train2014", "fullval", "vg"

VQA = Corpus(
    name="vqa",
    title="VQA v2",
    modality="image",
    sources=(
        *_pair(
            "train", "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"
        ),
        *_pair(
            "val", "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json", False
        ),
        Source("test-questions", "v2_OpenEnded_mscoco_test2015_questions.json", False),
        Source(
            "vg-questions",
            "question_answers.json",
            help="Visual Genome's questions, training rows of the published tables; none: without them",
            refusable=True,
        ),
        Source("vg-images", "image_data.json", False, "which images of Visual Genome are COCO's"),
    ),
    read=_vqa,
    media=_VQA_MEDIA,
    roots={"vg": _VQA_MEDIA},
    options=(
        WEIGHTS,
        ROWS,
        TEXT,
        Option("reserved-images", 2000, "images of val kept for validation (vqa_val)"),
        Option(
            "train-on",
            "train+val",
            "train+val: val without the reserved images is trained on; train: it is not, and vqa_fullval, the whole "
            "of val, is written",
            ("train+val", "train"),
        ),
    ),
    answers=AnswerList(
        "vqa_data/trainval_ans2label", min_count=9, splits=("train", "val", "restval"), uncounted=(_VG,)
    ),
    tables=(
        Table("vqa_data/vqa_train", "vqa", shuffled=True, closed=True),
        Table("vqa_data/vqa_val", "vqa", ("val",), humans=True),
        Table("vqa_data/vqa_test", "vqa", ("test",)),
        Table("vqa_data/vqa_fullval", "vqa", ("val", "restval"), groups=(_FULL,), humans=True),
        Table("pretrain_ours/parts/vqa_qa", "pretrain", groups=(_TRAIN,), kind="qa", dataset="vqa"),
        Table("pretrain_ours/parts/vqa_vg_qa", "pretrain", groups=(_VG,), kind="qa", dataset="vqa_vg"),
    ),
)

OKVQA = Corpus(
    name="okvqa",
    title="OK-VQA",
    modality="image",
    sources=(
        *_pair(
            "train", "OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json", False
        ),
        *_pair("val", "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
    ),
    read=_okvqa,
    media=_VQA_MEDIA,
    options=(WEIGHTS, ROWS),
    answers=AnswerList("vqa_data/okvqa_trainval_ans2label", min_count=1),
    tables=(
        Table("vqa_data/okvqa_train", "vqa", closed=True),
        Table("vqa_data/okvqa_acc_val", "vqa", ("val",), humans=True),
    ),
)

VIZWIZ = Corpus(
    name="vizwiz",
    title="VizWiz",
    modality="image",
    sources=(
        Source("train", "train.json", False),
        Source("val", "val.json"),
        Source("test", "test.json", False),
    ),
    read=_vizwiz,
    media=_VQA_MEDIA,
    options=(WEIGHTS, ROWS),
    answers=AnswerList("vqa_data/vizwiz_trainval_ans2label", min_count=1),
    tables=(
        Table("vqa_data/vizwiz_train", "vqa", closed=True),
        Table("vqa_data/vizwiz_acc_val", "vqa", ("val",), humans=True),
        Table("vqa_data/vizwiz_test", "vqa", ("test",)),
    ),
)

GQA = Corpus(
    name="gqa",
    title="GQA",
    modality="image",
    sources=(
        Source("train", "train_balanced_questions.json", help="or the folder train_all_questions"),
        Source("val", "val_balanced_questions.json", False),
        Source("testdev", "testdev_balanced_questions.json", False),
        Source("vg-images", "image_data.json", False, "which images of Visual Genome are COCO's"),
    ),
    read=_gqa,
    media="{file}",
    options=(TEXT,),
    tables=(
        Table("vqa_data/gqa_val", "vqa", ("val",)),
        Table("vqa_data/gqa_testdev", "vqa", ("test",)),
        Table("pretrain_ours/parts/gqa_qa", "pretrain", kind="qa", dataset="gqa"),
    ),
)
