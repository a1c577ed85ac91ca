"""The documents as a site: it builds without a warning, every page is reachable, the tour names what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_site_builds(tmp_path):
    pytest.importorskip("material", reason="needs the extra 'docs'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/tour/index.html").is_file() and (
        tmp_path / "site/search/search_index.json"
    ).is_file()


def test_every_page_is_in_the_navigation():
    listed: set[str] = set()

    def collect(entry):
        if isinstance(entry, str):
            listed.add(entry)
        for part in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            collect(part)

    collect(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed == pages


@pytest.mark.parametrize("page", ["docs/tour.md", "docs/glossary.md", "docs/model.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:unival|data|tasks|criterions|models|tests|scripts|configs)/[\w/.-]*)`", text)
    missing = {name for name in named if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()}
    assert named and not missing, missing
