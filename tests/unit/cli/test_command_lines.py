"""How every command line ends: a result, or one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unival.cli import main
from unival.core.device import device_named
from unival.errors import ConfigError, explained, shortened
from unival.generate.settings import GenerationSettings
from unival.specs import SpecOptions


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command line ends with, which is refused."""
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    assert code == 2 and "Traceback" not in said
    assert said.count("\n") == 1 and "error: " in said, said
    return said


@pytest.mark.parametrize(
    "words",
    [["evaluat"], [], ["data"], ["data", "x"], ["score", "--bogus"], ["merge", "plot", "a"], ["merge"]],
)
def test_an_odd_command_line_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refusal(words, capsys)


def test_a_missing_file_and_a_folder_in_its_place_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"id": "1", "caption": "a"}\n')
    said = refusal(["score", str(table), str(table), "--task", "caption", "--out", str(tmp_path)], capsys)
    assert said == f"error: cannot write {tmp_path}: it is a folder; give the name of a file\n"
    assert "absent.jsonl" in refusal(["data", "index", str(tmp_path / "absent.jsonl")], capsys)


def test_faults_of_the_program_stay_tracebacks() -> None:
    assert explained(TypeError("x")) is None
    assert explained(ModuleNotFoundError("No module named 'unival.x'", name="unival.x")) is None
    assert (
        explained(OSError(28, "No space left on device"))
        == "a file cannot be written: No space left on device"
    )
    assert len(shortened("x" * 5000)) <= 205


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:99", "", "cuda:-1", "mps", "cpu:x", "meta"])
def test_devices_that_are_not_there(name: str) -> None:
    import torch

    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=f"^device '{name}'"):
        device_named(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"beam": "5"},
        {"beam": 2.5},
        {"beam": True},
        {"sampling": "false"},
        {"lenpen": float("nan")},
        {"beam": None},
    ],
)
def test_decoding_settings_have_their_types(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^generation setting \w+ .*: expected "):
        GenerationSettings.of(settings)


def test_task_options_have_their_types() -> None:
    for options in ({"num_frames": "4"}, {"num_frames": 2.5}, {"use_dataaug": "no"}, {"prompts": "x"}):
        with pytest.raises(ConfigError, match=r"^task option \w+ .*: expected "):
            SpecOptions.from_options(**options)


def test_a_terminal_without_a_character_gets_its_escape(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"id": "1", "image": "caf\u00e9 \u7d05.jpg", "caption": "red \ud83d"}) + "\n")
    words = [sys.executable, "-m", "unival", "data", "validate", str(table), "--task", "caption"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"caf\\xe9 \\u7d05" in done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    words = f"{sys.executable} -m unival download --list"
    done = subprocess.run(["bash", "-c", f"{words} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True)
    assert done.returncode in (0, 141) and not done.stderr


def test_control_c_is_one_line(tmp_path: Path) -> None:
    world = [
        sys.executable,
        "-u",
        "-m",
        "unival",
        "data",
        "sample",
        str(tmp_path / "world"),
        "--images",
        "4000",
    ]
    process = subprocess.Popen(world, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == b"interrupted\n"
