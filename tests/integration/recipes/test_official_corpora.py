"""Miniature corpora in the official formats, all the way: tables, a short finetuning and an evaluation by the shipped
recipes, the results file; and the numbers once more with the official tools, from the official files.

The VQA accuracy is computed by the loops of the official vqaEval, captions by pycocoevalcap, pictures by open_clip.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.support.imagegen_fixtures import CODES, clip_files, vqgan_file
from tests.support.needs import skip_without
from unival.cli import main
from unival.core.seeding import rng_for

skip_without("fairseq")
pytest.importorskip("pycocoevalcap")

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
TINY = {
    "arch": "unival_tiny",
    "model": {
        "encoder_embed_dim": 32, "decoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "decoder_ffn_embed_dim": 64,
        "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "resnet_type": "resnet10t", "video_encoder_name": "all_resnext14",
        "image_bucket_size": 8, "token_bucket_size": 32,
        "freeze_encoder_embedding": False, "freeze_decoder_embedding": False, "freeze_video_encoder": True,
        "freeze_audio_encoder": True, "freeze_image_encoder": True,
        "resnet_model_path": None, "video_model_path": None, "audio_model_path": None,
    },
    "inputs": {
        "patch_image_size": 32, "patch_frame_size": 32, "num_frames": 2, "code_image_size": 32,
        "sample_rate": 16000, "max_audio_len": 8000,
    },
    "optimization": {
        "batch_size": 11, "update_freq": 1, "max_update": 6, "total_num_update": None, "bf16": False, "fp16": False,
        "lr": 5.0e-3, "clip_norm": 1.0,
    },
    "checkpoint": {
        "init_from": None, "finetune_from_model": None, "networks_from_scratch": True, "no_save_optimizer_state": True,
        "save_interval": 100,
    },
    "run": {"num_workers": 0},
}  # fmt: skip


class Place:
    """The three roots of a run; official files in ``official``, media of a small rendered world."""

    def __init__(self, root: Path) -> None:
        from unival.datatools.world import render

        self.data, self.weights, self.out, self.official = (
            root / n for n in ("data", "weights", "out", "official")
        )
        self.world = root / "world"
        sizes = {"images": 24, "clips": 14, "sounds": 14, "image_size": 32, "video_size": 32}
        render(self.world, seed=4, vocabulary_size=400, num_codes=CODES, **sizes)
        shutil.copytree(self.world / "vocabulary", self.weights / "bpe")

    def rows(self, table: str) -> list[list[str]]:
        text = (self.world / f"tables/{table}.tsv").read_text(encoding="utf-8")
        return [line.split("\t") for line in text.splitlines()]

    def write(self, name: str, content: Any) -> None:
        path = self.official / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")

    def medium(self, source: str, name: str) -> None:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.symlink_to(self.world / source)

    def run(self, *words: Any) -> None:
        assert main([str(word) for word in words]) == 0, words

    def prepare(self, corpus: str, *options: str) -> None:
        folder = self.official / corpus
        self.run("data", "prepare", corpus, "--annotations", folder, "--check-media", *options)
        report = json.loads((self.data / f"ofa/reports/{corpus}.json").read_text())
        assert not report["missing_media"]["count"], "all media are where the official names say"

    def recipe(self, name: str, **sections: Mapping[str, Any]) -> Path:
        """A shipped recipe with a tiny model and a few updates laid over it."""
        content: dict[str, Any] = {"extends": str(CONFIGS / name)}
        trains = name.startswith("finetune/")
        for key, value in TINY.items():
            if trains or key == "inputs":
                content[key] = dict(value) if isinstance(value, dict) else value
        for key, value in sections.items():
            content[key] = {**content.get(key, {}), **value}
        path = self.out / "recipes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
        return path

    def finetune(self, name: str, **sections: Mapping[str, Any]) -> Path:
        self.run("train", self.recipe(f"finetune/{name}.yaml", **sections))
        return self.out / "finetune" / name / "checkpoint_last.pt"

    def evaluate(self, name: str, checkpoint: Path, *words: str, **sections: Mapping[str, Any]) -> Evaluated:
        out = self.out / "evaluate" / name
        recipe = self.recipe(f"evaluate/{name}.yaml", **sections)
        self.run("evaluate", checkpoint, "--recipe", recipe, "--out", out, *words)
        return Evaluated(out)


class Evaluated:
    """What an evaluation wrote."""

    def __init__(self, folder: Path) -> None:
        result = json.loads((folder / "result.json").read_text())
        self.folder, self.metrics, self.coverage = folder, result["metrics"], result["coverage"]
        self.saved = folder / "predictions.jsonl"
        lines = map(json.loads, self.saved.read_text().splitlines())
        self.predictions = {line["id"]: line["prediction"] for line in lines}

    def results(self, references: Path, *words: str) -> list[dict[str, Any]]:
        """The file for EvalAI, and ``scores`` from the official annotations."""
        place, scores = self.folder / "results.json", self.folder / "scores.json"
        command = ["score", self.saved, references, "--results", place, "--out", scores, *words]
        assert main([str(word) for word in command]) == 0
        self.scores = json.loads(scores.read_text())
        return json.loads(place.read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Place(tmp_path_factory.mktemp("official"))
        for name in ("data", "weights", "out"):
            monkeypatch.setenv(f"UNIVAL_{name.upper()}", str(getattr(made, name)))
        yield made


# ---------------------------------------------------------------------------------------------- questions


def said(best: str, number: int) -> list[str]:
    """Ten answers to a question, from all alike to mostly another, not all in normal form."""
    rest = ["Red.", "two", "a circle", "dont know", "the left", "red", "yes"]
    draw = rng_for(7, 0, number, "official answers")
    agree = int(draw.integers(1, 11))
    return [*([best] * agree), *(rest[int(k)] for k in draw.integers(0, len(rest), 10 - agree))]


def question_files(
    place: Place, folder: str, questions: str, annotations: str, part: str, split: str
) -> None:
    """An official pair of files on pictures of the world, which get COCO's names."""
    asked, answered = [], []
    for number, row in enumerate(place.rows(f"vqa_{split}")):
        image = 1000 * len(split) + int(re.sub(r"\D", "", row[1]) or 0)
        place.medium(row[5], f"{part}/COCO_{part}_{image:012d}.jpg")
        key = 10 * image + number
        asked.append({"image_id": image, "question_id": key, "question": row[2]})
        people = said(row[3].split("&&")[0].partition("|!+")[2], number)
        answered.append({
            "question_id": key, "image_id": image, "question_type": "what", "answer_type": "other",
            "multiple_choice_answer": people[0],
            "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(people, 1)],
        })  # fmt: skip
    place.write(f"{folder}/{questions}", {"info": {}, "questions": asked})
    place.write(f"{folder}/{annotations}", {"info": {}, "annotations": answered})


PUNCTUATION = [
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
]
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}


def official_normal_form(text: str) -> str:
    """vqaEval.processPunctuation and processDigitArticle; of the contractions, the one that the answers use."""
    out = text
    for mark in PUNCTUATION:
        if mark + " " in text or " " + mark in text or re.search(r"\d,\d", text):
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    out = re.sub(r"(?!<=\d)(\.)(?!\d)", "", out, count=32)
    words = [NUMBERS.get(word, word) for word in out.lower().split()]
    return " ".join({"dont": "don't"}.get(word, word) for word in words if word not in ("a", "an", "the"))


def official_vqa_accuracy(annotations: list[dict[str, Any]], answers: Mapping[Any, str], key: str) -> float:
    """The loop of vqaEval.evaluate, to full precision: it rounds the percentage to two decimals."""
    accuracies = []
    for entry in annotations:
        given = answers[entry[key]].replace("\n", " ").replace("\t", " ").strip()
        people = [a["answer"].replace("\n", " ").replace("\t", " ").strip() for a in entry["answers"]]
        if len(set(people)) > 1:
            people = [official_normal_form(text) for text in people]
            given = official_normal_form(given)
        each = []
        for number in range(len(people)):
            others = people[:number] + people[number + 1 :]
            each.append(min(1, float(len([text for text in others if text == given])) / 3))
        accuracies.append(sum(each) / len(each))
    return sum(accuracies) / len(accuracies)


@pytest.fixture(scope="module")
def answering(place: Place) -> Path:
    """VQA v2: tables, finetuning."""
    names = "v2_OpenEnded_mscoco_{}2014_questions.json", "v2_mscoco_{}2014_annotations.json"
    for part, split in (("train", "train"), ("val", "val")):
        question_files(place, "vqa", *(n.format(part) for n in names), f"{part}2014", split)
    test = json.loads((place.official / "vqa" / names[0].format("val")).read_text())
    for entry in test["questions"]:
        entry["image_id"] += 500_000
        entry["question_id"] += 5_000_000
        place.medium(place.rows("vqa_test")[0][5], f"test2015/COCO_test2015_{entry['image_id']:012d}.jpg")
    place.write("vqa/v2_OpenEnded_mscoco_test2015_questions.json", test)
    picture = place.rows("vqa_train")[0][5]
    place.medium(picture, "VG_100K/7.jpg")
    qas = [{"qa_id": 1, "question": "What colour is it?", "answer": "Red."}]
    place.write("vqa/question_answers.json", [{"id": 7, "qas": qas}])
    place.prepare("vqa", "--reserved-images", "1", "--min-answer-count", "1", "--train-on", "train")
    return place.finetune("vqa_v2")


@pytest.mark.parametrize("corpus", ["v2_fullval", "okvqa", "vizwiz"])
def test_questions(place: Place, answering: Path, corpus: str) -> None:
    key, ids = "question_id", ["--ids", "int"]
    if corpus == "v2_fullval":
        annotations = place.official / "vqa/v2_mscoco_val2014_annotations.json"
    elif corpus == "okvqa":
        for part, split in (("train", "train"), ("val", "test")):
            pair = f"OpenEnded_mscoco_{part}2014_questions.json", f"mscoco_{part}2014_annotations.json"
            question_files(place, "okvqa", *pair, f"{part}2014", split)
        annotations = place.official / "okvqa/mscoco_val2014_annotations.json"
    else:
        for part, split in (("train", "train"), ("val", "test")):
            entries = []
            for number, row in enumerate(place.rows(f"vqa_{split}")):
                name = f"VizWiz_{part}_{number:08d}.jpg"
                place.medium(row[5], f"{part}/{name}")
                people = said(row[3].split("&&")[0].partition("|!+")[2], number)
                answers = [{"answer": a, "answer_confidence": "yes"} for a in people]
                entries.append({"image": name, "question": row[2], "answers": answers, "answer_type": "other",
                                "answerable": 1})  # fmt: skip
            place.write(f"vizwiz/{part}.json", entries)
        annotations, key, ids = place.official / "vizwiz/val.json", "image", []
    if corpus != "v2_fullval":
        place.prepare(corpus)
    file = place.out / f"{corpus}.json"
    done = place.evaluate(f"vqa_{corpus}", answering, "--protocol", "official", "--results", str(file))
    content = json.loads(annotations.read_text())
    entries = content if corpus == "vizwiz" else content["annotations"]
    assert done.coverage == 1 and len(done.predictions) == len(entries) >= 3

    predictions = {key_of(name, ids): text for name, text in done.predictions.items()}
    direct = official_vqa_accuracy(entries, predictions, key)
    assert 0 < direct < 1
    per_item = [json.loads(line) for line in (done.folder / "scores.jsonl").read_text().splitlines()]
    assert done.metrics["vqa_accuracy"] == round(100 * direct, 2) / 100, "rounded as the official tool does"
    assert done.metrics["vqa_score"] == pytest.approx(direct, abs=1e-9), (
        "the table's confidences say the same"
    )
    assert np.mean([line["vqa_accuracy"] for line in per_item]) == pytest.approx(direct, abs=1e-6)
    for results in (done.results(annotations, "--task", "vqa", *ids), json.loads(file.read_text())):
        assert {row[key]: row["answer"] for row in results} == predictions
    assert done.scores["scores"]["accuracy"] == round(100 * direct, 2) / 100
    exact = np.mean([item["accuracy"] for item in done.scores["per_item"].values()])
    assert exact == pytest.approx(direct, abs=1e-9)


def test_questions_without_public_answers(place: Place, answering: Path) -> None:
    file = place.out / "test-dev.json"
    done = place.evaluate("vqa_v2", answering, "--results", str(file))
    asked = json.loads((place.official / "vqa/v2_OpenEnded_mscoco_test2015_questions.json").read_text())
    rows = json.loads(file.read_text())
    assert {row["question_id"] for row in rows} == {entry["question_id"] for entry in asked["questions"]}
    assert all(row.keys() == {"question_id", "answer"} for row in rows) and not done.metrics


def key_of(name: str, ids: list[str]) -> Any:
    return int(name) if ids else name


# ----------------------------------------------------------------------------------------------- captions


def official_caption_scores(references: dict[Any, list[str]], captions: dict[Any, str]) -> dict[str, float]:
    """BLEU, ROUGE-L and CIDEr by pycocoevalcap, with its PTB tokeniser (Java) where there is one."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    gts = {key: [{"caption": text} for text in texts] for key, texts in references.items()}
    res = {key: [{"caption": text}] for key, text in captions.items()}
    if shutil.which("java"):
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        gts, res = (PTBTokenizer().tokenize(texts) for texts in (gts, res))
    else:
        from unival.metrics import ptb_tokenize

        gts, res = (
            {k: [" ".join(ptb_tokenize(c["caption"])) for c in v] for k, v in d.items()} for d in (gts, res)
        )
    bleu = Bleu(4).compute_score(gts, res, verbose=0)[0]
    scores = {f"Bleu_{n}": value for n, value in enumerate(bleu, 1)}
    return scores | {
        "ROUGE_L": Rouge().compute_score(gts, res)[0],
        "CIDEr": Cider().compute_score(gts, res)[0],
    }


def worded(other: bool) -> list[str]:
    """Captions with capitals and punctuation that a tiny network learns in a few updates; or others, never learnt."""
    if other:
        return ["It's bright up there, isn't it?", "Three stars shine."]
    return [
        "A circle moves to the left.",
        "A circle, it moves to the left!",
        "A circle moves to the left; isn't it?",
    ]


def msrvtt(place: Place) -> tuple[str, ...]:
    videos, sentences = [], []
    for split, name in (("train", "train"), ("val", "validate"), ("test", "test")):
        rows = place.rows(f"video_caption_{split}")
        for row in rows:
            video = f"video{len(videos)}"
            place.medium(row[4], f"msrvtt/{video}.mp4")
            videos.append({"video_id": video, "split": name, "category": 1})
            for text in worded(split == "test" and row is rows[-1]):
                sentences.append({"video_id": video, "sen_id": len(sentences), "caption": text})
    test = {video["video_id"] for video in videos if video["split"] == "test"}
    for name, inside in (("train_val", False), ("test", True)):
        place.write(f"msrvtt/{name}_videodatainfo.json", {
            "videos": [v for v in videos if (v["video_id"] in test) == inside],
            "sentences": [s for s in sentences if (s["video_id"] in test) == inside],
        })  # fmt: skip
    return "--media-name", "msrvtt/{id}.mp4"


def audiocaps(place: Place) -> tuple[str, ...]:
    number = 0
    for split in ("train", "val", "test"):
        lines = ["audiocap_id,youtube_id,start_time,caption"]
        rows = place.rows(f"audio_caption_{split}")
        for clip, row in enumerate(rows):
            place.medium(row[4], f"audiocaps/{split}{clip}_30.wav")
            for text in worded(split == "test" and row is rows[-1]):
                number += 1
                lines.append(f'{number},{split}{clip},30,"{text}"')
        place.write(f"audiocaps/{split}.csv", "\n".join(lines) + "\n")
    return "--media-root", str(place.data / "audiocaps")


@pytest.mark.parametrize(
    ("corpus", "recipe", "table", "ids"),
    [
        ("msrvtt", "video_caption_msrvtt", "video_data/caption_data/msrvtt_caption_test3k", "as-is"),
        ("audiocaps", "audio_caption_audiocaps", "audio_data/caption_data/audiocaps_test", "int"),
    ],
)
def test_captions(place: Place, corpus: str, recipe: str, table: str, ids: str) -> None:
    options = {"msrvtt": msrvtt, "audiocaps": audiocaps}[corpus](place)
    place.prepare(corpus, *options)
    small: dict[str, Any] = {}
    if corpus == "audiocaps":
        small |= {"audio_encoder_name": "pann_cnn6", "hop_size": 320}
    short = {"eval_args": {"beam": 1, "max_len_b": 8}, "validate_interval": 100}
    longer = {**TINY["optimization"], "max_update": 80, "max_epoch": 100}
    checkpoint = place.finetune(
        recipe, model={**TINY["model"], **small}, optimization=longer, validation=short
    )
    done = place.evaluate(recipe, checkpoint, validation={"eval_args": {"beam": 2, "max_len_b": 30}})
    rows = [line.split("\t") for line in (place.data / f"ofa/{table}.tsv").read_text().splitlines()]
    assert set(done.predictions) == {row[0] for row in rows} and done.coverage == 1

    # by the table, as published: no punctuation on either side
    names = {"Bleu_1": "bleu1", "Bleu_4": "bleu4", "ROUGE_L": "rougel", "CIDEr": "cider"}
    direct = official_caption_scores({row[0]: row[2].split("&&") for row in rows}, done.predictions)
    assert direct["Bleu_4"] > 0.05 and direct["ROUGE_L"] > 0.2, (
        "the captions that it writes are worth scoring"
    )
    for official, ours in names.items():
        assert done.metrics[ours] == pytest.approx(direct[official], abs=1e-9), official

    # by the official captions, in the file that was written beside the table
    file = place.data / f"ofa/{table}_coco_format.json"
    results = done.results(file, "--task", "caption", "--ids", ids)
    captions = {row["image_id"]: row["caption"] for row in results}
    references: dict[Any, list[str]] = {}
    for entry in json.loads(file.read_text())["annotations"]:
        references.setdefault(entry["image_id"], []).append(entry["caption"])
    direct = official_caption_scores(references, captions)
    for official in names:
        assert done.scores["scores"][official] == pytest.approx(direct[official], abs=1e-9), official
    assert any("'" in text for texts in references.values() for text in texts)


# ------------------------------------------------------------------------------------------ text to image


def test_text_to_image(place: Place) -> None:
    import torch
    from PIL import Image

    open_clip = pytest.importorskip("open_clip")
    for part, split, first in (("train", "train", 0), ("val", "test", 500)):
        images, annotations = [], []
        for number, row in enumerate(place.rows(f"caption_{split}"), first):
            name = f"COCO_{part}2014_{number:012d}.jpg"
            place.medium(row[4], f"coco/{part}2014/{name}")
            images.append({"id": number, "file_name": name})
            for text in row[2].split("&&"):
                annotations.append(
                    {"id": len(annotations), "image_id": number, "caption": text.capitalize() + "."}
                )
        place.write(f"image_gen/captions_{part}2014.json", {"images": images, "annotations": annotations})
    place.prepare(
        "image_gen", "--media-root", str(place.data / "coco"), "--test-pictures", "3", "--dev-pictures", "1"
    )
    folder = place.data / "ofa/image_gen_data"
    vqgan, (weights, architecture) = vqgan_file(place.weights), clip_files(place.weights)
    for name, options in (("train", ("--shuffles", "10")), ("dev", ()), ("full_test", ())):
        words = [folder / f"coco_captions_{name}.tsv", "--out", folder / f"coco_vqgan_{name}.tsv", *options]
        place.run("data", "codes", *words, "--image-dir", place.data, "--vqgan-model-path", vqgan,
                  "--code-image-size", "32")  # fmt: skip
    networks = {
        "vqgan_model_path": str(vqgan), "vqgan_config_path": None,
        "clip_model_path": str(weights), "clip_architecture": str(architecture),
    }  # fmt: skip
    decoding = {"eval_args": {"beam": 3, "sampling_topk": 8, "temperature": 1.0}}
    checkpoint = place.finetune(
        "image_gen_stage1",
        inputs={**TINY["inputs"], **networks},
        loss={"constraint_range": None},
        validation=decoding,
    )
    drawn = place.out / "drawn"
    inputs = {**networks, "inception_model_path": None, "fid_statistics": None, "gen_images_path": str(drawn)}
    done = place.evaluate(
        "image_gen_coco", checkpoint, inputs={**TINY["inputs"], **inputs}, validation=decoding
    )
    rows = [line.split("\t") for line in (folder / "coco_vqgan_full_test.tsv").read_text().splitlines()]
    assert set(done.predictions) == {row[0] for row in rows} and len(rows) == 3
    assert all(row[2] == row[2].lower() for row in rows)

    # CLIPSIM by open_clip itself, from the pictures that were kept and the captions of the table
    model, _, preprocess = open_clip.create_model_and_transforms(architecture.stem)
    model.load_state_dict(torch.load(weights))
    model.eval()
    tokenize = open_clip.get_tokenizer(architecture.stem)
    similarities = []
    with torch.inference_mode():
        for name, _, caption in rows:
            picture = Image.open(drawn / done.predictions[name]["file"])
            image = model.encode_image(preprocess(picture)[None]).double()
            text = model.encode_text(tokenize([caption])).double()
            similarities.append(float(torch.nn.functional.cosine_similarity(image, text)))
    assert done.metrics["score"] == pytest.approx(np.mean(similarities), abs=1e-6), "networks run in float32"
    assert len(done.predictions[rows[0][0]]["codes"].split()) == 16
