"""The report of an evaluation: table, page, sheet and curves from result files and real media."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unival.datatools.world import render
from unival.errors import DataError
from unival.evaluate.pictures import (
    HEIGHT,
    INK,
    PLAIN_INK,
    PREDICTED_BOX,
    TRUE_BOX,
    contact_sheet,
    picture,
    plain,
    waveform_picture,
)
from unival.media import MediaLoader
from unival.report import read_result, score_table, write_report
from unival.report.curves import draw_curves, read_log


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "world"
    render(folder, images=8, clips=8, sounds=8, vocabulary_size=0)
    return folder


def result(**changes: Any) -> dict[str, Any]:
    base = {
        "task": "caption",
        "modality": "image",
        "table": "tables/caption_test.tsv",
        "checkpoint": "checkpoints/caption",
        "metrics": {"cider": 1.23456, "bleu": 56.78},
        "main_metric": "cider",
        "baseline": {"cider": 0.25},
        "best_possible": {"cider": 8.5},
        "intervals": {"cider": [1.1, 1.3]},
        "n": 375,
        "items": [],
    }
    return {**base, **changes}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_table_puts_the_score_beside_its_baseline() -> None:
    video = result(
        task="vqa", modality="video", metrics={"accuracy": 0.5}, main_metric="accuracy", baseline={},
        best_possible={}, intervals={},
    )  # fmt: skip
    table = score_table([read_result(result()), read_result(video)])
    lines = table.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == [
        "task",
        "metric",
        "score",
        "95 % interval",
        "trivial baseline",
        "best possible",
        "n",
        "remark",
    ]
    assert cells[2] == ["caption", "cider", "1.235", "1.100 to 1.300", "0.250", "8.500", "375", ""]
    assert cells[3] == ["video vqa", "accuracy", "0.500", "-", "-", "-", "375", ""]
    assert len({len(line) for line in lines}) == 1
    assert "56.8" in score_table([read_result(result())], all_metrics=True)


def test_damaged_results_name_the_file_and_the_key(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"result\.json"):
        read_result(path)
    with pytest.raises(DataError, match=r"absent\.json"):
        read_result(tmp_path / "absent.json")
    incomplete = result()
    del incomplete["n"]
    path.write_text(json.dumps(incomplete))
    with pytest.raises(DataError, match=r"result\.json.*'n'"):
        read_result(path)
    with pytest.raises(DataError, match=r"main_metric 'cidr'.*cider, bleu"):
        read_result(result(main_metric="cidr"))


def test_log_of_a_resumed_and_killed_run(tmp_path: Path) -> None:
    path = tmp_path / "train_log.jsonl"
    lines = [
        '{"update": 1, "loss": 5.0, "split": "train"}',
        '{"update": 2, "loss": 4.0, "split": "train", "lr": 0.1}',
        '{"update": 2, "loss": 4.5, "split": "valid"}',
        '{"update": 2, "loss": 3.9}',
        '{"update": 3, "lo',
    ]
    path.write_text("\n".join(lines))
    assert read_log(path) == {"train": [(1.0, 5.0), (2.0, 3.9)], "valid": [(2.0, 4.5)]}
    path.write_text("\n".join([lines[0], lines[4], lines[1], ""]))
    with pytest.raises(DataError, match=r"train_log\.jsonl, line 2"):
        read_log(path)
    with pytest.raises(DataError, match="expected a training log"):
        read_log(tmp_path / "none.jsonl")


def test_scores_of_a_log_are_those_of_the_lines_that_have_them(tmp_path: Path) -> None:
    path = tmp_path / "train_log.jsonl"
    lines = [
        {"update": 1, "split": "train", "loss": 2.0},
        {"update": 2, "split": "valid", "loss": 3.0, "cider": 0.5},
        {"update": 4, "split": "valid", "loss": 3.5, "cider": 1.5},
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert read_log(path, "cider") == {"valid": [(2.0, 0.5), (4.0, 1.5)]}
    assert read_log(path, "exact") == {}
    lines[2]["cider"] = "high"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(DataError, match="line 3"):
        read_log(path, "cider")


def test_curves_are_drawn_for_long_short_and_empty_runs(tmp_path: Path) -> None:
    long = {"train": [(float(k), 5.0 / (k + 1)) for k in range(200)], "valid": [(100.0, 1.0)]}
    logs = {"long": long, "short": {"train": [(1.0, 2.0)]}, "empty": {}}
    data = draw_curves(logs)
    assert draw_curves(logs, {"long": ("cider", [(1.0, 0.5), (9.0, 4.0)])}) != data
    (tmp_path / "curves.png").write_bytes(data)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and image.width > image.height


def test_boxes_are_drawn_where_they_belong(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), "white").save(tmp_path / "white.png")
    item = {"media": "white.png", "true_box": [16, 16, 48, 48], "box": [90, 60, 200, 20]}
    pixels = np.asarray(picture(item, "image", MediaLoader(root=str(tmp_path))))
    assert pixels.shape == (HEIGHT, HEIGHT * 3 // 2, 3)
    assert tuple(pixels[48, 96]) == TRUE_BOX and tuple(pixels[96, 48]) == TRUE_BOX
    assert tuple(pixels[96, 96]) == (255, 255, 255)
    assert tuple(pixels[120, 270]) == PREDICTED_BOX and tuple(pixels[120, -1]) == PREDICTED_BOX


def test_spectrogram_shows_the_pitch() -> None:
    time = np.arange(16000) / 16000
    bright = []
    for hertz in (220, 1760):
        image = np.asarray(
            waveform_picture(np.sin(2 * np.pi * hertz * time).astype(np.float32), 16000), dtype=int
        )
        bright.append(int(image[HEIGHT // 4 + 4 :, 160].sum(axis=1).argmax()))
    assert bright[0] > bright[1]  # higher tones further up
    assert waveform_picture(np.zeros(0, dtype=np.float32), 16000).height == HEIGHT


def test_report_of_all_modalities(world: Path, tmp_path: Path) -> None:
    media = {kind: sorted((world / kind).iterdir()) for kind in ("images", "videos", "audio")}

    def relative(kind: str) -> list[str]:
        return [str(path.relative_to(world)) for path in media[kind]]

    log = tmp_path / "train_log.jsonl"
    log.write_text(
        "".join(json.dumps({"update": k, "loss": 1 / k, "split": "train"}) + "\n" for k in range(1, 60))
    )
    captions = [
        {
            "id": f"c{k}",
            "media": m,
            "prediction": "a <b>star</b> & more",
            "references": ["a star", "one star"],
        }
        for k, m in enumerate(relative("images"))
    ]
    answers = [{"id": "q", "media": relative("videos")[0], "question": "what?", "prediction": "red"}]
    answers[0] |= {"references": {"red": 1.0, "rose": 0.3}, "right": True}  # type: ignore[dict-item]
    captions[0]["cider"], captions[1]["right"] = 3.21, True  # type: ignore[assignment]
    sounds = [
        {"id": "a", "media": m, "prediction": "a tone", "references": "a beep"} for m in relative("audio")
    ]
    sounds.append({"id": "gone", "media": "audio/gone.wav", "prediction": "?", "references": "?"})
    path = tmp_path / "caption.json"
    path.write_text(json.dumps(result(items=captions, media_root=str(world), log="train_log.jsonl")))
    report = write_report(
        [
            path,
            result(task="vqa", modality="video", items=answers, media_root=str(world)),
            result(task="audio_caption", modality="audio", items=sounds, media_root=str(world)),
        ],
        tmp_path / "report",
        logs={"stage 1": log},
    )
    page = Page(report.page.read_text(encoding="utf-8"))
    assert page.tags.count("figure") == len(captions) + 1 + len(sounds)
    assert page.tags.count("img") == page.tags.count("figure") + 1
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.words.count("right") == 3 and page.words.count("wrong") == 1 and "CIDEr 3.21" in page.words
    assert "b" not in page.tags and "a <b>star</b> & more" in page.words and "rose (0.3)" in page.words
    assert report.curves is not None and report.curves.is_file()
    assert "audio caption" in report.scores.read_text() and "video vqa" in report.table
    with Image.open(report.sheet) as sheet:
        assert sheet.width == 1320 and sheet.height > 3 * HEIGHT


def test_sheet_says_what_is_right_and_what_is_wrong() -> None:
    said = {"question": "what?", "prediction": "red", "references": {"red": 1.0}}
    assert plain(said) == [("what?", PLAIN_INK), ("> red", PLAIN_INK), ("= red", PLAIN_INK)]
    assert plain({**said, "right": True})[1] == ("> red [right]", INK["right"])
    assert plain({**said, "right": False})[1] == ("> red [wrong]", INK["wrong"])
    assert plain({**said, "cider": 2.5})[1] == ("> red [CIDEr 2.50]", INK["worth"])
    box = {"text": "the star", "box": [0, 0, 9, 9], "true_box": [0, 0, 8, 8], "prediction": [0, 0, 9, 9]}
    assert plain({**box, "right": True}) == [("the star", PLAIN_INK), ("> [right]", INK["right"])]
    card = (Image.new("RGB", (HEIGHT, HEIGHT)), plain({**said, "right": False}))
    pixels = np.asarray(contact_sheet([("", [card])])).reshape(-1, 3)
    assert (pixels == INK["wrong"]).all(1).any() and not (pixels == INK["right"]).all(1).any()


def test_report_without_examples_or_logs(tmp_path: Path) -> None:
    report = write_report([result()], tmp_path)
    assert report.curves is None and report.sheet.is_file()
    assert contact_sheet([]).width == 1320


def test_report_says_what_has_not_learnt(tmp_path: Path) -> None:
    """One sentence for all 375 pictures and the score of a constant stood in the table without a word."""
    same = {"different": 1, "most_frequent": "a dog", "share": 1.0, "targets": 300, "targets_share": 0.02}
    bad = result(predictions=same, baseline={"cider": 1.15}, baseline_name="the best constant caption")
    report = write_report([bad, result(predictions={**same, "different": 90, "share": 0.3})], tmp_path)
    lines = report.table.splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["collapsed; not better than the baseline", ""]
    page = report.page.read_text()
    assert (
        "100 % of the predictions are &#x27;a dog&#x27;" in page and "the best constant caption has" in page
    )


def test_a_sheet_draws_every_card() -> None:
    """ "24 of 24 rows" were said and twelve drawn."""
    card = (Image.new("RGB", (300, 40), (200, 0, 0)), [("a", (0, 0, 0))])
    heights = [contact_sheet([("t", [card] * count)]).height for count in (4, 8, 12, 24)]
    assert heights[3] > heights[2] > heights[1] > heights[0]
    pixels = np.asarray(contact_sheet([("t", [card] * 24)]))
    assert (pixels == (200, 0, 0)).all(axis=2).sum() == 24 * 300 * 40
