"""benchmarks/gpu.sh: all of it runs with a tiny model on a CPU, in time; its summary says what was reached."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
PARTS = ("steps", "generation", "run", "graphs", "compiled")


@pytest.fixture(name="script", scope="module")
def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_summary", BENCHMARKS / "gpu_summary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def step(what: str, batch: int, seconds: float, way: str = "eager", **values: Any) -> dict[str, Any]:
    row = {
        "part": "step",
        "what": what,
        "batch": batch,
        "seconds": seconds,
        "way": way,
        "precision": "bfloat16",
    }
    row |= {"attention": "sdpa", "layout": "channels_last", "of_peak": 0.2, "gib": 3.0, "first": 9.0}
    return {**row, "remarks": "", **values}


def cells(text: str) -> list[list[str]]:
    """The cells of all tables, without their rulers."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_limits_leave_time_for_the_summary_and_for_the_compiler() -> None:
    text = (BENCHMARKS / "gpu.sh").read_text(encoding="utf-8")
    total, grace = (int(re.findall(rf"^{name}=(\d+)", text, re.MULTILINE)[0]) for name in ("total", "grace"))
    found = re.findall(r"^part (\w+) (\d+) ", text, re.MULTILINE)
    assert tuple(name for name, _ in found) == PARTS
    assert total < 480
    assert total - sum(int(limit) + grace for _, limit in found[:-1]) >= 120


def test_goals_stand_beside_what_was_measured(script: ModuleType) -> None:
    rows = [
        step("image", 128, 0.2),
        step("image", 128, 0.125, "inductor", remarks="2 graph breaks"),
        step("video", 32, 0.2),
        {"part": "floor", "what": "resnet101", "batch": 128, "seconds": 0.1, "precision": "bfloat16"},
        {"part": "generation", "batch": 64, "beam": 5, "tokens": 16, "seconds": 0.04},
        {"part": "run", "batch": 128, "workers": 14, "rate": 612.4},
        {"part": "peak", "precision": "bfloat16", "flops": 790e12, "sheet": 989e12},
    ]
    text = script.summary(rows, [["steps", "60", "0"]], "a GPU")
    lines = cells(text)
    assert ["images a second, batch 128, as written", "640", "950", "no"] in lines
    assert ["images a second, batch 128, inductor", "1,024", "950", "yes"] in lines
    assert ["image step / bare network, batch 128, as written", "2.00", "at most 1.35", "no"] in lines
    assert ["image step / bare network, batch 128, inductor", "1.25", "at most 1.35", "yes"] in lines
    assert ["captions a second, batch 64, beam 5, 16 tokens", "1,600", "1,500", "yes"] in lines
    compiled = ["image", "inductor", "128", "125.0", "1,024", "20.00%", "3.0", "1.60", "9", "2 graph breaks"]
    assert compiled in lines
    assert "790.0 TFLOP/s of a bfloat16 product, 80% of the data sheet" in text
    assert text.startswith("a GPU\n") and text.endswith("All parts worked.\n")


def test_what_failed_is_named_and_the_rest_is_shown(script: ModuleType, tmp_path: Path) -> None:
    error = {"part": "step", "what": "image", "way": "cudagraphs", "batch": 32, "error": "RuntimeError: no"}
    text = script.summary([step("text", 32, 0.05), error], [["graphs", "85", "124"]], "")
    assert "- graphs ended with code 124 after 85 s\n" in text
    assert "- step, image, cudagraphs, 32: RuntimeError: no\n" in text
    assert ["text", "as written", "32", "50.0", "640", "20.00%", "3.0", "1.00", "9", "-"] in cells(text)
    assert script.summary([], [], "").endswith("All parts worked.\n"), "nothing measured, nothing to fail on"


def test_a_row_that_fails_says_why_and_the_next_one_runs(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--tiny", "--only", "text", "--batch", "2", "--updates", "1"]
    words += ["--way", "no_such_compiler", "eager", "--json", str(tmp_path / "rows.jsonl")]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "training_step.py", *words],
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    failed, worked = cells(done.stdout)[1:]
    assert failed[:2] == ["all", "no_such_compiler"] and "compiles nothing here" in failed[-1]
    assert worked[:2] == ["text", "eager"] and float(worked[6]) > 0
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3, "the peak and two rows"


@pytest.mark.slow
def test_parts_run_with_a_tiny_model(tmp_path: Path) -> None:
    """With the engine and data workers as on a GPU; only the sizes and the device are others. Compiled steps, which
    take a minute here, are left to ``gpu.sh --smoke`` by hand; tests of compiled trainings are in test_compiled.py."""
    parts = PARTS[:3]
    done = subprocess.run(
        ["bash", BENCHMARKS / "gpu.sh", "--smoke", tmp_path / "out"],
        env=os.environ | {"PARTS": " ".join(parts)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ended = [line.split("\t") for line in (tmp_path / "out/parts.tsv").read_text().splitlines()]
    assert [(name, code) for name, _, code in ended] == [(name, "0") for name in parts]
    text = (tmp_path / "out/summary.md").read_text()
    assert text.endswith("All parts worked.\n")
    lines = cells(text)
    ratios = [line for line in lines if line[0].startswith("image step / bare network, batch")]
    assert len(ratios) == 2 and all(float(line[1]) > 0 for line in ratios)
    rates = [line for line in lines if "captions a second" in line[0] or "JPEG files" in line[0]]
    assert len(rates) == 2 and all(float(line[1].replace(",", "")) > 0 for line in rates)
    steps = [line for line in lines if len(line) == 10][1:]
    kinds = {"image", "video", "audio", "text", "mixture"}
    assert {line[0] for line in steps if line[1] == "as written"} == kinds
    assert all(float(line[3]) > 0 and float(line[5].rstrip("%")) > 0 for line in steps)
    assert all("as written:" not in line[-1] and "graph breaks" not in line[-1] for line in steps)
    assert "Self CPU" in (tmp_path / "out/profile.txt").read_text()
