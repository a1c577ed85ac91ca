"""How many processes a training gets on a machine without a GPU when nobody has said: two, where the model is small.

There a second thread makes an update slower, while a second process makes it nearly twice as fast
(docs/performance.md). Each takes half of the recipe's rows, so an update has as many as in one process.
"""

from __future__ import annotations

from collections.abc import Sequence

from unival.core.recipe import load_recipe
from unival.errors import ConfigError

_WIDTH = 256  # of the encoder, at most; the products of wider layers keep two threads busy
_ROWS = 8  # of a process, at least: BatchNorm takes its statistics from them


def halves(words: Sequence[str], cores: int) -> list[str] | None:
    """Return the words of each of two processes for ``train RECIPE ...``, or None where one process is better."""
    given = [word for word in words[1:] if not word.startswith("-")]
    if words[:1] != ["train"] or cores < 2 or not given or "--dry-run" in words:
        return None
    try:
        options = dict(load_recipe(words[1]).options)
        for position, word in enumerate(words):
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                following = words[position + 1 : position + 2]
                options[name.replace("-", "_")] = value if equals else "".join(following)
        rows, width = int(options.get("batch_size") or 0), int(options.get("encoder_embed_dim") or 0)
    except (ConfigError, ValueError):  # training says what is wrong
        return None
    if not 0 < width <= _WIDTH or rows % 2 or rows < 2 * _ROWS:
        return None
    return [*words, f"--batch-size={rows // 2}"]
