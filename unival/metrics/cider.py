"""CIDEr-D (Vedantam et al. 2015): clipping, Gaussian length penalty with sigma 6, scale 0 to 10.

This is what the COCO caption evaluation calls CIDEr.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unival.core.safe_pickle import load_plain
from unival.errors import DataError
from unival.metrics.bleu import ngrams

Gram = tuple[str, ...]
_ORDER = 4
_SIGMA = 6.0


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many of ``images`` images each n-gram occurs in at least one reference."""

    counts: Mapping[Gram, float]
    images: float
    source: str = "corpus"

    @cached_property
    def rarity(self) -> _Rarity:
        log_images = math.log(self.images)
        known = {gram: log_images - math.log(max(1.0, count)) for gram, count in self.counts.items()}
        return _Rarity(known, log_images)


def corpus_frequencies(references: Sequence[Sequence[Sequence[str]]]) -> DocumentFrequencies:
    """Document frequencies of the references at hand."""
    counts: Counter[Gram] = Counter()
    for refs in references:
        seen: set[Gram] = set()
        for ref in refs:
            for n in range(1, _ORDER + 1):
                seen.update(ngrams(ref, n))
        counts.update(seen)
    return DocumentFrequencies(counts, float(len(references)))


def read_frequencies(path: str | Path) -> DocumentFrequencies:
    """Document frequencies from the reference's cached pickle (keys ``document_frequency``, ``ref_len``).

    The file is read without running anything in it: only dicts, tuples, strings and numbers are built.
    ``source`` of the result names the file and its SHA-256. Raises DataError for anything else.
    """
    try:
        raw = Path(path).read_bytes()
        data = load_plain(raw)
        counts, images = data["document_frequency"], float(data["ref_len"])
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=str(path)) from error
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"is not a pickle of document frequencies: {error}", path=str(path)) from error
    if not isinstance(counts, Mapping) or not images > 0:
        raise DataError("needs a dict document_frequency and a positive ref_len", path=str(path))
    plain = {
        tuple(key) if not isinstance(key, str) else (key,): float(value) for key, value in counts.items()
    }
    digest = hashlib.sha256(raw).hexdigest()
    return DocumentFrequencies(plain, images, f"{Path(path).name} sha256:{digest[:16]}")


_Vector = tuple[list[dict[Gram, float]], list[float], int]


@dataclass(frozen=True)
class _Rarity:
    """Logarithm of images over those with an n-gram: of each known one, and of all others."""

    of: Mapping[Gram, float]
    unknown: float

    def vector(self, words: Sequence[str]) -> _Vector:
        """Weights of the n-grams of each length, their norms, and the length that the penalty compares."""
        known, unknown = self.of.get, self.unknown
        weights = [
            {gram: count * known(gram, unknown) for gram, count in Counter(ngrams(words, n)).items()}
            for n in range(1, _ORDER + 1)
        ]
        norms = [math.sqrt(sum([value * value for value in each.values()])) for each in weights]
        # The official tool measures length in bigrams; only differences matter, except that 0 and 1 words tie.
        return weights, norms, max(0, len(words) - 1)


def cider_d(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    frequencies: DocumentFrequencies | None = None,
) -> list[float]:
    """CIDEr-D per caption, 0 to 10; the corpus value is their mean.

    ``frequencies`` defaults to those of ``references``; with one image they make every score 0.
    """
    rarity = (frequencies or corpus_frequencies(references)).rarity
    scores = []
    for words, refs in zip(candidates, references, strict=True):
        weights, norms, length = rarity.vector(words)
        total = 0.0
        for ref in refs:
            ref_weights, ref_norms, ref_length = rarity.vector(ref)
            penalty = math.exp(-((length - ref_length) ** 2) / (2 * _SIGMA**2))
            for n in range(_ORDER):
                other = ref_weights[n]
                value = sum(min(w, other[g]) * other[g] for g, w in weights[n].items() if g in other)
                if norms[n] and ref_norms[n]:
                    value /= norms[n] * ref_norms[n]
                total += value * penalty
        scores.append(10.0 * total / _ORDER / len(refs))
    return scores


def most_central(captions: Sequence[Sequence[str]], frequencies: DocumentFrequencies, most: int) -> list[int]:
    """Return the places of the ``most`` different captions whose n-gram vectors lie nearest to the mean of all.

    Cosines without clipping and length penalty: a cheap choice among many that :func:`cider_d` then decides.
    """
    rarity = frequencies.rarity
    vectors = [rarity.vector(words) for words in captions]
    centre: list[defaultdict[Gram, float]] = [defaultdict(float) for _ in range(_ORDER)]
    for weights, norms, _ in vectors:
        for n in range(_ORDER):
            for gram, weight in weights[n].items():
                if norms[n]:
                    centre[n][gram] += weight / norms[n]
    nearness = [
        sum(
            w * centre[n][gram] / norms[n]
            for n in range(_ORDER)
            if norms[n]
            for gram, w in weights[n].items()
        )
        for weights, norms, _ in vectors
    ]
    first: dict[Gram, int] = {}
    for place, words in enumerate(captions):
        first.setdefault(tuple(words), place)
    return sorted(first.values(), key=lambda place: -nearness[place])[:most]
