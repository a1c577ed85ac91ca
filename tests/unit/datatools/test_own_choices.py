"""What a conversion decides by itself: labels, parts, sizes, epochs; and what it says about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from unival.cli import main
from unival.datatools.own.backbone import AT_HAND, Backbone, starting_backbone


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (120, 100), (12 * number, 0, 0)).save(folder / f"p{number}.jpg")
    return folder


def table(folder: Path, rows: list[dict[str, Any]], name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Convert into a folder: (its tables' rows, its recipe, what was said); None for all when it is refused."""

    def run(source: Path, task: str, *words: str, code: int = 0) -> tuple[dict[str, list[Any]], Any, str]:
        out = tmp_path / "own" / f"{len(list(tmp_path.glob('own/*')))}"
        command = ["data", "convert", str(source), "--task", task, "--out", str(out)]
        backbone = () if "--image-backbone" in words else ("--image-backbone", "none")
        assert main([*command, "--vocabulary-size", "300", *backbone, *words]) == code
        said = capsys.readouterr()
        found = {
            path.stem: [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(out.glob("*.jsonl"))
        }
        recipe = out / "recipe.yaml"
        return found, yaml.safe_load(recipe.read_text()) if recipe.is_file() else None, said.out + said.err

    return run


def claims(values: list[Any]) -> list[dict[str, Any]]:
    return [
        {"image": f"p{n}.jpg", "hypothesis": f"claim {n % 7}", "label": values[n % len(values)]}
        for n in range(20)
    ]


@pytest.mark.parametrize("values", [[True, False], ["TRUE", "False"], [1, 0], ["1", "0"], ["Yes", "NO"]])
def test_labels_of_any_spelling(photos: Path, convert: Any, values: list[Any]) -> None:
    """true and false, 0 and 1 were left out as no label; all rows of such a set were."""
    found, _, said = convert(table(photos, claims(values)), "entailment")
    labels = {row["label"].lower() for rows in found.values() for row in rows}
    assert labels == {"yes", "no"} and "left out" not in said
    assert ("labels: " in said) == (values != ["Yes", "NO"])


def test_numbers_that_may_mean_anything_are_asked_for(photos: Path, convert: Any) -> None:
    source = table(photos, claims([0, 1, 2]))
    assert "labels 0, 1, 2 are numbers" in convert(source, "entailment", code=2)[2]
    found, _, said = convert(source, "entailment", "--labels", "0=entailment", "1=neutral", "2=contradiction")
    assert {row["label"] for row in found["train"]} == {"entailment", "neutral", "contradiction"}
    assert "0 is entailment (7)" in said
    assert "the labels are no, yes, maybe" in convert(source, "entailment", "--labels", "0=never", code=2)[2]
    assert (
        "has no fixed labels"
        in convert(source, "caption", "--columns", "caption=hypothesis", "--labels", "0=no", code=2)[2]
    )


def test_parts_that_are_there_are_kept(photos: Path, convert: Any) -> None:
    parts = ["train"] * 14 + ["Dev"] * 3 + ["TEST"] * 3
    rows = [{"image": f"p{n}.jpg", "caption": f"a {n}", "split": part} for n, part in enumerate(parts)]
    found, recipe, said = convert(table(photos, rows), "caption")
    assert {name: len(rows) for name, rows in found.items()} == {"train": 14, "val": 3, "test": 3}
    assert [row["caption"] for row in found["val"]] == ["a 14", "a 15", "a 16"] and recipe is not None
    assert "column 'split'" in said and not any("split" in row for row in found["train"])
    found, _, said = convert(table(photos, rows), "caption", "--by", "image", "--val", "0.25")
    assert len(found["val"]) == 5 and "column 'split'" not in said
    rows[3]["split"] = "fold 2"
    assert "expected train, val or test" in convert(table(photos, rows), "caption", code=2)[2]
    del rows[3]["split"]
    assert (
        "1 of 20 rows have no value in the column 'split'"
        in convert(table(photos, rows), "caption", code=2)[2]
    )


def test_tables_and_folders_named_by_their_part(photos: Path, convert: Any, tmp_path: Path) -> None:
    for name, numbers in (("train", range(15)), ("valid", range(15, 20))):
        table(photos, [{"image": f"p{n}.jpg", "caption": f"a {n}"} for n in numbers], f"{name}.jsonl")
    found, recipe, _ = convert(photos, "caption")
    assert {name: len(rows) for name, rows in found.items()} == {"train": 15, "val": 5} and recipe is not None
    for n in range(20):
        place = tmp_path / "labels" / ("train" if n < 16 else "test") / ("red_dog", "cat")[n % 2] / f"{n}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        (photos / f"p{n}.jpg").rename(place)
    found, recipe, said = convert(tmp_path / "labels", "caption")
    assert {name: len(rows) for name, rows in found.items()} == {"train": 16, "test": 4}
    assert recipe is None and "needs validation rows" in said
    assert {row["caption"] for row in found["test"]} == {"red dog", "cat"}


def test_texts_of_the_test_part_that_train(photos: Path, convert: Any) -> None:
    """220 of 238 sentences of a test part were in the training part, and nothing was said."""
    found, _, said = convert(table(photos, claims(["yes", "no"])), "entailment")
    assert "2 of 2 test hypotheses are in the training part too; --by hypothesis keeps them apart" in said
    found, _, said = convert(table(photos, claims(["yes", "no"])), "entailment", "--by", "hypothesis")
    texts = {name: {row["hypothesis"] for row in rows} for name, rows in found.items()}
    assert not texts["test"] & texts["train"] and not texts["val"] & texts["train"]
    assert "training part too" not in said
    rows = [{**row, "speaker": n % 5, "image": f"p{n // 2}.jpg"} for n, row in enumerate(claims(["yes"]))]
    found, _, said = convert(table(photos, rows), "entailment", "--by", "speaker")
    speakers = [{row["speaker"] for row in rows} for rows in found.values()]
    assert sum(map(len, speakers)) == 5 and "test images are in the training part too" in said
    assert "20 of 20 rows have no value" in convert(table(photos, rows), "entailment", "--by", "x", code=2)[2]


def test_targets_that_differ_by_case(photos: Path, convert: Any) -> None:
    rows = [
        {"image": f"p{n}.jpg", "question": "is it red?", "answer": ("Yes", "yes", ["No", "no"])[n % 3]}
        for n in range(20)
    ]
    source = table(photos, rows)
    _, _, said = convert(source, "vqa")
    assert "differ by case only" in said and "'Yes' 7, 'yes' 7" in said and "--lowercase" in said
    found, _, said = convert(source, "vqa", "--lowercase")
    answers = [row["answer"] for rows in found.values() for row in rows]
    assert all(answer in ("yes", ["no", "no"]) for answer in answers) and "by case only" not in said


def test_rows_that_would_stop_a_training_are_left_out(photos: Path, convert: Any) -> None:
    """The conversion said "next: unival train", and the training stopped at the first of them."""
    (photos / "p3.jpg").write_bytes((photos / "p3.jpg").read_bytes()[:300])
    (photos / "p4.jpg").write_bytes(b"no picture at all")
    rows = [{"image": f"p{n}.jpg", "caption": "..." if n == 7 else f"a {n}"} for n in range(20)]
    found, _, said = convert(table(photos, rows), "caption")
    assert sum(map(len, found.values())) == 17
    assert "their media cannot be decoded: 2; first: " in said and "p4.jpg" in said
    assert "they cannot be used: 1" in said and "at least one word" in said


def test_sizes_and_epochs_follow_the_rows(photos: Path, convert: Any, tmp_path: Path) -> None:
    rows = [{"image": f"p{n}.jpg", "caption": " ".join(["word"] * 40) + f" {n}"} for n in range(20)]
    _, recipe, said = convert(table(photos, rows), "caption")
    assert recipe["inputs"]["patch_image_size"] == recipe["inputs"]["max_image_size"] == 96
    assert recipe["inputs"]["max_tgt_length"] >= 40 and recipe["validation"]["eval_args"]["max_len_b"] > 40
    chosen = recipe["optimization"]
    assert chosen["batch_size"] == 16 and 60 <= chosen["max_epoch"] < 70
    assert chosen["max_epoch"] % recipe["validation"]["validate_interval"] == 0
    assert "chosen: 64 epochs of 16 rows" in said and "shorter sides of yours have 100" in said
    rows = [{"image": f"p{n}.jpg", "caption": ("cat", "red dog")[n % 2]} for n in range(20)]
    _, recipe, said = convert(table(photos, rows), "caption")
    assert recipe["validation"]["best_checkpoint_metric"] == "exact" and "captions are labels" in said


@pytest.mark.parametrize(("hertz", "own", "rate"), [(440, 8000, 16000), (7000, 44100, 32000)])
def test_sounds_are_heard_as_long_as_they_are(
    convert: Any, tmp_path: Path, hertz: int, own: int, rate: int
) -> None:
    """Words of half a second were repeated to five."""
    for number in range(10):
        length = int(own * (0.5 + 0.04 * number))
        wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(length) / own)
        place = tmp_path / "words" / f"{number % 2}" / f"{number}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, wave.astype(np.float32), own)
    _, recipe, _ = convert(tmp_path / "words", "audio_caption")
    inputs = recipe["inputs"]
    assert inputs["sample_rate"] == rate and 0.8 <= inputs["max_audio_len"] / rate <= 0.9
    assert recipe["model"]["hop_size"] == 320 * rate // 32000


def test_a_pretrained_image_network_is_taken(photos: Path, convert: Any) -> None:
    rows = [{"image": f"p{n}.jpg", "caption": f"a {n}"} for n in range(20)]
    words = ("--image-backbone", "resnet10t", "--image-backbone-weights", "net.pt")
    _, recipe, said = convert(table(photos, rows), "caption", *words)
    assert (
        recipe["extends"].endswith("own_data/pretrained.yaml")
        and "resnet10t with the weights of net.pt" in said
    )
    assert recipe["model"] == {"image_backbone": "resnet10t", "image_backbone_weights": "net.pt"}
    assert recipe["inputs"]["patch_image_size"] == 224
    refused = convert(photos / "t.jsonl", "caption", "--image-backbone", "resnet10x", code=2)[2]
    assert "Did you mean 'resnet10t'" in refused
    assert starting_backbone(Backbone("none")) is None
    at_hand = starting_backbone(None)
    assert at_hand is None or AT_HAND[at_hand.weights or ""] == at_hand.name


def test_one_vocabulary_for_several_tasks(photos: Path, convert: Any, tmp_path: Path) -> None:
    rows = [{"image": f"p{n}.jpg", "caption": f"a {n}"} for n in range(20)]
    _, first, _ = convert(table(photos, rows), "caption")
    folder = first["inputs"]["bpe_dir"]
    rows = [{"image": f"p{n}.jpg", "question": "what?", "answer": f"{n}"} for n in range(20)]
    _, second, _ = convert(table(photos, rows, "q.jsonl"), "vqa", "--vocabulary", folder)
    assert second["inputs"]["bpe_dir"] == folder
    assert "vocabulary" in convert(photos / "q.jsonl", "vqa", "--vocabulary", str(photos), code=2)[2]
