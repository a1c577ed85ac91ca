"""Commands in README and docs: verbs, options and files exist, and the README's own block works."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.plugin_runs import DATA, MODEL, command
from unival.cli import DATA_VERBS, VERBS

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("configs/", "run_scripts/", "scripts/", "benchmarks/", "docs/", "checkpoints/")
# lines of the README's block that other tests run at small size
ELSEWHERE = ("data sample", "score", "merge", "demo")


def shell_blocks(page: Path) -> list[str]:
    """Contents of the page's fenced blocks that are marked as bash or not marked."""
    found: list[str] = []
    lines: list[str] | None = None
    wanted = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```") and lines is None:
            lines, wanted = [], line in ("```", "```bash")
        elif line.startswith("```"):
            found += ["\n".join(lines or [])] if wanted else []
            lines = None
        elif lines is not None:
            lines.append(line)
    return found


def commands(page: Path) -> list[list[str]]:
    """Command lines of the page's shell blocks, without comments and leading assignments."""
    found = []
    for block in shell_blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and (words[0] in ("unival", "bash", "python", "sbatch") or "/" in words[0]):
                found.append(words)
    return found


def verb_of(words: list[str]) -> tuple[str, str]:
    """Return (module, name) of a ``unival`` command."""
    table, name = (DATA_VERBS, words[2]) if words[1] == "data" else (VERBS, words[1])
    assert name in table, f"unknown verb in: {' '.join(words)}"
    return table[name][0], name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_name_what_exists(page: Path) -> None:
    for words in commands(page):
        line = " ".join(words)
        for word in words:
            if word.startswith(FOLDERS) and not re.search(r"[A-Z*{<$]", word.replace("README", "")):
                assert (ROOT / word).exists(), f"{page.name}: {word} in: {line}"
        if words[0] != "unival":
            continue
        module = import_module(verb_of(words)[0])
        if getattr(module, "PASSES_OPTIONS", False):
            continue
        if words[1] == "merge" and words[2] in module.ACTIONS:
            module = import_module(f"unival.cli.merge_{words[2]}")
        parser = argparse.ArgumentParser(allow_abbrev=False)
        module.add_arguments(parser)
        known = set(parser._option_string_actions)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):  # such as the corpora of "data prepare"
                chosen = [action.choices[word] for word in words if word in action.choices]
                known |= {flag for sub in chosen for flag in sub._option_string_actions}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page.name}: {word} in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_the_readmes_commands_work_in_their_order(runner, world: Path, tmp_path: Path) -> None:
    block = next(text for text in shell_blocks(ROOT / "README.md") if "unival plan" in text)
    shutil.copytree(world, tmp_path / "userdata/world")
    env = {"UNIVAL_DATA": str(tmp_path / "userdata"), "UNIVAL_OUT": str(tmp_path / "out")}
    small = [*MODEL[1:], *DATA, "--max-update=2", "--batch-size=8", "--num-workers=0"]
    pretrained = tmp_path / "out/tiny/stage2"  # where the quickstart leaves what the recipe starts from
    table = world / "tables/caption_train.tsv"
    options = command("caption", table, world, pretrained, "--max-update=1", "--disable-validation")
    runner.start(options, pretrained).finish().ok()
    ran = []
    for line in block.splitlines():
        words = shlex.split(line, comments=True)[1:]
        if " ".join(words).startswith(ELSEWHERE):
            continue
        words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
        extra = (
            small
            if words[0] in ("train", "plan")
            else ["--batch-size", "8"]
            if words[0] == "evaluate"
            else []
        )
        extra += ["--out", "out/tiny/evaluation/caption"] if words[0] == "evaluate" else []
        done = runner.start([*words, *extra], tmp_path, env, cwd=tmp_path, program="unival.cli").finish()
        assert done.code == 0, f"{line}\n{done.text}"
        ran.append(words[0])
    assert ran == ["plan", "train", "evaluate", "predict", "report"]
    assert (tmp_path / "out/tiny/report/report.html").is_file()
