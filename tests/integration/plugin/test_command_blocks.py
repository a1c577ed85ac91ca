"""Command blocks of the documents, run in a real shell as they are written, but for sizes, ports and placeholders."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.integration.plugin.test_documents import PAGES, shell_blocks
from tests.support.forks import forks
from tests.support.plugin_runs import DATA, MODEL, command

ROOT = Path(__file__).resolve().parents[3]
SMALL = [*MODEL[1:], *DATA, "--max-update=2", "--batch-size=8", "--num-workers=0"]
# Blocks that other files run: page -> what begins the block (None: every block), where.
ELSEWHERE = {
    (
        "README.md",
        "bash run_scripts/quickstart.sh",
    ): "tests/integration/recipes/test_recipe_runs.py",  # each of its recipes
    ("README.md", "bash scripts/test.sh"): "scripts/test.sh",
    ("README.md", "python3 -m venv"): "scripts/setup.sh",
    ("README.md", "unival download"): "tests/integration/use/test_use_published.py",
    ("docs/evaluation.md", "unival evaluate out/finetune"): "tests/integration/evaluate/test_paper.py",
    ("README.md", "unival data sample"): "tests/integration/plugin/test_documents.py",
    (
        "docs/reliability.md",
        None,
    ): "tests/integration/plugin/test_chaos.py",  # short forms; the fuzz beside it
    ("docs/launching.md", "apt-get install slurm-wlm"): "tests/integration/plugin/test_clusters.py",
    ("docs/launching.md", "CPUS=4"): "tests/integration/plugin/test_clusters.py",
    ("docs/adding-a-task.md", None): "tests/integration/plugin/test_own_task.py",
    ("docs/demo.md", "unival demo"): "tests/integration/serve/test_demo_page.py",
    ("docs/preparing-data.md", "unival data prepare"): "tests/integration/prepare/test_prepare_captions.py",
    ("docs/checkpoints.md", "# what moved alone"): "tests/unit/modeling/test_lora.py",
    ("docs/preparing-data.md", "unival data compress"): "tests/integration/prepare/test_compress.py",
    (
        "docs/results.md",
        "UNIVAL_DATA=userdata python",
    ): "tests/unit/experiments/test_miniature_experiments.py",
    ("docs/self-critical.md", None): "tests/integration/recipes/test_recipe_runs.py",
    ("docs/merging.md", None): "tests/integration/merge/test_merge_chain.py",
    (
        "docs/image-generation.md",
        "unival data prepare",
    ): "tests/integration/prepare/test_prepare_image_gen.py",
}
HERE = {
    ("docs/checkpoints.md", "unival convert"),
    ("docs/checkpoints.md", "unival download"),
    ("docs/demo.md", "unival serve"),
    ("docs/demo.md", "curl"),
    ("docs/evaluation.md", "unival evaluate out/tiny"),
    ("docs/image-generation.md", "E="),
    ("docs/training.md", "unival train"),
}


def block(page: str, begin: str) -> str:
    """The shell block of a page that begins so, joined lines and all."""
    (found,) = [b for b in shell_blocks(ROOT / page) if b.startswith(begin)]
    return found


def is_scripts(text: str) -> bool:
    """Nothing but run scripts, which have a dry run."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return all(re.match(r"([A-Z_]+=(\"[^\"]*\"|\S+) )*(bash )?run_scripts/", line) for line in lines)


@pytest.fixture
def shell(tmp_path: Path):
    """Run a block in ``tmp_path`` with ``unival`` on the path; returns what it printed."""
    program = tmp_path / "bin/unival"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(forks().program)} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    env = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "UNIVAL_DATA": str(tmp_path / "userdata"),
        "UNIVAL_OUT": str(tmp_path / "out"),
    }

    def run(text: str, check: bool = True) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0 or not check, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run.env = env  # type: ignore[attr-defined]
    return run


@pytest.fixture
def captioner(runner, world: Path, tmp_path: Path) -> Path:
    """A tiny captioning checkpoint where the quickstart leaves it, its world where the quickstart puts it."""
    shutil.copytree(world, tmp_path / "userdata/world")
    folder = tmp_path / "out/tiny/caption"
    tables = [world / "tables/caption_train.tsv", world / "tables/caption_val.tsv"]
    options = command("caption", tables, world, folder, "--max-update=2", "--best-checkpoint-metric=loss")
    runner.start(options, folder).finish().ok()
    return folder / "checkpoint_best.pt"


def test_every_block_is_run_somewhere() -> None:
    known = {(page, begin) for page, begin in ELSEWHERE} | HERE
    for path in PAGES:
        page = path.relative_to(ROOT).as_posix()
        if page.startswith(
            "docs/your-data/"
        ):  # tests/integration/plugin/test_your_data.py follows each of them
            continue
        for text in shell_blocks(path):
            named = [
                begin for where, begin in known if where == page and (begin is None or text.startswith(begin))
            ]
            assert named or is_scripts(text), f"{page}: no test runs the block\n{text}"
    for path in ELSEWHERE.values():
        assert (ROOT / path).is_file(), path


def script_lines() -> list[str]:
    blocks = [text for page in PAGES for text in shell_blocks(page) if is_scripts(text)]
    lines = [line for text in blocks for line in text.splitlines() if "run_scripts/" in line]
    return sorted({line.split("  #")[0].strip() for line in lines})


@pytest.mark.parametrize("line", script_lines())
def test_script_lines_say_what_they_would_run(line: str, tmp_path: Path) -> None:
    if "quickstart.sh" in line or "own_data.sh" in line:  # whole programs without a dry run
        path = re.findall(r"run_scripts/\S+", line)[0]
        assert subprocess.run(["bash", "-n", ROOT / path], check=False).returncode == 0
        return
    line = line if "bash run_scripts" in line else line.replace("run_scripts", "bash run_scripts")
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        env={**os.environ, "DRY_RUN": "1", "UNIVAL_OUT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wanted = "sbatch" if "SUBMIT" in line else "unival"
    assert wanted in done.stdout, done.stdout


@pytest.mark.slow
def test_converting_there_and_back(shell, captioner: Path, tmp_path: Path) -> None:
    released = tmp_path / "weights/unival_caption_stage_1/checkpoint_best_test.pt"
    released.parent.mkdir(parents=True)
    shutil.copy(captioner, released)
    shutil.copytree(tmp_path / "userdata/world/vocabulary", tmp_path / "weights/bpe")
    shell(block("docs/checkpoints.md", "unival convert"))
    assert (tmp_path / "out/caption/model.safetensors").is_file()
    assert (tmp_path / "out/caption.pt").is_file() and (tmp_path / "out/caption_hf/config.json").is_file()
    listing, *downloads = block("docs/checkpoints.md", "unival download").splitlines()
    assert "unival_caption_stage_1" in shell(listing)
    for download in downloads:  # what would be fetched; tests/integration/use/test_use_download.py fetches
        said = shell(download if "--dry-run" in download else f"{download} --dry-run")
        assert "https://" in said and "Traceback" not in said


@pytest.mark.slow
def test_evaluation_with_two_processes(shell, captioner: Path) -> None:
    said = shell(block("docs/evaluation.md", "unival evaluate out/tiny"))
    assert "cider" in said


@pytest.mark.slow
def test_training_with_and_without_a_recipe(shell, captioner: Path, tmp_path: Path) -> None:
    stage2 = tmp_path / "out/tiny/stage2"
    stage2.mkdir()
    shutil.copy(captioner, stage2 / "checkpoint_last.pt")
    shutil.rmtree(captioner.parent)
    text = block("docs/training.md", "unival train").replace("\\\n", " ")
    first, second, engine = [line.split("   #")[0] for line in text.splitlines()]
    small = " ".join(f"'{word}'" for word in SMALL)
    assert "valid on" in shell(f"{first} {small}")
    shell(f"{second} {small}")
    tables = tmp_path / "userdata/world/tables"
    engine = engine.replace("TRAIN.tsv", str(tables / "caption_train.tsv"))
    engine = engine.replace("VALID.tsv", str(tables / "caption_val.tsv"))
    engine = engine.replace("VOCABULARY", str(tmp_path / "userdata/world/vocabulary"))
    engine = engine.replace("--user-dir unival", f"--user-dir {ROOT / 'unival'}")
    rest = f"{small} '--image-dir={tmp_path / 'userdata/world'}' --optimizer=adam --lr=1e-3 --save-dir=out/engine"
    shell(engine.replace("...", rest).replace("fairseq-train", f"{sys.executable} -m fairseq_cli.train"))
    assert (tmp_path / "out/engine/checkpoint_last.pt").is_file()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_server_answers_the_documents_requests(shell, captioner: Path, world: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shutil.copy(sorted((world / "images").glob("*.jpg"))[0], tmp_path / "photo.jpg")
    start = block("docs/demo.md", "unival serve").replace("8000", port)
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {start}"], cwd=tmp_path, env=shell.env, stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
        lines = block("docs/demo.md", "curl").replace("8000", port).splitlines()
        said = [shell(f"{line} -s -w '\\n%{{http_code}}'") for line in lines if line.startswith("curl")]
        assert [answer.split()[-1] for answer in said] == ["200"] * 3, said
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_pictures_from_ones_own_pictures(shell, world: Path, tmp_path: Path) -> None:
    """The long block of text-to-image, every step of it, for two updates each."""
    pytest.importorskip("open_clip")
    folder = tmp_path / "out/own_data/emoji"
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / f"{split}.yaml").write_text(
            f"path: {world}/tables/caption_{split}.tsv\nlayout: caption\nmedia: {world}\nlimit: 12\n"
        )
    text = block("docs/image-generation.md", "E=")
    text = re.sub(r"--updates \d+", "--updates 2", text)
    small = [
        *MODEL[1:],
        "--max-update=2",
        "--num-workers=0",
        "--batch-size=4",
        "--validate-interval-updates=2",
    ]
    small = [word for word in small if not word.startswith(("--image-", "--resnet", "--code-"))]
    words = " ".join(f"'{word}'" for word in small)
    text = re.sub(r"(unival train \S+).*", rf"\1 {words}", text)
    text = text.replace('"beam": 8', '"beam": 2').replace(
        "--layers 2 --updates", "--layers 2 --batch-size 8 --updates"
    )
    said = shell(text)
    assert (folder / "stage2/checkpoint_last.pt").is_file(), said
    assert list((folder / "drawn/top1").glob("*.png")), said
