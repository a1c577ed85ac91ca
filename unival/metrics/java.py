"""METEOR, SPICE and the original tokeniser: Java programs behind a client that cannot hang.

Only used when asked for. The jars come from the optional package pycocoevalcap, or from paths the caller
gives. Every exchange has a time limit, stderr is always read, every process is killed and reaped on every
way out, and no text can break the line protocol.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from unival.core.installation import install_extra
from unival.errors import ConfigError, UnivalError

# METEOR loads a 60 MB paraphrase table first: 8 s on an idle machine, 45 s on a busy one.
_START_LIMIT = 180.0
_ANSWER_LIMIT = 60.0
_TOKENIZER_JAR = "stanford-corenlp-3.4.1.jar"
_METEOR_JAR = "meteor-1.5.jar"
SPICE_VARIABLE = "UNIVAL_SPICE_JARS"
_SPICE_OPENS = ("java.lang", "java.util", "java.math", "java.net", "java.text", "java.util.concurrent")

# Whatever Java might take for a line end, and other control characters.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_HALF = re.compile(r"[\ud800-\udfff]")  # of a character: no UTF-8
_FIELD = "|||"  # what METEOR's protocol separates fields with


class JavaError(UnivalError):
    """A Java program that failed, died or did not answer in time."""


@dataclass(frozen=True)
class JavaSettings:
    """Where Java and the jars are, and how long to wait.

    ``jars``: folder with meteor-1.5.jar (and its data folder) and stanford-corenlp-3.4.1.jar, default: the
    installed pycocoevalcap. ``spice_jars``: folder with spice-1.0.jar and the CoreNLP jars, default: the
    environment's UNIVAL_SPICE_JARS. Limits in seconds: to the first answer, and for each further answer;
    ``spice_limit`` for a whole SPICE run.
    """

    java: str = "java"
    jars: str | None = None
    spice_jars: str | None = None
    start_limit: float = _START_LIMIT
    answer_limit: float = _ANSWER_LIMIT
    spice_limit: float = 7200.0
    memory: str = "2G"


def safe_line(text: str) -> str:
    """The text as one line that Java can read."""
    return _HALF.sub("\ufffd", _UNSAFE.sub(" ", text))


def safe_field(text: str) -> str:
    """The text as one field of METEOR's protocol."""
    return safe_line(text).replace(_FIELD, " ")


def _find_jar(name: str, settings: JavaSettings) -> Path | None:
    folders: list[Path] = []
    if settings.jars:
        folders = [Path(settings.jars)]
    else:
        spec = importlib.util.find_spec("pycocoevalcap")
        for root in spec.submodule_search_locations if spec and spec.submodule_search_locations else ():
            folders += [Path(root) / "meteor", Path(root) / "tokenizer"]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _spice_jars(settings: JavaSettings) -> Path | None:
    folder = _spice_folder(settings)
    return None if folder is None or _spice_lacks(folder) else folder


def _spice_folder(settings: JavaSettings) -> Path | None:
    given = settings.spice_jars or os.environ.get(SPICE_VARIABLE)
    return Path(given).expanduser() if given else None


def _spice_lacks(folder: Path) -> list[str]:
    """What is not in a folder that should hold SPICE's jars."""
    names = [path.name for path in folder.glob("*.jar")] if folder.is_dir() else []
    models = [name for name in names if "corenlp" in name and "models" in name]
    wanted = {
        "spice-1.0.jar": any(name.startswith("spice") for name in names),
        "stanford-corenlp-3.6.0.jar": any("corenlp" in name and name not in models for name in names),
        "stanford-corenlp-3.6.0-models.jar": bool(models),
    }
    return [name for name, there in wanted.items() if not there]


def unavailable(program: str, settings: JavaSettings) -> str | None:
    """Why ``program`` ("meteor", "spice" or "ptb-java") cannot run here, or None. Starts nothing."""
    if shutil.which(settings.java) is None:
        return (
            f"{program} needs Java, and there is no program '{settings.java}' on PATH; install a Java runtime"
        )
    if program == "spice":
        if _spice_jars(settings) is None:
            folder = _spice_folder(settings)
            if folder is None:
                lacking = f"none was given (--spice-jars, or {SPICE_VARIABLE})"
            else:
                lacking = f"{folder} " + (
                    f"lacks {', '.join(_spice_lacks(folder))}" if folder.is_dir() else "is no folder"
                )
            return f"spice needs a folder with its jar and the jars of CoreNLP 3.6.0; {lacking}"
        return None
    name = _METEOR_JAR if program == "meteor" else _TOKENIZER_JAR
    if _find_jar(name, settings) is None:
        where = (
            f"in {settings.jars}"
            if settings.jars
            else f"in an installed pycocoevalcap ({install_extra('java-metrics')})"
        )
        return f"{program} needs {name}, and it is not {where}"
    return None


def _require(program: str, settings: JavaSettings) -> None:
    reason = unavailable(program, settings)
    if reason:
        raise ConfigError(reason)


class JavaProcess:
    """A line-in, line-out child process with time limits. Use as a context manager."""

    def __init__(self, command: Sequence[str], settings: JavaSettings, cwd: Path | None = None) -> None:
        self._limits = [settings.start_limit, settings.answer_limit]
        self._name = Path(command[0]).name
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise JavaError(f"cannot start {command[0]}: {error.strerror or error}") from error
        self._threads = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._lines.put(line.rstrip("\r\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stderr:
                self._errors.append(line.rstrip())
                del self._errors[:-20]

    def _failure(self, what: str) -> JavaError:
        self.close()
        tail = " | ".join(self._errors[-5:])
        return JavaError(f"{self._name} {what}" + (f"; its last messages: {tail}" if tail else ""))

    def ask(self, line: str) -> str:
        """Send one line and return the answer line."""
        self.send(line)
        return self.receive()

    def send(self, line: str) -> None:
        """Write one line; a full pipe cannot block for longer than the limit."""
        assert self._process.stdin is not None
        stdin: IO[str] = self._process.stdin
        done = threading.Event()
        failed: list[Exception] = []

        def write() -> None:
            try:
                stdin.write(line + "\n")
                stdin.flush()
            except (OSError, ValueError) as error:
                failed.append(error)
            done.set()

        if len(line) < 4096:  # fits in an empty pipe: no helper thread
            write()
        else:
            threading.Thread(target=write, daemon=True).start()
        if not done.wait(self._limits[0]):
            raise self._failure(f"did not read its input within {self._limits[0]:g} s")
        if failed:
            raise self._failure(f"ended before it read its input (exit status {self._status()})")

    def receive(self) -> str:
        """The next output line."""
        limit = self._limits[0]
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            raise self._failure(f"did not answer within {limit:g} s") from None
        if line is None:
            raise self._failure(f"ended without an answer (exit status {self._status()})")
        self._limits[0] = self._limits[1]
        return line

    def _status(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=5)
        return None

    def close(self) -> None:
        """Kill the process (and its children) and reap it. Safe to call twice."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()
        for thread in self._threads:
            thread.join(timeout=1)

    def __enter__(self) -> JavaProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def meteor(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    settings: JavaSettings | None = None,
) -> tuple[float, list[float]]:
    """METEOR 1.5 (English, normalised) of tokenised captions: corpus value and one value per caption, 0 to 1.

    Raises ConfigError if Java or the jar is missing, JavaError if the program dies or exceeds a time limit.
    """
    settings = settings or JavaSettings()
    _require("meteor", settings)
    if not candidates:
        raise ConfigError("METEOR of an empty set is undefined")
    jar = _find_jar(_METEOR_JAR, settings)
    assert jar is not None
    command = [settings.java, "-Dfile.encoding=UTF-8", f"-Xmx{settings.memory}", "-jar", str(jar)]
    with JavaProcess([*command, "-", "-", "-stdio", "-l", "en", "-norm"], settings, jar.parent) as process:
        statistics = []
        for words, refs in zip(candidates, references, strict=True):
            fields = [safe_field(" ".join(ref)) for ref in refs] + [
                safe_field(" ".join(words)).replace("  ", " ")
            ]
            statistics.append(process.ask("SCORE ||| " + " ||| ".join(fields)))
        process.send("EVAL ||| " + " ||| ".join(statistics))
        values = [_number(process.receive(), process) for _ in range(len(statistics) + 1)]
    return values[-1], values[:-1]


def _number(line: str, process: JavaProcess) -> float:
    try:
        return float(line)
    except ValueError:
        raise JavaError(f"METEOR answered {line[:80]!r} where a number was expected") from None


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="unival-java-") as name:
        yield Path(name)


def _run(command: Sequence[str], limit: float, cwd: Path) -> str:
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise JavaError(f"{command[0]} did not finish within {limit:g} s") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        tail = errors.decode("utf-8", "replace").strip()[-500:]
        raise JavaError(f"{command[0]} failed with status {process.returncode}: {tail}")
    return output.decode("utf-8", "replace")


def java_tokenize(texts: Sequence[str], settings: JavaSettings | None = None) -> list[list[str]]:
    """Tokens of captions by the original Java tokeniser, in one run over all captions in the given order."""
    settings = settings or JavaSettings()
    _require("ptb-java", settings)
    if not texts:
        return []
    jar = _find_jar(_TOKENIZER_JAR, settings)
    # Java prints a line per caption but none for trailing empty ones: a last word keeps the count exact.
    lines = [safe_line(text) for text in texts] + ["end"]
    with _folder() as folder:
        (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        command = [settings.java, "-Dfile.encoding=UTF-8", "-cp", str(jar)]
        command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "captions.txt"]
        output = _run(command, settings.start_limit + 0.01 * len(texts), folder)
    rows = output.split("\n")
    if len(rows) < len(lines) or rows[len(lines) - 1].strip() != "end":
        raise JavaError(f"the Java tokeniser returned {len(rows)} lines for {len(lines)} captions")
    return [
        [word for word in row.rstrip().split(" ") if word and word not in _PUNCTUATION]
        for row in rows[: len(texts)]
    ]


_PUNCTUATION = frozenset(("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-")) | frozenset(
    (".", "?", "!", ",", ":", "-", "--", "...", ";")
)


def spice(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    settings: JavaSettings | None = None,
) -> tuple[float, list[float]]:
    """SPICE F-score of tokenised captions through a folder of jars the user provides: mean and per caption.

    Slow (about 0.3 s per image) and hungry (5 GB). Raises ConfigError, JavaError as :func:`meteor`.
    """
    settings = settings or JavaSettings()
    _require("spice", settings)
    jars = _spice_jars(settings)
    items = [
        {
            "image_id": i,
            "test": safe_line(" ".join(words)),
            "refs": [safe_line(" ".join(ref)) for ref in refs],
        }
        for i, (words, refs) in enumerate(zip(candidates, references, strict=True))
    ]
    with _folder() as folder:
        (folder / "in.json").write_text(json.dumps(items), encoding="utf-8")
        command = [settings.java, "-Xmx8G", "-Dfile.encoding=UTF-8"]
        for package in _SPICE_OPENS:
            command += ["--add-opens", f"java.base/{package}=ALL-UNNAMED"]
        command += ["-cp", f"{Path(str(jars)).resolve()}/*", "edu.anu.spice.SpiceScorer", "in.json"]
        command += ["-cache", str(folder), "-out", "out.json", "-subset", "-silent"]
        _run(command, settings.spice_limit, folder)
        try:
            results: list[dict[str, Any]] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
            found = {int(row["image_id"]): float(row["scores"]["All"]["f"] or 0.0) for row in results}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JavaError(f"SPICE wrote no usable result: {error}") from error
    if set(found) != set(range(len(items))):
        raise JavaError(f"SPICE returned {len(found)} results for {len(items)} captions")
    values = [found[i] if found[i] == found[i] else 0.0 for i in range(len(items))]
    return sum(values) / len(values), values


def java_version(settings: JavaSettings | None = None) -> str:
    """First line of ``java -version``, for the result file."""
    settings = settings or JavaSettings()
    try:
        done = subprocess.run(
            [settings.java, "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    return (done.stderr or done.stdout).splitlines()[0] if (done.stderr or done.stdout) else "unknown"
