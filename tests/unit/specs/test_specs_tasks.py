"""Task descriptions on real tables and real media files: targets, decoding, scores, baselines."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unival.core.seeding import rng_for
from unival.errors import ConfigError, DataError
from unival.media import MediaLoader
from unival.specs import SPECS, SpecOptions, get_spec
from unival.specs.answers import read_answer_list
from unival.specs.baselines import BEST_CAPTION, MOST_FREQUENT, WHOLE_PICTURE, best_caption, strongest
from unival.tables import Row, Table, open_table
from unival.vocabulary import Vocabulary

VOCABULARY = Vocabulary.train(["a red circle", "what colour is it?", "yes no maybe"], 280, 16, 1000)
OPTIONS = SpecOptions(
    patch_image_size=32, patch_frame_size=16, num_frames=2, max_audio_len=1600, sample_rate=8000
)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    for index in range(3):
        Image.new("RGB", (64, 48), (80 * index, 10, 10)).save(tmp_path / f"{index}.png")
    return tmp_path


def table(folder: Path, task: str, rows: list[dict[str, Any]], modality: str = "image") -> Table:
    path = folder / f"{task}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_table(path, get_spec(task, modality).fields)


def examples(folder: Path, task: str, rows: list[dict[str, Any]], **rest: Any) -> list[Any]:
    rng = rest.pop("rng", None)
    training = rest.pop("training", False)
    options = rest.pop("options", OPTIONS)
    spec = get_spec(task, rest.pop("modality", "image"))
    media = MediaLoader(str(folder))
    return [
        example
        for row in table(folder, task, rows, spec.modality)
        for example in spec.examples(row, media, options, VOCABULARY, rng, training)
    ]


def target_text(example: Any) -> str:
    return VOCABULARY.decode(example.target.tolist())


def source_text(example: Any) -> str:
    return VOCABULARY.decode(example.source.tolist())


def write_clip(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for shade in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 30 * shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sound(path: Path) -> None:
    import soundfile

    soundfile.write(path, np.sin(np.arange(4000) / 9), 8000)


def test_every_task_says_what_it_is() -> None:
    for name, cls in SPECS.items():
        for modality in cls.modalities:
            spec = get_spec(name, modality)
            assert spec.name == name and spec.best_metric and spec.fields
            assert any(field.name in (modality, "media") for field in spec.fields)
            if spec.layout is not None:
                assert spec.layout.positions()
    with pytest.raises(ConfigError, match="Did you mean 'caption'"):
        get_spec("captoin")
    with pytest.raises(ConfigError, match="no modality 'audio'"):
        get_spec("vqa", "audio")


def test_caption_of_each_modality(folder: Path) -> None:
    write_clip(folder / "clip.mp4")
    write_sound(folder / "sound.wav")
    files = {"image": "0.png", "video": "clip.mp4", "audio": "sound.wav"}
    shapes = {"image": (3, 32, 32), "video": (3, 2, 16, 16), "audio": (1600,)}
    for modality, name in files.items():
        for rng in (None, rng_for(0, 1, 2)):
            [example] = examples(
                folder,
                "caption",
                [{modality: name, "caption": "A red circle."}],
                modality=modality,
                rng=rng,
                training=rng is not None,
            )
            assert example.modality == modality and tuple(example.media.shape) == shapes[modality]
            assert source_text(example) == f" what does the {modality} describe?"
            assert target_text(example) == " A red circle"
            assert example.reference == ["A red circle."] and example.id == name


def test_captions_with_several_references(folder: Path) -> None:
    for value in ("one cat && two dogs", ["one cat", "two dogs"]):
        rows = [{"image": "0.png", "caption": value}]
        [example] = examples(folder, "caption", rows)
        assert target_text(example) == " one cat&&two dogs"
        assert example.reference == ["one cat", "two dogs"]
        drawn = {
            target_text(examples(folder, "caption", rows, training=True, rng=rng_for(0, 0, i))[0])
            for i in range(20)
        }
        assert drawn == {" one cat", " two dogs"}


def test_prompts_can_be_replaced(folder: Path) -> None:
    options = SpecOptions(patch_image_size=32, prompts={"caption.image": " describe"})
    [example] = examples(folder, "caption", [{"image": "0.png", "caption": "x"}], options=options)
    assert source_text(example) == " describe"


def test_caption_scores_join_rows_of_one_image() -> None:
    spec = get_spec("caption")
    references = [["a red circle"], ["a circle"], ["two blue squares here"], ["green lines and dots"]]
    predictions = ["a red circle", "a red circle", "two blue squares here", "green lines and dots"]
    joined = spec.score(predictions, references, OPTIONS, ["a", "a", "b", "c"])
    assert joined["cider"] > 5 and joined["bleu1"] == pytest.approx(1.0)
    assert spec.decode([*VOCABULARY.encode(" a red, circle."), 2], None, VOCABULARY) == "a red circle"


def test_rows_without_targets_can_be_predicted_only(folder: Path) -> None:
    rows = {
        "caption": {"image": "0.png"},
        "vqa": {"image": "0.png", "question": "what?"},
        "grounding": {"image": "0.png", "text": "it"},
        "matching": {"image": "0.png", "text": "it"},
        "entailment": {"image": "0.png", "hypothesis": "it"},
        "grounded_caption": {"image": "0.png", "box": [1, 2, 30, 40]},
    }
    for task, row in rows.items():
        spec = get_spec(task)
        path = folder / f"{task}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        [row_read] = open_table(path, [f for f in spec.fields if not f.target])
        [example] = spec.examples(row_read, MediaLoader(str(folder)), OPTIONS, VOCABULARY)
        assert example.reference is None and example.target.tolist() == [2]
        with pytest.raises(DataError, match="carries no target"):
            spec.score(["x"], [None], OPTIONS)


@pytest.mark.parametrize(
    "value, answers",
    [
        ("red", {"red": 1.0}),
        ("0.3|!+pink&&1.0|!+red", {"pink": 0.3, "red": 1.0}),
        (["red", "red", "pink", "red"], {"red": 1.0, "pink": 1 / 3}),
        ({"red": 1.0, "pink": 0.3}, {"red": 1.0, "pink": 0.3}),
        (3, {"3": 1.0}),
        (True, {"yes": 1.0}),
    ],
)
def test_forms_of_answers(folder: Path, value: Any, answers: dict[str, float]) -> None:
    for column in ("answer", "answers"):
        [example] = examples(folder, "vqa", [{"image": "0.png", "question": "What is it", column: value}])
        assert example.reference == answers
        assert source_text(example) == " what is it?"
        assert target_text(example).strip() == max(answers, key=answers.__getitem__)


def test_closed_answers(folder: Path) -> None:
    options = SpecOptions(patch_image_size=32, answers=("red", "blue"))
    row = {"image": "0.png", "question": "colour?", "answer": "1.0|!+crimson&&0.4|!+red"}
    [example] = examples(folder, "vqa", [row], options=options, training=True)
    assert target_text(example) == " red" and example.weight == 0.4
    assert example.allowed is not None and len(example.allowed) == len(example.target)
    assert all(t in a for t, a in zip(example.target.tolist(), example.allowed, strict=True))
    spec = get_spec("vqa")
    assert spec.candidates(options) == ("red", "blue")
    assert spec.constraint(options, VOCABULARY) is spec.constraint(options, VOCABULARY)
    assert spec.constraint(OPTIONS, VOCABULARY) is None
    assert spec.score(["red", "no"], [{"red": 0.4}, {"yes": 1.0}], options) == {"vqa_score": 0.2}


def test_answer_lists(tmp_path: Path) -> None:
    answers = ["yes", "no", "hot dog"]
    (tmp_path / "a.txt").write_text("\n".join(answers) + "\n")
    (tmp_path / "a.json").write_text(json.dumps(answers))
    (tmp_path / "b.json").write_text(json.dumps({a: i for i, a in enumerate(answers)}))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({a: i for i, a in enumerate(answers)}))
    for name in ("a.txt", "a.json", "b.json", "a.pkl"):
        assert read_answer_list(tmp_path / name) == tuple(answers)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Path("x")))
    (tmp_path / "broken.pkl").write_bytes(b"\x80\x04nonsense")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "text.json").write_text('"yes"')
    for name, message in (
        ("evil.pkl", "only plain dicts"),
        ("broken.pkl", "cannot be read"),
        ("empty.txt", "is empty"),
        ("text.json", "holds a str"),
        ("absent.txt", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_answer_list(tmp_path / name)


def test_prefix_is_dropped_when_decoding(folder: Path) -> None:
    options = SpecOptions(patch_image_size=32, prompt_type="prev_output")
    row = {"image": "0.png", "question": "what colour", "answer": "red"}
    [example] = examples(folder, "vqa", [row], options=options)
    generated = [*example.prefix.tolist(), *VOCABULARY.encode(" red"), 2]
    spec = get_spec("vqa")
    assert spec.decode(generated, example, VOCABULARY) == "red"
    assert spec.decode([*VOCABULARY.encode(" red"), 2], example, VOCABULARY) == "red"


def test_grounding_round_trip(folder: Path) -> None:
    row = {"image": "0.png", "text": "The Circle", "box": "8,6,40.5,30"}
    [example] = examples(folder, "grounding", [row], training=True)
    spec = get_spec("grounding")
    box = spec.decode(example.target.tolist(), example, VOCABULARY, OPTIONS)
    assert box == pytest.approx((8, 6, 40.5, 30), abs=0.5 / 999 * 512 / (32 / 64))
    assert example.reference == (8, 6, 40.5, 30) and example.size == (64, 48)
    assert spec.constraint(OPTIONS, VOCABULARY) == (VOCABULARY.bin_offset, len(VOCABULARY))
    assert spec.decode([5, 6, 2], example, VOCABULARY) is None
    assert spec.score([box, None], [example.reference] * 2, OPTIONS)["score"] == 0.5


def test_grounded_caption(folder: Path) -> None:
    row = {"image": "0.png", "text": "The Circle", "box": [8, 6, 40.5, 30]}
    [example] = examples(folder, "grounded_caption", [row], training=True)
    assert source_text(example).startswith("  what does the region describe? region: <bin_")
    assert source_text(example).count("<bin_") == 4 and target_text(example) == " the circle"
    assert example.reference == ["The Circle"]


@pytest.mark.parametrize(
    "task, row, source",
    [
        ("matching", {"text": "A dog"}, ' does the image describe " a dog "?'),
        (
            "verification",
            {"question": "What is it?", "answer": "dog"},
            ' what is the answer to question " what is it? ". is " dog "?',
        ),
        ("entailment", {"hypothesis": "A dog"}, ' does the image describe " a dog "?'),
    ],
)
def test_labels(folder: Path, task: str, row: dict[str, str], source: str) -> None:
    names = {"yes": "yes", "no": "no", "Yes": "yes"}
    if task == "entailment":
        names |= {"entailment": "yes", "contradiction": "no", "neutral": "maybe", "maybe": "maybe"}
    else:
        names |= {"match": "yes", "no-match": "no", "1": "yes", "0": "no"}
    values: list[tuple[Any, str]] = list(names.items())
    if task != "entailment":
        values += [(1, "yes"), (0, "no"), (True, "yes"), (False, "no")]
    found = examples(folder, task, [{"image": "0.png", "label": v, **row} for v, _ in values], training=True)
    for (_, label), example in zip(values, found, strict=True):
        assert target_text(example) == f" {label}" and example.reference == label
        assert source_text(example) == source
        assert all(t in a for t, a in zip(example.target.tolist(), example.allowed, strict=True))
    spec = get_spec(task)
    assert spec.score(["yes", "no"], ["yes", "yes"], OPTIONS) == {spec.best_metric: 0.5}
    assert spec.inference == "allcand"


def test_named_captions_in_csv_and_tsv(folder: Path) -> None:
    (folder / "a.csv").write_text('image,caption\n0.png,"one, two"\n')
    (folder / "a.tsv").write_text("caption\timage\nthree\t1.png\n")
    spec = get_spec("caption")
    for name, expected in (("a.csv", "one, two"), ("a.tsv", "three")):
        [row] = open_table(folder / name, spec.fields)
        [example] = spec.examples(row, MediaLoader(str(folder)), OPTIONS, VOCABULARY)
        assert example.reference == [expected]


def test_baselines(folder: Path) -> None:
    rows = [{"image": f"{i % 3}.png", "label": "yes" if i else "no", "text": "x"} for i in range(4)]
    spec = get_spec("matching")
    data = table(folder, "matching", rows)
    assert spec.baseline(data, data, OPTIONS) == {"accuracy": 0.75}
    rows = [{"image": "0.png", "question": "q", "answer": a} for a in ("red", "red", "blue", "green")]
    data = table(folder, "vqa", rows)
    assert get_spec("vqa").baseline(data, data, OPTIONS) == {"vqa_score": 0.5}
    rows = [
        {"image": "0.png", "text": "x", "box": "16,12,48,36"},
        {"image": "1.png", "text": "x", "box": "0,0,9,9"},
    ]
    data = table(folder, "grounding", rows)
    scores = get_spec("grounding").baseline([data[0]], data, OPTIONS, MediaLoader(str(folder)))
    assert scores["score"] == 0.5
    rows = [{"image": f"{i}.png", "caption": "a red circle here"} for i in range(3)]
    data = table(folder, "caption", rows)
    assert get_spec("caption").baseline(data, data, OPTIONS)["bleu1"] == pytest.approx(1.0)


def test_baselines_of_captions_and_boxes(folder: Path) -> None:
    """One sentence for all looked twice as good as the trivial one, the whole picture five times as its middle."""
    texts = ["a dog runs over the grass", "a cat sits on a chair", "a black dog runs over the wet grass"]
    texts += ["a dog runs on the beach", "trees", "trees", "a dog runs fast over the grass", "two cats"]
    rows = [{"image": f"{k}.png", "caption": text} for k, text in enumerate(texts)]
    data = table(folder, "caption", rows)
    found = get_spec("caption").baselines(data, list(data), OPTIONS)
    assert list(found) == [MOST_FREQUENT, BEST_CAPTION]
    assert found[MOST_FREQUENT]["exact"] == 0.25, "trees"
    assert best_caption(texts) == "a dog runs over the grass"
    assert strongest(found, "cider")[0] == BEST_CAPTION
    assert found[BEST_CAPTION]["cider"] > found[MOST_FREQUENT]["cider"]
    rows = [
        {"image": f"{k}.png", "text": "x", "box": "0,0,64,48" if k % 2 else "0,0,8,8"} for k in (0, 1, 2, 1)
    ]
    data = table(folder, "grounding", rows)
    found = get_spec("grounding").baselines(data, list(data), OPTIONS, MediaLoader(str(folder)))
    assert strongest(found, "score") == (WHOLE_PICTURE, found[WHOLE_PICTURE])
    assert found[WHOLE_PICTURE]["score"] == 0.5 and strongest({}, "score") == ("", {})


@pytest.mark.parametrize("task", ["entailment", "vqa"])
def test_validation_permits_what_training_permits(folder: Path, task: str) -> None:
    """The loss of training was one over three labels, that of validation over the whole vocabulary: 0.28 beside 7.2."""
    row = {"image": "0.png", "hypothesis": "x", "label": "yes", "question": "x", "answer": "yes"}
    options = SpecOptions(patch_image_size=32, answers=("yes", "no") if task == "vqa" else None)
    for training in (True, False):
        [example] = examples(folder, task, [row], options=options, training=training)
        assert all(t in a for t, a in zip(example.target.tolist(), example.allowed, strict=True)), training
    if task == "vqa":
        [example] = examples(folder, task, [{**row, "answer": "perhaps"}], options=options)
        assert example.allowed is None


def test_best_outputs_are_the_references_that_score_best() -> None:
    answers = [{"large": 1.0, "big": 0.6}, {"red": 1.0}]
    vqa = get_spec("vqa")
    assert vqa.score(vqa.best_outputs(answers), answers, OPTIONS) == {"vqa_score": 1.0}
    boxes = [(0.0, 0.0, 8.0, 9.0)]
    grounding = get_spec("grounding")
    assert grounding.score(grounding.best_outputs(boxes), boxes, OPTIONS) == {"score": 1.0, "mean_iou": 1.0}
    texts = [["one odd sentence", "a red star", "a red star here"], ["a blue dot", "the blue dot"]]
    caption = get_spec("caption")
    best = caption.best_outputs(texts)
    assert best[0] != texts[0][0] and all(text in held for text, held in zip(best, texts, strict=True))
    first = caption.score([held[0] for held in texts], texts, OPTIONS)["cider"]
    assert caption.score(best, texts, OPTIONS)["cider"] > first
    assert caption.best_outputs([]) == []


def test_augmentation_follows_the_generator(folder: Path) -> None:
    options = SpecOptions(patch_image_size=32, use_dataaug=True)
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    rows = [{"image": "0.png", "caption": "x"}]
    kinds: dict[str, Any] = {"options": options, "training": True}
    one, same, other = (
        examples(folder, "caption", rows, rng=rng_for(0, 1, i), **kinds)[0] for i in (5, 5, 6)
    )
    assert one.media.equal(same.media) and not one.media.equal(other.media)
    still = examples(folder, "caption", rows, options=options, rng=rng_for(0, 1, 5))[0]
    assert still.media.equal(examples(folder, "caption", rows, options=options)[0].media)


def test_centre_box_reads_training_images_where_their_table_says(tmp_path: Path) -> None:
    rows = {}
    for name, size, box in (("train", (100, 50), [0, 0, 50, 50]), ("test", (40, 40), [10, 0, 30, 40])):
        (tmp_path / name).mkdir()
        Image.new("RGB", size).save(tmp_path / name / f"{name}.png")
        values = {"image": f"{name}.png", "text": "it", "box": box}
        rows[name] = Row(values, str(tmp_path / "t.jsonl"), 1, str(tmp_path / name))
    media = MediaLoader(str(tmp_path / "test"))
    scores = get_spec("grounding").baseline([rows["train"]], [rows["test"]], OPTIONS, media)
    assert scores["score"] == 1.0, "half as wide, as high, in the middle"
