"""Safetensors files read and written one tensor at a time, so that memory holds one tensor, not a model."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from unival.core.checksum import KEY, RESERVED
from unival.core.foreign import mistaken_for
from unival.errors import CheckpointError, said

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MOST_HEADER = 100 << 20  # bytes; the format's own limit
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Spec:
    """Shape and type of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """A safetensors file whose tensors are read on demand; ``specs`` maps names to shape and type.

    Raises CheckpointError for a file that is absent or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                (length,) = struct.unpack("<Q", file.read(8))
                if length > min(size, MOST_HEADER):
                    raise ValueError(f"its header would have {length:,} bytes")
                header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            self.specs = {k: Spec(tuple(v["shape"]), DTYPES[v["dtype"]]) for k, v in header.items()}
            self._starts = {k: 8 + length + int(v["data_offsets"][0]) for k, v in header.items()}
            for k, spec in self.specs.items():
                if not all(isinstance(n, int) and n >= 0 for n in spec.shape) or self._starts[k] < 8 + length:
                    raise ValueError(f"the place of '{k}' makes no sense")
                if self._starts[k] + spec.nbytes > size:
                    raise ValueError("it is shorter than its header says")
        except FileNotFoundError:
            raise CheckpointError(f"'{self.path}' does not exist") from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as error:
            what = mistaken_for(self.path) or f"is not a readable safetensors file: {said(error)}"
            raise CheckpointError(f"'{self.path}' {what}") from None

    def read(self, name: str) -> Tensor:
        """Return one tensor as a copy in memory of its own."""
        spec = self.specs[name]
        tensor = torch.empty(spec.shape, dtype=spec.dtype)
        if spec.nbytes:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self._starts[name])
                _fill(file, memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
        return tensor

    def overwrite(self, name: str, tensor: Tensor) -> None:
        """Replace one tensor in the file by another of its shape."""
        spec = self.specs[name]
        if tuple(tensor.shape) != spec.shape:
            raise ValueError(f"{name} has shape {spec.shape}, got {tuple(tensor.shape)}")
        with open(self.path, "r+b") as file:
            file.seek(self._starts[name])
            file.write(_bytes(tensor.to(spec.dtype)))


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _fill(file: IO[bytes], target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])  # type: ignore[attr-defined]
        if not count:
            raise CheckpointError(f"'{file.name}' ended while it was read; was it replaced?")
        done += count


class TensorWriter:
    """Writes a safetensors file tensor by tensor, in the order of ``order``; close it when all are written."""

    def __init__(self, path: str | Path, specs: Mapping[str, Spec]) -> None:
        # Wide types first keeps every tensor aligned without gaps, which the format does not have.
        self.order = sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))
        header: dict[str, Any] = {"__metadata__": {"format": "pt", KEY: RESERVED}}
        offset = 0
        for name in self.order:
            spec = specs[name]
            end = offset + spec.nbytes
            header[name] = {
                "dtype": NAMES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._specs, self._left = specs, iter(self.order)
        self._file = open(path, "wb")  # noqa: SIM115  (closed by close)
        self._file.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, tensor: Tensor) -> None:
        """Append the next tensor of ``order``."""
        spec, expected = self._specs[name], next(self._left)
        if name != expected or tuple(tensor.shape) != spec.shape or tensor.dtype != spec.dtype:
            raise ValueError(f"expected {expected} {self._specs[expected]}, got {name} {tuple(tensor.shape)}")
        self._file.write(_bytes(tensor))

    def close(self) -> None:
        self._file.close()
