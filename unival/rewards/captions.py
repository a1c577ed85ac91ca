"""CIDEr-D of captions while they are learnt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unival.errors import ConfigError, nearest
from unival.losses import PolicyOptions
from unival.metrics.caption import caption_scores, reference_frequencies
from unival.metrics.cider import DocumentFrequencies, read_frequencies
from unival.specs import SpecOptions, TaskSpec
from unival.tables.row import Row

# The tokenizer decides the protocol, as in the scores that validation prints: the official CIDEr, or the
# reference's, whose cached tables hold words without punctuation.
PROTOCOLS = {"ptb": "official", "split": "unival"}


@dataclass(frozen=True)
class CaptionOptions(PolicyOptions):
    """Options of self-critical captioning."""

    scst_cider_cached_tokens: str | None = field(
        default=None,
        metadata={
            "help": "pickle of document frequencies; a row is then scored against its own references. Default: "
            "the training table's, whose rows with one id share their references"
        },
    )
    scst_tokenizer: str = field(
        default="ptb",
        metadata={"help": "words of a caption: ptb (official CIDEr) or split (the reference's, at blanks)"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scst_tokenizer not in PROTOCOLS:
            raise ConfigError(
                f"scst_tokenizer '{self.scst_tokenizer}' is not one of {', '.join(PROTOCOLS)}."
                + nearest(self.scst_tokenizer, PROTOCOLS)
            )


class CaptionReward:
    """CIDEr-D (0 to 10) of each caption against all references of its medium.

    ``references``: id -> captions where a table has several rows with one id; other rows bring their own.
    The reward is :func:`unival.metrics.caption.caption_scores` per image, under the same frequencies.
    """

    def __init__(
        self,
        frequencies: DocumentFrequencies,
        references: Mapping[str, Sequence[str]] | None = None,
        tokenizer: str = "ptb",
    ) -> None:
        self.frequencies = frequencies
        self.references = references or {}
        self.tokenizer = tokenizer

    @classmethod
    def of_corpus(
        cls, rows: Iterable[Row], spec: TaskSpec, options: SpecOptions, tokenizer: str = "ptb"
    ) -> CaptionReward:
        """Read the references of all training rows and count in how many media each n-gram occurs."""
        found: dict[str, list[str]] = {}
        several: set[str] = set()
        for row in rows:
            key = spec.item_id(row)
            if key in found:
                several.add(key)
            known = found.setdefault(key, [])
            known.extend(text for text in spec.reference(row, options) or () if text not in known)
        frequencies = reference_frequencies(
            [texts for texts in found.values() if texts], tokenizer, PROTOCOLS[tokenizer]
        )
        return cls(frequencies, {key: found[key] for key in several}, tokenizer)

    @classmethod
    def cached(cls, path: str, tokenizer: str = "ptb") -> CaptionReward:
        """Take the document frequencies from a pickle in the reference's format; nothing in it is run."""
        return cls(read_frequencies(path), None, tokenizer)

    def __call__(
        self, ids: Sequence[str], captions: Sequence[Sequence[str | None]], references: Sequence[Any]
    ) -> Tensor:
        """Return (B, K) float32 rewards of K captions per row; None scores as an empty caption."""
        candidates, truth = [], []
        for key, texts, own in zip(ids, captions, references, strict=True):
            candidates += [text or "" for text in texts]
            truth += [self.references.get(key, own)] * len(texts)
        scores = caption_scores(
            candidates,
            truth,
            ("cider",),
            self.tokenizer,
            protocol=PROTOCOLS[self.tokenizer],
            document_frequencies=self.frequencies,
        )
        values = [scores.per_image[number]["CIDEr"] for number in range(len(candidates))]
        return torch.tensor(values, dtype=torch.float32).view(len(captions), -1)
