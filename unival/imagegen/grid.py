"""The grid of image codes: its size, and its text form in tables and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unival.errors import ConfigError

STRIDE = 8  # pixels of one code along a side: what the decoder's code positions are made for


def grid_side(code_image_size: int) -> int:
    """Codes along a side of a picture of ``code_image_size`` pixels. Raises ConfigError if 8 does not divide it."""
    side, rest = divmod(code_image_size, STRIDE)
    if side < 1 or rest:
        raise ConfigError(f"code_image_size {code_image_size}: give a multiple of {STRIDE} pixels")
    return side


def write_codes(codes: Iterable[int]) -> str:
    """Codes in row-major order, separated by blanks, as the released tables hold them."""
    return " ".join(str(int(code)) for code in codes)


def read_codes(text: str) -> list[int]:
    """Inverse of :func:`write_codes`. Raises ValueError for anything but non-negative whole numbers."""
    words = text.split()
    wrong = next((word for word in words if not (word.isascii() and word.isdigit())), None)
    if wrong is not None:
        raise ValueError(f"'{wrong[:20]}' is no code")
    return [int(word) for word in words]


def read_grids(texts: Sequence[str], code_image_size: int) -> list[list[int]]:
    """Codes of generated pictures. Raises ConfigError for an output that is no whole picture."""
    grids = [read_codes(text) for text in texts]
    length = grid_side(code_image_size) ** 2
    other = next((len(codes) for codes in grids if len(codes) != length), None)
    if other is not None:
        raise ConfigError(
            f"an output holds {other} image codes, a picture of code_image_size {code_image_size} has {length}: "
            "decode with the task's own constraint (no 'open' mode) and lengths (no min_len, max_len_b)"
        )
    return grids
