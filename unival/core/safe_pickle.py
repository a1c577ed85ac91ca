"""Pickles of other people's data, read without running anything in them."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from typing import Any, ClassVar

import numpy as np

from unival.core.foreign import measured
from unival.errors import CheckpointError

MOST_VALUES = 100_000_000  # shared ones counted wherever they are referred to


class _Defaults(dict[Any, Any]):
    """Stands for a defaultdict, whose factory would be code of the file and whose look-ups would add keys."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): _Defaults,
    ("collections", "Counter"): Counter,
    ("builtins", "float"): float,
    ("builtins", "int"): int,
    ("__builtin__", "float"): float,
    ("__builtin__", "int"): int,
}


_SCALAR = np.float64(0).__reduce__()[0]  # how numpy makes a number of its bytes
_NUMPY: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """The unpickler in Python: the one in C makes room for as many numbered values as the file claims to have."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined]
        if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[(module, name)]
        if (module, name) in _NUMPY:
            return _NUMPY[(module, name)]
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}; only plain dicts, lists, strings and numbers are read"
        )


def load_plain(data: bytes, encoding: str = "utf-8") -> Any:
    """Return the content of a pickle that holds nothing but plain containers, text and numbers.

    ``encoding``: how byte strings of Python 2 become text, or "bytes" to keep them. Raises
    pickle.UnpicklingError for any other class; a damaged file may raise almost anything.
    """
    content = _Unpickler(io.BytesIO(data), encoding=encoding).load()
    try:
        measured(content, MOST_VALUES, "the pickle")
    except CheckpointError as error:
        raise pickle.UnpicklingError(str(error)) from None
    return content
