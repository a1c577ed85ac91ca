"""The one vocabulary: four specials, text BPE, ``<mask>``, image codes, coordinate bins.

Layout (reference behaviour, paper section 3.2: one token space for every task)::

    0 <s>   1 <pad>   2 </s>   3 <unk>   4.. text   mask   code_0 .. code_C-1   bin_0 .. bin_N-1

A vocabulary is a folder with ``encoder.json``, ``vocab.bpe`` (GPT-2's formats), ``dict.txt`` (one BPE id
or filler word per line; the line order gives the token ids) and, when we wrote it, ``vocabulary.json``
(numbers of codes and bins). The released GPT-2 files and a trained byte-level BPE are both read this way.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unival.core.files import Output
from unival.errors import CheckpointError, DataError, said
from unival.vocabulary.bpe import ByteBPE, decoded, parse_encoder, parse_merges, train_bpe

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
FILES = ("dict.txt", "encoder.json", "vocab.bpe")
_SETTINGS = "vocabulary.json"
MOST_SYMBOLS = 10_000_000  # image codes, and bins
_RELEASED_SHA256 = {
    "dict.txt": "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


class Vocabulary:
    """Token ids of text, image codes and bins. Immutable; build one with a class method."""

    bos, pad, eos, unk = 0, 1, 2, 3

    def __init__(self, files: dict[str, bytes], num_codes: int, num_bins: int, folder: str = "") -> None:
        if not 0 <= num_codes <= MOST_SYMBOLS or not 2 <= num_bins <= MOST_SYMBOLS:
            raise DataError(
                f"expected num_codes from 0 and num_bins from 2 to {MOST_SYMBOLS:,}, got {num_codes} and {num_bins}"
            )
        self._files = files
        paths = {name: str(Path(folder) / name) if folder else name for name in FILES}
        vocab = parse_encoder(files["encoder.json"], paths["encoder.json"])
        merges = parse_merges(files["vocab.bpe"], paths["vocab.bpe"])
        try:
            self._bpe = ByteBPE(vocab, merges)
        except BaseException as error:  # the library's own kinds, a panic of its Rust code among them
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise DataError(
                f"expected merges of pieces in encoder.json: {said(error)}", path=paths["vocab.bpe"]
            ) from None
        self._text = _parse_dictionary(files["dict.txt"], paths["dict.txt"])
        self.num_codes, self.num_bins = num_codes, num_bins
        self.mask = len(SPECIALS) + len(self._text)
        self.code_offset = self.mask + 1
        self.bin_offset = self.code_offset + num_codes
        # both directions of BPE id <-> token id; fillers of the dictionary have no BPE id
        self._token_of_bpe = np.full(len(self._bpe), self.unk, dtype=np.int64)
        self._bpe_of_token = np.full(self.mask, -1, dtype=np.int64)
        for token, word in enumerate(self._text, len(SPECIALS)):
            if word.isdecimal() and int(word) < len(self._bpe):
                self._token_of_bpe[int(word)] = token
                self._bpe_of_token[token] = int(word)

    @classmethod
    def released(cls, bpe_dir: str | Path, num_codes: int = 8192, num_bins: int = 1000) -> Vocabulary:
        """Read the files of the released checkpoints (59457 tokens with the default counts).

        Other files than the released ones are used with a warning, since token ids then differ.
        """
        files = {name: _read(Path(bpe_dir) / name) for name in FILES}
        for name, data in files.items():
            if hashlib.sha256(data).hexdigest() != _RELEASED_SHA256[name]:
                warnings.warn(
                    f"{Path(bpe_dir) / name} is not the released file: released checkpoints will not fit it",
                    stacklevel=2,
                )
        return cls(files, num_codes, num_bins, str(bpe_dir))

    @classmethod
    def train(
        cls, texts: Iterable[str], size: int, num_codes: int = 8192, num_bins: int = 1000
    ) -> Vocabulary:
        """Learn a byte-level BPE of at most ``size`` pieces (at least 256) from ``texts``."""
        encoder, merges = train_bpe(texts, size)
        count = len(json.loads(encoder))
        dictionary = "".join(f"{index} 1\n" for index in range(count)).encode("ascii")
        files = {"dict.txt": dictionary, "encoder.json": encoder, "vocab.bpe": merges}
        return cls(files, num_codes, num_bins)

    @classmethod
    def load(cls, folder: str | Path, num_codes: int = 8192, num_bins: int = 1000) -> Vocabulary:
        """Read a folder written by ``save``, or the released files.

        ``num_codes`` and ``num_bins`` count for folders that do not say; a saved vocabulary keeps its own.
        Raises CheckpointError when a file is missing or the folder was changed after saving.
        """
        folder = Path(folder)
        files = {name: _read(folder / name) for name in FILES}
        settings = folder / _SETTINGS
        if not settings.exists():
            return cls(files, num_codes, num_bins, str(folder))
        try:
            stored = json.loads(_read(settings))
            vocabulary = cls(files, stored["num_codes"], stored["num_bins"], str(folder))
            fingerprint = str(stored["fingerprint"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{settings} is damaged ({error!r}); copy the vocabulary again") from error
        if fingerprint != vocabulary.fingerprint():
            raise CheckpointError(
                f"the vocabulary in {folder} is not the one that was saved there "
                f"(fingerprint {vocabulary.fingerprint()[:12]}, expected {fingerprint[:12]}); "
                "copy its files again"
            )
        return vocabulary

    def save(self, folder: str | Path) -> None:
        """Write the vocabulary's four files into ``folder`` (made if absent)."""
        settings = {
            "num_codes": self.num_codes,
            "num_bins": self.num_bins,
            "size": len(self),
            "fingerprint": self.fingerprint(),
        }
        with Output() as output:
            for name, data in self._files.items():
                output.bytes(Path(folder) / name, data)
            output.text(Path(folder) / _SETTINGS, json.dumps(settings, indent=1) + "\n")
            output.commit()

    def to_dict(self) -> dict[str, Any]:
        """Return the vocabulary as plain text and numbers, for a checkpoint that carries its own."""
        files = {name: data.decode("utf-8") for name, data in self._files.items()}
        return {"files": files, "num_codes": self.num_codes, "num_bins": self.num_bins}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Inverse of ``to_dict``."""
        files = {name: str(text).encode("utf-8") for name, text in values["files"].items()}
        return cls(files, int(values["num_codes"]), int(values["num_bins"]))

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides a token id; equal fingerprints encode equally."""
        digest = hashlib.sha256(f"{self.num_codes} {self.num_bins}\n".encode())
        digest.update("\n".join(self._text).encode("utf-8"))
        for piece in self._bpe.pieces:
            digest.update(b"\n%d " % len(piece) + piece)
        digest.update("\n".join(f"{a} {b}" for a, b in self._bpe.merges).encode("utf-8"))
        return digest.hexdigest()

    def __len__(self) -> int:
        return self.bin_offset + self.num_bins

    def encode(self, text: str) -> list[int]:
        """Return the token ids of plain text, without bos and eos.

        Literal symbols such as ``<bin_7>`` are text here; see ``code_id`` and ``bin_id``.
        """
        return self._token_of_bpe[self._bpe.encode(text)].tolist() if text else []

    def code_id(self, code: int) -> int:
        if not 0 <= code < self.num_codes:
            raise DataError(f"image code {code} is outside 0..{self.num_codes - 1}")
        return self.code_offset + code

    def bin_id(self, index: int) -> int:
        if not 0 <= index < self.num_bins:
            raise DataError(f"bin {index} is outside 0..{self.num_bins - 1}")
        return self.bin_offset + index

    def symbol(self, index: int) -> str:
        """Return the dictionary's name of a token: a special, a BPE id in decimal, a code or a bin."""
        if not 0 <= index < len(self):
            raise IndexError(f"token {index} is outside 0..{len(self) - 1}")
        if index < len(SPECIALS):
            return SPECIALS[index]
        if index < self.mask:
            return self._text[index - len(SPECIALS)]
        if index == self.mask:
            return "<mask>"
        if index < self.bin_offset:
            return f"<code_{index - self.code_offset}>"
        return f"<bin_{index - self.bin_offset}>"

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``. Never fails.

        Specials, fillers and ids outside the vocabulary are dropped; ``<mask>``, codes and bins appear as
        their names, set off by blanks; bytes that are not UTF-8 become U+FFFD.
        """
        out, after_symbol = bytearray(), False
        for index in map(int, ids):
            if len(SPECIALS) <= index < self.mask:
                bpe = self._bpe_of_token[index]
                piece = self._bpe.pieces[bpe] if bpe >= 0 else b""
                out += b" " + piece if after_symbol and piece and not piece.startswith(b" ") else piece
                after_symbol = after_symbol and not piece
            elif self.mask <= index < len(self):
                separator = b" " if out and not out.endswith(b" ") else b""
                out += separator + self.symbol(index).encode("ascii")
                after_symbol = True
        return out.decode("utf-8", "replace")

    def decode_box(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return bin numbers of bin tokens: int64, same shape, -1 where a token is not a bin."""
        bins = np.asarray(tokens, dtype=np.int64) - self.bin_offset
        return np.where((bins >= 0) & (bins < self.num_bins), bins, -1)


def _parse_dictionary(data: bytes, path: str) -> list[str]:
    words = []
    for number, line in enumerate(decoded(data, path).splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) not in (1, 2):
            raise DataError(f"expected a symbol and a count, got {line!r}", path=path, line=number)
        words.append(fields[0])
    if len(set(words)) != len(words):
        raise DataError("expected every symbol once", path=path)
    return words


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"vocabulary file {path} cannot be read ({error.strerror}); a vocabulary folder holds "
            f"{', '.join(FILES)}: train one with 'unival data vocabulary' or give --bpe-dir"
        ) from error
