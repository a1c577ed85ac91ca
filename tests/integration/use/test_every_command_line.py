"""All verbs with bad values of every option, in one process: a result or one line, never a traceback."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from unival.cli import DATA_VERBS, VERBS, main, verb_parser
from unival.cli.merge import ACTIONS
from unival.core.command import Parser

# verb -> words that make it complete; A: a file that is absent, F: a file in the way, T: a small table
VERB_WORDS: dict[str, list[str]] = {
    "train": ["A.yaml"],
    "plan": ["A.yaml"],
    "doctor": ["A"],
    "evaluate": ["A", "T"],
    "predict": ["A", "A.jpg"],
    "score": ["T", "A", "--task", "caption"],
    "compare": ["A", "A"],
    "reproduce": ["A"],
    "merge": ["A.yaml"],
    "merge fisher": ["A", "--recipe", "A.yaml", "--out", "O"],
    "merge sweep": ["A.yaml"],
    "merge chain": ["A.yaml"],
    "merge plot": ["A", "--out", "O"],
    "convert": ["A", "O"],
    "download": ["A"],
    "demo": ["A"],
    "serve": ["A"],
    "report": ["A", "--out", "O"],
    "data sample": ["F"],
    "data clip": ["A", "--out", "O"],
    "data codebook": ["A", "--out", "O"],
    "data codes": ["A", "--out", "O", "--vqgan-model-path", "A"],
    "data fid-statistics": ["A", "--out", "O", "--inception-model-path", "A"],
    "data vocabulary": ["--train-on", "A:caption", "--out", "O"],
    "data convert": ["A", "--task", "caption", "--out", "O"],
    "data validate": ["A", "--task", "caption"],
    "data show": ["A", "--task", "caption"],
    "data split": ["A", "--by", "image"],
    "data index": ["A"],
    "data features": ["D"],
    "data prepare": ["coco-captions", "--annotations", "A", "--out", "O"],
    "data compress": ["A", "O"],
}
WORDS = (
    "",
    "\0",
    "-1",
    "0",
    "x",
    "nan",
    "1e400",
    "9" * 5000,
    "{",
    "[1, 2]",
    "A",
    "F/below",
    "D",
    "caf\udce9",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    (folder / "file").write_text("x")
    (folder / "folder").mkdir()
    (folder / "table.jsonl").write_text('{"id": "1", "image": "no.jpg", "caption": "a cat"}\n')
    return folder


def filled(word: str, place: Path) -> str:
    """The word with its place in the folder of the test."""
    names = {"A": "absent", "F": "file", "D": "folder", "T": "table.jsonl", "O": "out"}
    head, mark, tail = word.partition("/")
    stem, dot, ending = head.partition(".")
    if stem.split(":")[0] not in names:
        return word
    stem, colon, column = stem.partition(":")
    return f"{place / names[stem]}{colon}{column}{dot}{ending}{mark}{tail}"


def parser_of(verb: str) -> argparse.ArgumentParser:
    first, _, second = verb.partition(" ")
    if first == "data":
        return verb_parser(second, DATA_VERBS)
    if second:
        parser = Parser(prog=f"unival {verb}")
        import_module(f"unival.cli.merge_{second}").add_arguments(parser)
        return parser
    return verb_parser(first, VERBS)


def options_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, bool]]:
    """Every option and whether it takes a value; those of the first sub-command too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from options_of(next(iter(action.choices.values())))
        elif action.option_strings and action.dest != "help":
            yield action.option_strings[0], action.nargs != 0


def ends(words: list[str]) -> tuple[int, str]:
    """Exit code and what is said on standard error; anything but a result or a refusal is raised."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return code, said.getvalue()


def test_every_verb_is_walked_through() -> None:
    verbs = {*VERBS, *(f"data {verb}" for verb in DATA_VERBS), *(f"merge {action}" for action in ACTIONS)}
    assert verbs == set(VERB_WORDS)


@pytest.mark.parametrize("verb", VERB_WORDS)
def test_bad_values_of_every_option(verb: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = sorted(path.name for path in place.iterdir())
    base = [*verb.split(), *(filled(word, place) for word in VERB_WORDS[verb])]
    lines = [base, [*base, "--bogus"], [*base, "\0", "caf\udce9"]]
    for option, takes in options_of(parser_of(verb)):
        values = WORDS if takes else (None,)
        lines += [[*base, option if v is None else f"{option}={filled(v, place)}"] for v in values]
    for words in lines:
        code, said = ends(words)
        assert code in (0, 1, 2), words
        if code == 2:
            assert said.count("\n") == 1 and "error: " in said and len(said) < 1500, (words, said)
            assert said.encode("utf-8", "backslashreplace")
    assert sorted(path.name for path in place.iterdir()) == before, "a refused command line leaves nothing"
