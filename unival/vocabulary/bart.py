"""The tokenizer files of BART, as OFA's Hugging Face folders hold them: ``vocab.json`` and ``merges.txt``.

``vocab.json`` gives the token id of every piece directly; codes and bins are in no file, they follow behind.
"""

from __future__ import annotations

import json
from pathlib import Path

from unival.errors import CheckpointError
from unival.vocabulary.bpe import byte_of_character, parse_merges
from unival.vocabulary.vocabulary import SPECIALS, Vocabulary

VOCAB, MERGES = "vocab.json", "merges.txt"
FILLER = "madeupword"  # rows of fairseq's dictionary that stand for nothing
CODES, BINS = 8192, 1000  # what OFA's tokenizer appends, in this order


def read_bart(folder: str | Path) -> Vocabulary | None:
    """Return the vocabulary of a folder with ``vocab.json`` and ``merges.txt``, None where there is neither.

    It is equal (fingerprint included) to the released BPE files when the pieces are. Raises CheckpointError
    for files that are not BART's.
    """
    vocab, merges = Path(folder) / VOCAB, Path(folder) / MERGES
    if not vocab.is_file() and not merges.is_file():
        return None
    try:
        ids = json.loads(vocab.read_text(encoding="utf-8"))
        lines = merges.read_bytes()
        symbols = sorted(ids, key=ids.__getitem__)
        dense = [ids[symbol] for symbol in symbols] == list(range(len(symbols)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the vocabulary in '{folder}' cannot be read ({error})") from None
    expected = {**dict(enumerate(SPECIALS)), len(symbols) - 1: "<mask>"}
    wrong = [
        f"{n} is {''.join(symbols[n : n + 1])!r}, not {name}"
        for n, name in expected.items()
        if symbols[n : n + 1] != [name]
    ]
    if not dense or wrong:
        said = f"token {wrong[0]}" if dense else "its ids are not 0, 1, 2, ..."
        raise CheckpointError(f"{vocab} is not the vocabulary of BART's tokenizer: {said}")
    text = symbols[len(SPECIALS) : -1]
    pieces = [symbol for symbol in text if not symbol.startswith(FILLER)]
    made = ["".join(pair) for pair in parse_merges(lines, str(merges))]
    # GPT-2 numbers its bytes, then its merges, then what neither makes ("<|endoftext|>")
    order = list(dict.fromkeys([*byte_of_character(), *made, *pieces]))
    if absent := sorted(set(order) - set(pieces)):
        raise CheckpointError(f"{merges} makes pieces that {VOCAB} does not have, such as {absent[0]!r}")
    numbers = {piece: number for number, piece in enumerate(order)}
    words = [str(numbers[symbol]) if symbol in numbers else symbol for symbol in text]
    files = {
        "dict.txt": "".join(f"{word} 1\n" for word in words).encode("utf-8"),
        "encoder.json": json.dumps(numbers).encode("ascii"),
        "vocab.bpe": lines,
    }
    return Vocabulary(files, CODES, BINS, str(folder))
