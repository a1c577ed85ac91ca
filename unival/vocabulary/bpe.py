"""Byte-level byte-pair encoding in GPT-2's file format (``encoder.json``, ``vocab.bpe``).

Released files and vocabularies trained on the user's own text are the same thing here: two files
and one class, so that nothing downstream asks where a vocabulary came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache

from unival.errors import DataError, said


@cache
def byte_of_character() -> dict[str, int]:
    """Map each of GPT-2's 256 printable stand-in characters to its byte.

    Printable Latin-1 characters stand for themselves, the remaining bytes for the code points from
    256 on, in byte order (GPT-2's published scheme; it keeps white space out of the merge file).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + n): byte for n, byte in enumerate(others)})
    return table


class ByteBPE:
    """Text to BPE ids and back. ``vocab`` maps pieces to ids 0..n-1; ``merges`` in order of priority."""

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers

        self.merges = merges
        self._tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        table = byte_of_character()
        self.pieces: list[bytes] = [b""] * (max(vocab.values(), default=-1) + 1)
        for piece, index in vocab.items():
            # a piece outside the byte alphabet (GPT-2's "<|endoftext|>" is inside it) stands for itself
            known = all(character in table for character in piece)
            self.pieces[index] = bytes(table[c] for c in piece) if known else piece.encode("utf-8")

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return BPE ids; lone surrogates, which UTF-8 cannot hold, become question marks."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return self._tokenizer.encode(clean, add_special_tokens=False).ids


def parse_encoder(data: bytes, path: str) -> dict[str, int]:
    """Read ``encoder.json``: piece -> id, ids dense from 0."""
    try:
        vocab = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected a JSON object of BPE pieces: {said(error)}", path=path) from error
    whole = isinstance(vocab, dict) and all(type(index) is int for index in vocab.values())
    if not whole or sorted(vocab.values(), key=str) != sorted(range(len(vocab)), key=str):
        raise DataError("expected a JSON object that maps BPE pieces to the ids 0, 1, 2, ...", path=path)
    return vocab


def decoded(data: bytes, path: str) -> str:
    """Return the text of a vocabulary file. Raises DataError for bytes that are no UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"invalid UTF-8 at byte {error.start + 1}; copy the file again", path=path) from None


def parse_merges(data: bytes, path: str) -> list[tuple[str, str]]:
    """Read ``vocab.bpe``: a ``#version`` line, then one merge of two pieces per line."""
    # str.splitlines would also split at separators that may be stand-in characters
    lines = decoded(data, path).replace("\r\n", "\n").split("\n")
    merges = []
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise DataError(
                f"expected two BPE pieces separated by one blank, got {line!r}", path=path, line=number
            )
        merges.append((pair[0], pair[1]))
    return merges


def train_bpe(texts: Iterable[str], size: int) -> tuple[bytes, bytes]:
    """Learn at most ``size`` pieces (256 bytes included) and return (encoder.json, vocab.bpe).

    Small texts yield fewer pieces. The result depends on nothing but the texts and the size. Every
    text is preceded by a blank, as it is when tasks encode it.
    """
    if size < 256:
        raise DataError(f"a byte-level vocabulary needs at least 256 pieces, got size {size}")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(byte_of_character()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_spaced(texts), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    # ids in order of training depend on a hash map in some releases of the library; this order does not
    pieces = sorted(byte_of_character()) + [left + right for left, right in pairs]
    pieces = list(dict.fromkeys(pieces))
    encoder = json.dumps({piece: index for index, piece in enumerate(pieces)}, ensure_ascii=True)
    merges = "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in pairs)]) + "\n"
    return encoder.encode("utf-8"), merges.encode("utf-8")


def _spaced(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield " " + text.encode("utf-8", "replace").decode("utf-8").strip()
