"""What every entry point of the program shares: parsers that say one line, and the end of a failed run."""

from __future__ import annotations

import argparse
import io
import re
import sys
from typing import Any, NoReturn

from unival.errors import explained, shortened

USER_ERROR = 2  # exit code of an error that is the user's to mend
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


_BROKEN = re.compile(r"\s*[\r\n]+(?!  \S)\s*")  # lists are indented by two blanks and stay lists

_ENDLESS = re.compile(r"\S{1000,}")  # a value of thousands of digits hides what is wrong with it


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are one line; the usage is a ``--help`` away."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read arguments; positional ones may stand on both sides of options."""
        if any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._actions):
            return super().parse_args(args, namespace)
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(
            USER_ERROR, f"{self.prog}: error: {shortened(message, 400)} (options: {self.prog} --help)\n"
        )


def show_any_text() -> None:
    """Print characters that the terminal's encoding lacks as escapes, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def report_failure(error: BaseException) -> int:
    """Print the one line of an exception and return the exit code; a fault of the program is raised again."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    line = explained(error)
    if line is None:
        raise error
    line = _ENDLESS.sub(lambda word: shortened(word[0]), _BROKEN.sub(" ", line))
    print(f"error: {line}", file=sys.stderr, flush=True)
    return USER_ERROR
