"""The Java client: every failure is an error in finite time, and no process survives it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unival.errors import ConfigError
from unival.metrics import JavaError, JavaSettings, caption_scores
from unival.metrics.java import JavaProcess, meteor, safe_field, safe_line, unavailable
from unival.metrics.tokenizer import ptb_tokenize

REFERENCES = {1: ["a dog runs"], 2: ["two cats"]}
CANDIDATES = {1: "a dog", 2: "cats"}

needs_meteor = pytest.mark.skipif(
    unavailable("meteor", JavaSettings()) is not None, reason="needs Java and pycocoevalcap's jars"
)


def _program(folder: Path, body: str) -> str:
    """A real program that stands where java would."""
    path = folder / "java-like"
    path.write_text(f"#!/bin/sh\necho $$ > '{folder}/pid'\n{body}\n")
    path.chmod(0o755)
    return str(path)


def _settings(folder: Path, body: str, limit: float = 1.0) -> JavaSettings:
    (folder / "meteor-1.5.jar").touch()
    (folder / "stanford-corenlp-3.4.1.jar").touch()
    return JavaSettings(java=_program(folder, body), jars=str(folder), start_limit=limit, answer_limit=limit)


def _gone(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sleep 600", "did not answer within"),
        ("echo 'no memory' >&2; exit 3", "no memory"),
        ("exit 0", "ended"),
        ("cat >/dev/null & sleep 600", "did not answer within"),
        ("while read line; do echo rubbish; done", "where a number was expected"),
        ("read line; exec kill -9 $$", "ended"),
    ],
)
def test_no_hang_and_no_survivor(tmp_path: Path, body: str, message: str) -> None:
    settings = _settings(tmp_path, body)
    with pytest.raises(JavaError, match=message):
        caption_scores(CANDIDATES, REFERENCES, ("meteor",), java_settings=settings)
    assert _gone(tmp_path)


def test_a_reader_that_stops_reading_cannot_block(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "sleep 600")
    with pytest.raises(JavaError, match=r"did not (read|answer)"):
        meteor([["word"] * 100_000], [[["word"]]], settings)
    assert _gone(tmp_path)


def test_much_stderr_does_not_block(tmp_path: Path) -> None:
    complain = "i=0; while [ $i -lt 20000 ]; do echo 'a long line of complaint' >&2; i=$((i+1)); done"
    body = f"{complain}; read l; echo 0.5"
    settings = _settings(tmp_path, body, 30.0)
    with JavaProcess([settings.java], settings) as process:
        assert process.ask("x") == "0.5"
    assert _gone(tmp_path)


def test_process_is_reaped_after_an_exception(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "sleep 600")
    with pytest.raises(KeyboardInterrupt), JavaProcess([settings.java], settings):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert _gone(tmp_path)


def test_tokenizer_checks_the_line_count(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "echo only one line")
    with pytest.raises(JavaError, match="lines for"):
        caption_scores(CANDIDATES, REFERENCES, tokenizer="ptb-java", java_settings=settings)
    settings = _settings(tmp_path, "echo broken >&2; exit 2")
    with pytest.raises(JavaError, match="status 2: broken"):
        caption_scores(CANDIDATES, REFERENCES, tokenizer="ptb-java", java_settings=settings)


def test_missing_programs_are_named_before_scoring(tmp_path: Path) -> None:
    absent = JavaSettings(java="no-such-java")
    for metrics, tokenizer in ((("cider", "meteor"), "ptb"), (("spice",), "ptb"), (("cider",), "ptb-java")):
        with pytest.raises(ConfigError, match="no-such-java"):
            caption_scores(CANDIDATES, REFERENCES, metrics, tokenizer, java_settings=absent)
    scores = caption_scores(
        CANDIDATES, REFERENCES, ("cider", "meteor"), java_settings=absent, skip_unavailable=True
    )
    assert list(scores.corpus) == ["CIDEr"] and "no-such-java" in scores.info["skipped"]["meteor"]
    with pytest.raises(ConfigError):
        caption_scores(CANDIDATES, REFERENCES, ("meteor",), java_settings=absent, skip_unavailable=True)
    empty = JavaSettings(java=_program(tmp_path, "exit 0"), jars=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"meteor-1\.5\.jar"):
        caption_scores(CANDIDATES, REFERENCES, ("meteor",), java_settings=empty)
    with pytest.raises(ConfigError, match="CoreNLP"):
        caption_scores(CANDIDATES, REFERENCES, ("spice",), java_settings=empty)


def test_without_java_on_path_everything_else_works(tmp_path: Path) -> None:
    code = (
        "from unival.metrics import *\n"
        "print(caption_scores(['a dog', 'cats'], [['a dog runs'], ['two cats']]).corpus['CIDEr'] > 0)\n"
        "try: caption_scores(['a'], [['a']], ('meteor',))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "ConfigError"], done.stderr


def test_unsafe_characters_never_reach_java() -> None:
    assert safe_field("a\nb\rc\x0bd\x0ce\u2028f\u2029g\x85h\x00i|||j") == "a b c d e f g h i j"


@needs_meteor
@pytest.mark.slow
def test_meteor_traps(tmp_path: Path) -> None:
    # An empty caption, a caption of separators only, and bars: right answers, in the right places.
    references = {1: ["a dog runs"], 2: ["two ||| cats\nsleep"], 3: ["a man"]}
    scores = caption_scores({1: "", 2: "two ||| cats\nsleep", 3: "a man"}, references, ("meteor",))
    assert scores.per_image[1]["METEOR"] == 0.0
    assert scores.per_image[2]["METEOR"] > 0.9 and scores.per_image[3]["METEOR"] > 0.9
    with pytest.raises(JavaError):
        settings = JavaSettings(memory="1k")
        caption_scores(CANDIDATES, REFERENCES, ("meteor",), java_settings=settings)
    assert shutil.which("java")


@needs_meteor
def test_the_tokeniser_gets_all_but_line_ends() -> None:
    texts = [
        "a ||| b",
        "a|||b c",
        "|||",
        "tab\there",
        "bell\x07 there",
        "half \ud83d an emoji",
        "one\u2028line",
    ]
    assert caption_tokens(texts) == [ptb_tokenize(text) for text in texts]
    assert ptb_tokenize(texts[0]) == ["a", "|", "|", "|", "b"]
    assert safe_field("a ||| b") == "a   b" and safe_line("a ||| b") == "a ||| b"


def caption_tokens(texts: list[str]) -> list[list[str]]:
    from unival.metrics.java import java_tokenize

    return java_tokenize(texts)


def test_what_spice_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _program(tmp_path, "exit 0")
    monkeypatch.delenv("UNIVAL_SPICE_JARS", raising=False)
    assert "--spice-jars, or UNIVAL_SPICE_JARS" in str(unavailable("spice", JavaSettings(program)))
    monkeypatch.setenv("UNIVAL_SPICE_JARS", str(tmp_path / "absent"))
    assert f"{tmp_path}/absent is no folder" in str(unavailable("spice", JavaSettings(program)))
    (tmp_path / "spice-1.0.jar").touch()
    (tmp_path / "stanford-corenlp-3.6.0-models.jar").touch()
    reason = str(unavailable("spice", JavaSettings(program, spice_jars=str(tmp_path))))
    assert reason.endswith(f"{tmp_path} lacks stanford-corenlp-3.6.0.jar")
    (tmp_path / "stanford-corenlp-3.6.0.jar").touch()
    assert unavailable("spice", JavaSettings(program, spice_jars=str(tmp_path))) is None
    monkeypatch.setenv("UNIVAL_SPICE_JARS", str(tmp_path))
    assert unavailable("spice", JavaSettings(program)) is None
