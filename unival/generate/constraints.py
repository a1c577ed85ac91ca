"""What decoding may produce, as boolean masks over the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from unival.errors import ConfigError

SPECIALS = 4  # bos, pad, eos and unk lead every vocabulary and stay allowed in every range


def parse_range(text: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """Read a vocabulary range ``"start,end"`` (end exclusive); None and "" mean no range.

    Raises ConfigError when it is not two integers with 4 <= start < end.
    """
    if text is None or text == "":
        return None
    parts = text.split(",") if isinstance(text, str) else list(text)
    try:
        start, end = (int(part) for part in parts)
    except ValueError:
        raise ConfigError(f"constraint range {text!r}: expected 'start,end', two token numbers") from None
    if not SPECIALS <= start < end:
        raise ConfigError(f"constraint range {text!r}: expected {SPECIALS} <= start < end")
    return start, end


def range_mask(limits: tuple[int, int], vocab_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the (V,) bool mask of a range: the four specials and ``start <= token < end``.

    The specials stay allowed as in the reference, so that a sequence can end.
    Raises ConfigError when the range leaves the vocabulary.
    """
    start, end = limits
    if end > vocab_size:
        raise ConfigError(f"constraint range {start},{end} ends beyond the vocabulary of {vocab_size} tokens")
    allowed = torch.zeros(vocab_size, dtype=torch.bool, device=device)
    allowed[:SPECIALS] = True
    allowed[start:end] = True
    return allowed
