"""Time and memory from raw captions to BLEU, ROUGE-L and CIDEr: 5,000 images with 5 references each.

    python benchmarks/caption_metrics.py [CAPTIONS.tsv.gz]

CAPTIONS is a gzipped table with columns image_id and caption (COCO val2017); without it, or for missing
rows, seeded sentences over a 5,000-word vocabulary are used. With pycocoevalcap installed its CIDEr runs on
the same tokens.
"""

from __future__ import annotations

import csv
import gzip
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

IMAGES, REFERENCES = 5000, 5


def read(path: str) -> dict[int, list[str]]:
    table: dict[int, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            table.setdefault(int(row["image_id"]), []).append(row["caption"])
    return dict(list(table.items())[:IMAGES])


def invent() -> dict[int, list[str]]:
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnop"), size=6)) for _ in range(5000)])
    share = 1 / np.arange(1, 5001)
    share /= share.sum()

    def sentence() -> str:
        return " ".join(rng.choice(words, size=int(rng.integers(8, 15)), p=share)).capitalize() + "."

    return {i: [sentence() for _ in range(REFERENCES)] for i in range(IMAGES)}


def timed(what: str, function: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = function()
    print(f"{what:<46} {time.perf_counter() - start:6.2f} s")
    return result


def main() -> None:
    from unival.metrics import caption_scores, cider_d, ptb_tokenize

    references = read(sys.argv[1]) if len(sys.argv) > 1 else invent()
    # Each image's first reference, with its words reversed in pairs, stands in for a prediction.
    candidates = {}
    for key, texts in references.items():
        words = texts[0].split()
        candidates[key] = " ".join(w for i in range(0, len(words), 5) for w in words[i : i + 4])
    print(f"{len(candidates)} images, {sum(map(len, references.values()))} references")
    scores = timed("raw text to BLEU + ROUGE-L + CIDEr", lambda: caption_scores(candidates, references))
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    # Joined and split again, as the official tools do (a fraction such as 22 3/4 holds a no-break space).
    hyps = [" ".join(ptb_tokenize(text)).split() for text in candidates.values()]
    refs = [[" ".join(ptb_tokenize(text)).split() for text in texts] for texts in references.values()]
    ours = timed("CIDEr alone, ours", lambda: cider_d(hyps, refs))
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError:
        print("pycocoevalcap is not installed: nothing to compare with")
        return
    gts = {i: [" ".join(ptb_tokenize(t)) for t in texts] for i, texts in enumerate(references.values())}
    res = {i: [" ".join(ptb_tokenize(text))] for i, text in enumerate(candidates.values())}
    value, per_item = timed("CIDEr alone, pycocoevalcap", lambda: Cider().compute_score(gts, res))
    bleu = timed("BLEU, pycocoevalcap", lambda: Bleu(4).compute_score(gts, res, verbose=0)[0])
    rouge = timed("ROUGE-L, pycocoevalcap", lambda: Rouge().compute_score(gts, res)[0])
    print(f"largest difference of a caption's CIDEr {max(abs(np.array(ours) - per_item)):.1e}")
    for name, other in (
        ("CIDEr", value),
        ("ROUGE_L", rouge),
        *((f"Bleu_{n + 1}", bleu[n]) for n in range(4)),
    ):
        print(f"{name:<8} {scores.corpus[name]:.6f}  difference {abs(scores.corpus[name] - other):.1e}")


if __name__ == "__main__":
    main()
