"""``unival doctor`` names every dependency of setup.py, and what to type for those that are absent."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unival.cli.installation import CORE, EXTRAS
from unival.core.installation import installer

ROOT = Path(__file__).resolve().parents[3]


def declared(name: str) -> object:
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def names(requirements: object) -> set[str]:
    assert isinstance(requirements, list)
    return {re.split(r"[><=]", text)[0] for text in requirements}


def test_it_knows_the_dependencies() -> None:
    assert set(CORE) == names(declared("REQUIRED")) - {"tqdm"}
    extras = declared("EXTRAS")
    assert isinstance(extras, dict)
    for extra, packages in EXTRAS.items():
        assert set(packages) <= names(extras[extra]), extra


@pytest.mark.slow
def test_absent_packages_are_named_with_their_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import importlib.metadata as m, sys\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name in ('fairseq-fixed', 'av'): raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "from unival.cli import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    assert re.search(r"MISSING +av ", done.stdout) and re.search(r" - +fairseq-fixed ", done.stdout)
    monkeypatch.chdir(ROOT)
    assert f"{installer()} av\n" in done.stdout and "pip install " in done.stdout
    assert "-e '.[train]'\n" in done.stdout
    assert re.search(r" ok +torch ", done.stdout)
