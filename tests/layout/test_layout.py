"""The layout rule: what imports fairseq lives in four folders, and nothing generic is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("models", "tasks", "criterions", "data")
EXCEPTIONS = {"unival/plugin.py", "unival/train.py"}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_the_library_never_imports_fairseq():
    for path in sources("unival"):
        name = path.relative_to(ROOT).as_posix()
        if name in EXCEPTIONS:
            continue
        engine = {m for m in imports(path) if m.split(".")[0] in ("fairseq", "fairseq_cli")}
        plugin = {m for m in imports(path) if m.split(".")[:2] in [["unival", f] for f in FOLDERS]}
        assert not engine and not plugin, f"{name} imports {engine | plugin}"


def test_the_four_folders_have_one_import_name():
    for path in sources("unival", *FOLDERS, "tests", "benchmarks", "scripts"):
        generic = {m for m in imports(path) if m.split(".")[0] in FOLDERS}
        assert not generic, f"{path.relative_to(ROOT)} imports {generic}; say unival.{next(iter(generic))}"


def test_plugin_lists_exactly_the_files_that_exist():
    prefixes = tuple(f"unival.{folder}." for folder in FOLDERS)
    listed = {m for m in imports(ROOT / "unival/plugin.py") if m.startswith(prefixes)}
    existing = {f"unival.{folder}.{p.stem}" for folder in FOLDERS for p in (ROOT / folder).glob("*.py")}
    assert listed == {name for name in existing if not name.endswith(".__init__")}


def test_importing_unival_is_free_of_fairseq_and_of_heavy_libraries():
    code = (
        "import sys, unival\n"
        "heavy = [m for m in ('fairseq', 'av', 'librosa', 'timm', 'torchvision', 'soundfile') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_user_dir_registers_in_a_bare_checkout(tmp_path):
    code = (
        "import sys\n"
        "from argparse import Namespace\n"
        "import fairseq.utils\n"
        f"fairseq.utils.import_user_module(Namespace(user_dir={str(ROOT / 'unival')!r}))\n"
        "from fairseq.tasks import TASK_REGISTRY\n"
        "from fairseq.models import ARCH_MODEL_REGISTRY\n"
        "from fairseq.criterions import CRITERION_REGISTRY\n"
        "for name in ('caption', 'video_caption', 'audio_caption', 'vqa_gen', 'video_vqa_gen', 'refcoco',\n"
        "             'snli_ve', 'unify_task'):\n"
        "    assert name in TASK_REGISTRY, name\n"
        "for name in ('unival_tiny', 'unival_medium', 'unival_base', 'unival_large', 'unival_huge'):\n"
        "    assert name in ARCH_MODEL_REGISTRY, name\n"
        "for name in ('adjust_label_smoothed_cross_entropy', 'adjust_label_smoothed_encouraging_loss'):\n"
        "    assert name in CRITERION_REGISTRY, name\n"
        "assert not {'models', 'tasks', 'criterions', 'data'} & set(sys.modules)\n"
    )
    pytest.importorskip("fairseq")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_wheel_has_one_top_level_package(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "copy"
    copy.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = tracked.stdout.split("\0") if tracked.returncode == 0 else []
    if not names:
        pytest.skip("needs a git checkout to copy the tracked files from")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run([*command, "-w", str(tmp_path), str(copy)], check=True)
    wheel = next(tmp_path.glob("unival-*.whl"))
    members = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in members}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"unival"}
    for folder in FOLDERS:
        assert f"unival/{folder}/__init__.py" in members
    published = (ROOT / "unival/checkpoint/published").glob("*.yaml")
    assert {f"unival/checkpoint/published/{path.name}" for path in published} <= set(members)
    assert "unival/configs/evaluate/caption_coco.yaml" in members, "the catalogue names recipes"


def test_no_file_is_longer_than_its_limit():
    offenders = {
        path.relative_to(ROOT).as_posix(): lines
        for path in sources("unival", *FOLDERS, "tests", "benchmarks")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 600
    }
    assert not offenders, offenders


def test_helpers_of_tests_are_not_imported_from_a_conftest():
    """There are several; which one the name means depends on what was collected last."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert "conftest" not in imports(path), f"{path.relative_to(ROOT)} imports from conftest"


def test_durations_come_from_a_clock_that_does_not_jump():
    """The time of day is set while a run waits; who waits looks at ``time.monotonic``."""
    for path in sources("unival", *FOLDERS):
        text = path.read_text(encoding="utf-8")
        assert "time.time()" not in text and "datetime.now" not in text, path
