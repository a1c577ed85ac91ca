"""The verb in this process: identity, modes, recipes, missing media, groups of captions, the report."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluate_models import OPTIONS, make_checkpoint
from unival.cli import main
from unival.report import write_report

SHORT = ("--eval-args", '{"beam": 2, "max_len_b": 20}')
FAST = ("--device", "cpu", "--eval-args", '{"beam": 1, "max_len_b": 6, "min_len": 2}')


def evaluate(checkpoint: Path, table: Path | str, out: Path, *words: object) -> dict[str, Any]:
    assert main([str(w) for w in ("evaluate", checkpoint, table, "--out", out, *FAST, *words)]) == 0
    return json.loads((out / "result.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def predictions(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_metric_that_counts_can_be_named(
    checkpoint: Path, world: Path, tmp_path: Path, capsys: Any
) -> None:
    """CIDEr counted where captions are labels and their share of right ones says all."""
    table, root = world / "tables/caption_test.tsv", ("--image-dir", world, "--limit", 8)
    train = ("--train-table", world / "tables/caption_train.tsv")
    result = evaluate(checkpoint, table, tmp_path, *root, *train, "--main-metric", "exact")
    assert result["main_metric"] == "exact" and "exact" in result["baseline"]
    assert result["predictions"]["different"] >= 1 and result["baseline_name"] in result["baselines"]
    words = ("evaluate", checkpoint, table, "--out", tmp_path / "other", *root, "--main-metric", "exakt")
    assert "Did you mean 'exact'" in refused(capsys, *words)


def test_result_says_what_was_done(checkpoint: Path, world: Path, tmp_path: Path) -> None:
    result = evaluate(
        checkpoint, world / "tables/caption_test.tsv", tmp_path, "--image-dir", world, "--limit", 8,
        "--train-table", world / "tables/caption_train.tsv",
    )  # fmt: skip
    assert result["n"] == 8 and result["coverage"] == 1.0 and result["limit"] == 8
    assert set(result["metrics"]) >= {"cider", "bleu4", "rougel"} and set(result["baseline"]) == set(
        result["metrics"]
    )
    assert set(result["best_possible"]) == set(result["metrics"]) and result["best_possible"]["exact"] == 1.0
    assert result["best_possible"]["cider"] > result["baseline"]["cider"]
    assert all("cider" in item or item["right"] for item in result["items"])
    assert set(result["intervals"]) == set(result["metrics"])
    low, high = result["intervals"]["rougel"]
    assert low <= result["metrics"]["rougel"] <= high
    assert result["scoring"]["tokenizer"] == "ptb" and result["scoring"]["document_frequencies"] == "corpus"
    assert (
        result["protocol"] == "unival"
        and result["decoding"]["beam"] == 1
        and result["precision"] == "float32"
    )
    assert len(result["checkpoint_sha256"]) == len(result["data_sha256"]) == 64
    assert {"torch", "unival", "numpy", "python"} <= set(result["versions"])
    more = evaluate(
        checkpoint, world / "tables/caption_test.tsv", tmp_path, "--image-dir", world, "--limit", 10
    )
    assert more["n"] == 10 and len(predictions(tmp_path)) == 10
    parts = (tmp_path / "parts" / "0-of-1.jsonl").read_text().splitlines()
    assert len({json.loads(line)["row"] for line in parts}) == len(parts), "a row was predicted twice"


def test_results_do_not_depend_on_the_batch(checkpoint: Path, world: Path, tmp_path: Path) -> None:
    table = world / "tables/caption_test.tsv"
    runs = []
    for size in (1, 7):
        out = tmp_path / str(size)
        evaluate(checkpoint, table, out, "--image-dir", world, "--limit", 20, "--batch-size", size)
        runs.append(predictions(out))
    for alone, together in zip(*runs, strict=True):
        assert alone["prediction"] == together["prediction"] and alone["row"] == together["row"]
        assert alone["score"] == pytest.approx(together["score"], abs=2e-4)  # measured: 0 or one step of 1e-4


def test_another_run_is_refused_and_restart_discards_it(
    checkpoint: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = world / "tables/caption_val.tsv"
    words = (
        "evaluate",
        checkpoint,
        table,
        "--out",
        tmp_path,
        "--image-dir",
        world,
        "--limit",
        4,
        "--device",
        "cpu",
    )
    assert main([str(word) for word in (*words, "--eval-args", '{"beam": 1, "max_len_b": 3}')]) == 0
    error = refused(capsys, *words, "--eval-args", '{"beam": 2, "max_len_b": 3}')
    assert "decoding.beam (1 there, 2 now)" in error and "--restart" in error
    assert (
        main([str(word) for word in (*words, "--eval-args", '{"beam": 2, "max_len_b": 3}', "--restart")]) == 0
    )
    assert json.loads((tmp_path / "result.json").read_text())["decoding"]["beam"] == 2


def test_captions_of_one_image_are_one_prediction(checkpoint: Path, world: Path, tmp_path: Path) -> None:
    lines = [line.split("\t") for line in (world / "tables/caption_test.tsv").read_text().splitlines()[:12]]
    image = next(column for column in range(len(lines[0])) if lines[0][column].startswith("images/"))
    text = next(column for column in range(len(lines[0])) if "&&" in lines[0][column])
    joined = [{"image": line[image], "caption": line[text]} for line in lines]
    apart = [
        {"image": r["image"], "caption": c}
        for k in range(4)
        for r in joined
        for c in r["caption"].split("&&")[k : k + 1]
    ]
    one = evaluate(
        checkpoint, write_rows(tmp_path / "one.jsonl", joined), tmp_path / "a", "--image-dir", world
    )
    many = evaluate(
        checkpoint, write_rows(tmp_path / "many.jsonl", apart), tmp_path / "b", "--image-dir", world
    )
    assert len(apart) == 48 and one["n"] == many["n"] == 12
    assert one["metrics"] == many["metrics"] and one["intervals"] == many["intervals"]
    assert [(p["id"], p["prediction"]) for p in predictions(tmp_path / "a")] == [
        (p["id"], p["prediction"]) for p in predictions(tmp_path / "b")
    ]
    limited = evaluate(
        checkpoint, tmp_path / "many.jsonl", tmp_path / "c", "--image-dir", world, "--limit", 5
    )
    assert limited["n"] == 5 and limited["scoring"]["references_per_item"] == 4.0


def test_missing_media(
    checkpoint: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.name for path in (world / "images").glob("test_*"))[:6]
    shutil.copytree(world / "images", tmp_path / "images")
    (tmp_path / "images" / names[2]).unlink()
    (tmp_path / "images" / names[4]).write_bytes(b"not a picture")
    table = write_rows(tmp_path / "t.jsonl", [{"image": f"images/{n}", "caption": "a circle"} for n in names])
    out = tmp_path / "out"
    error = refused(capsys, "evaluate", checkpoint, table, "--out", out, *FAST)
    assert "2 of 6 items have unreadable media" in error and "line 3" in error and names[2] in error
    result = evaluate(checkpoint, table, out, "--allow-missing-media")
    assert result["n"] == 4 and result["coverage"] == pytest.approx(4 / 6) and len(result["unreadable"]) == 2
    shutil.copy(world / "images" / names[2], tmp_path / "images" / names[2])
    shutil.copy(world / "images" / names[4], tmp_path / "images" / names[4])
    mended = evaluate(checkpoint, table, out)
    assert mended["coverage"] == 1.0
    lines = (out / "parts" / "0-of-1.jsonl").read_text().splitlines()
    assert len(lines) <= 6 + 2 + 2, "readable rows were predicted again"
    shutil.rmtree(tmp_path / "images")
    wide = write_rows(tmp_path / "w.jsonl", [{"image": f"images/{k}.jpg", "caption": "x"} for k in range(40)])
    error = refused(capsys, "evaluate", checkpoint, wide, "--out", tmp_path / "w", "--batch-size", 8, *FAST)
    assert "8 of the first 8 items" in error and "--image-dir" in error


def test_a_bad_target_shows_before_anything_is_predicted(
    checkpoint: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"image": "images/test_00000.jpg", "text": "a", "box": box} for box in ("0,0,9,9", "0,0,nine,9")]
    table = write_rows(tmp_path / "t.jsonl", rows)
    words = (
        "evaluate",
        checkpoint,
        table,
        "--task",
        "refcoco",
        "--image-dir",
        world,
        "--out",
        tmp_path / "o",
    )
    error = refused(capsys, *words, "--device", "cpu")
    assert "line 2" in error and "box" in error and not (tmp_path / "o" / "parts").exists()
    partly = write_rows(
        tmp_path / "p.jsonl",
        [{"image": "images/test_00000.jpg", "question": "q?", "answer": a} for a in ("x", None)],
    )
    error = refused(
        capsys, "evaluate", checkpoint, partly, "--task", "vqa", "--image-dir", world, "--out", tmp_path / "o"
    )
    assert "1 of 2 items carry no target" in error


@pytest.mark.parametrize("metric", ["meteor", "spice"])
def test_java_is_missed_before_anything_is_predicted(
    checkpoint: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, metric: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    words = (
        "evaluate",
        checkpoint,
        world / "tables/caption_val.tsv",
        "--image-dir",
        world,
        "--out",
        tmp_path / "o",
    )
    error = refused(capsys, *words, "--metrics", f"cider,{metric}", "--device", "cpu")
    assert "Nothing was predicted" in error and not (tmp_path / "o").exists()
    assert "unknown metric 'ciderr'" in refused(capsys, *words, "--metrics", "ciderr", "--device", "cpu")


class TestAnswers:
    """Open, trie and rank for the image questions of the world."""

    ANSWERS = ("red", "blue", "2", "a large one", "yes", "no")

    @pytest.fixture(scope="class")
    def model(self, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return make_checkpoint(tmp_path_factory.mktemp("vqa"), world, "vqa")

    @pytest.mark.parametrize("task", ["vqa", "video_vqa_gen"])
    @pytest.mark.parametrize("form", ["txt", "json", "pkl"])
    @pytest.mark.parametrize("mode", ["trie", "rank"])
    def test_no_answer_leaves_the_list(
        self, model: Path, world: Path, tmp_path: Path, task: str, form: str, mode: str
    ) -> None:
        answers = tmp_path / f"answers.{form}"
        if form == "txt":
            answers.write_text("\n".join(self.ANSWERS) + "\n")
        elif form == "json":
            answers.write_text(json.dumps(self.ANSWERS))
        else:
            answers.write_bytes(pickle.dumps({name: k for k, name in enumerate(self.ANSWERS)}))
        table = world / "tables" / ("vqa_test.tsv" if task == "vqa" else "video_vqa_test.tsv")
        words = (
            "--task",
            task,
            "--mode",
            mode,
            "--ans2label-file",
            answers,
            "--image-dir",
            world,
            "--limit",
            12,
            *SHORT,
        )
        result = evaluate(model, table, tmp_path / "out", *words)
        found = predictions(tmp_path / "out")
        assert {p["prediction"] for p in found} <= set(self.ANSWERS)
        assert result["decoding"]["answers"] == len(self.ANSWERS) and result["decoding"]["mode"] != "open"

    def test_open_needs_no_list(
        self, model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = world / "tables/vqa_test.tsv"
        words = ("--image-dir", world, "--limit", 6)
        result = evaluate(
            model, table, tmp_path / "a", *words, "--mode", "open", "--ans2label-file", "absent.txt"
        )
        assert result["decoding"]["mode"] == "open" and "answers" not in result["decoding"]
        error = refused(
            capsys, "evaluate", model, table, "--out", tmp_path / "b", *words, "--mode", "trie", *FAST
        )
        assert "no closed list" in error and "ans2label_file" in error
        evil = tmp_path / "evil.pkl"
        evil.write_bytes(pickle.dumps(shutil.rmtree))
        words = (*words, "--mode", "rank", "--ans2label-file", evil)
        assert "only plain" in refused(
            capsys, "evaluate", model, table, "--out", tmp_path / "b", *words, *FAST
        )

    def test_official_accuracy(
        self, model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        humans = ["Red"] * 4 + ["blue."] * 3 + ["a pink"] * 3
        rows = [{"image": "images/test_00000.jpg", "question": "which colour?", "answers": humans}] * 2
        table = write_rows(tmp_path / "t.jsonl", rows)
        words = ("--image-dir", world, "--protocol", "official", "--mode", "rank", "--answers", "red")
        result = evaluate(model, table, tmp_path / "o", *words)
        assert result["main_metric"] == "vqa_accuracy"
        assert result["metrics"]["vqa_accuracy"] == 1.0 and result["metrics"]["vqa_score"] == 0.0
        words = ("evaluate", model, world / "tables/vqa_val.tsv", "--out", tmp_path / "p", *words)
        assert "as a list" in refused(capsys, *words)


def test_recipe_replaces_the_checkpoints_prompt_and_options(
    checkpoint: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "zero.yaml"
    recipe.write_text(
        f"task: caption\ndata: {{valid: '{world}/tables/caption_val.tsv'}}\n"
        f"inputs: {{patch_image_size: 64, image_dir: '{world}', prompts: {{caption.image: ' say it'}}}}\n"
        "validation: {eval_args: {beam: 3, max_len_b: 4}}\n"
    )
    words = [
        "evaluate",
        checkpoint,
        "--recipe",
        recipe,
        "--out",
        tmp_path / "o",
        "--limit",
        3,
        "--device",
        "cpu",
    ]
    assert main([str(word) for word in words]) == 0
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert result["options"]["patch_image_size"] == 64 and OPTIONS["patch_image_size"] == 32
    assert result["options"]["prompts"] == {"caption.image": " say it"} and result["decoding"]["beam"] == 3
    assert "video_flip" in result["options"] and result["recipe"] == str(recipe)
    recipe.write_text(recipe.read_text().replace("patch_image_size", "patch_image_sise"))
    assert "Did you mean 'patch_image_size'?" in refused(capsys, *words)
    plain = ["evaluate", checkpoint, world / "tables/caption_val.tsv", "--zero-shot", "--out", tmp_path / "z"]
    words = [*plain, "--image-dir", world, "--limit", 2, "--patch-image-size", 48, *FAST]
    assert main([str(word) for word in words]) == 0
    options = json.loads((tmp_path / "z" / "result.json").read_text())["options"]
    assert (
        options["patch_image_size"] == 48 and options["num_frames"] == 4
    )  # the default, not the checkpoint's 2


def test_random_frames_and_crops_are_an_option_and_seeded(
    checkpoint: Path, world: Path, tmp_path: Path
) -> None:
    table = world / "tables/video_caption_train.tsv"
    runs = {}
    for name, words in {
        "a": (),
        "b": ("--eval-sample-type", "rand"),
        "c": ("--eval-sample-type", "rand", "--batch-size", 3),
        "d": ("--eval-sample-type", "rand", "--seed", 8),
    }.items():
        words = ("--task", "video_caption", "--image-dir", world, *words)
        result = evaluate(checkpoint, table, tmp_path / name, *words)
        runs[name] = [p["score"] for p in predictions(tmp_path / name)]
        assert result["modality"] == "video"
    assert runs["b"] == pytest.approx(runs["c"], abs=2e-4)
    assert runs["a"] != runs["b"] != runs["d"]
    table = world / "tables/audio_caption_train.tsv"
    for name, crop in (("e", "centre"), ("f", "rand")):
        words = (
            "--task",
            "audio_caption",
            "--image-dir",
            world,
            "--max-audio-len",
            8000,
            "--eval-audio-crop",
            crop,
        )
        evaluate(checkpoint, table, tmp_path / name, *words)
        runs[name] = [p["score"] for p in predictions(tmp_path / name)]
    assert runs["e"] != runs["f"]


@pytest.mark.parametrize("task", ["caption", "refcoco", "snli_ve", "video_caption", "audio_caption"])
def test_report_is_written_from_results(checkpoint: Path, world: Path, tmp_path: Path, task: str) -> None:
    name = {"refcoco": "grounding", "snli_ve": "entailment"}.get(task, task)
    archive = tmp_path / "media.tar"
    with tarfile.open(archive, "w") as tar:
        for folder in ("images", "videos", "audio"):
            for path in sorted((world / folder).iterdir()):
                if "test" in path.name or "video" in folder or "audio" in folder:
                    content = path.read_bytes()
                    member = tarfile.TarInfo(f"{folder}/{path.name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    words = (
        "--task",
        task,
        "--image-dir",
        archive,
        "--limit",
        3,
        "--train-table",
        world / f"tables/{name}_test.tsv",
    )
    result = evaluate(checkpoint, world / f"tables/{name}_test.tsv", tmp_path / "o", *words)
    assert Path(result["media_root"]) == archive
    report = write_report([tmp_path / "o" / "result.json"], tmp_path / "report")
    page = report.page.read_text()
    assert "no such file" not in page and page.count("<figure") == result["n"]
    assert f"{result['metrics'][result['main_metric']]:.3f}" in report.table


def test_log_of_the_training_run_is_named(checkpoint: Path, world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(checkpoint, copy)
    log = copy / "train_log.jsonl"
    log.write_text('{"update": 1, "split": "train", "loss": 3.0}\n')
    result = evaluate(
        copy, world / "tables/caption_val.tsv", tmp_path / "o", "--image-dir", world, "--limit", 2
    )
    assert result["log"] == str(log.resolve())
