"""Count captions whose tokens differ from the Java tokeniser's.

    python benchmarks/ptb_against_java.py FILE...

Each FILE is a table with a header (.tsv or .tsv.gz); the columns caption, caption_1 ..., question, answer and
a0 ... are read. Needs Java and pycocoevalcap. Two counts are printed: every caption by itself (a caption "A"
between any two), and all captions in file order as the official tool reads them, where the next caption's
first word can change a caption's last token.
"""

from __future__ import annotations

import gzip
import re
import sys
import time
from pathlib import Path

from unival.metrics import ptb_tokenize
from unival.metrics.java import java_tokenize

_COLUMN = re.compile(r"caption(_\d+)?|question|answer|a\d")


def read(path: str) -> list[str]:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    columns = [i for i, name in enumerate(rows[0]) if _COLUMN.fullmatch(name)]
    return [row[i] for row in rows[1:] for i in columns if i < len(row) and row[i]]


def main() -> None:
    texts: list[str] = []
    for path in sys.argv[1:]:
        found = read(path)
        print(f"{Path(path).name:<44} {len(found):>8} texts")
        texts += found
    start = time.perf_counter()
    ours = [ptb_tokenize(text) for text in texts]
    print(f"ours {time.perf_counter() - start:.1f} s for {len(texts)} texts")
    alone = java_tokenize([line for text in texts for line in (text, "A")])[::2]
    for name, theirs in (("each by itself", alone), ("in file order", java_tokenize(texts))):
        wrong = [i for i, tokens in enumerate(theirs) if tokens != ours[i]]
        print(f"{name}: {len(wrong)} of {len(texts)} differ")
        for i in wrong[:10]:
            print(f"  {texts[i]!r}\n    java {theirs[i]}\n    ours {ours[i]}")


if __name__ == "__main__":
    main()
