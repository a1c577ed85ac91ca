"""Freed memory of a process that allocates the same sizes over and over."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
# Blocks of more are the system's again once they are freed. With 256 MB and more a training on sounds has a fifth more
# memory at its peak, in pieces that fit nothing (docs/performance.md).
KEPT = 64 * 2**20
CHOSEN_BY_USER = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 64 MB for the next allocation; return whether it does.

    As it comes it gives all beyond 32 MB back, and what lies free at the end of its heap; the system then clears pages
    anew for every feature map, a tenth to a fifth of the processor time of a float32 update with eight pictures of 384
    pixels. Settings in the environment, another allocator and other libraries of C stay as they are.
    """
    if any(name.startswith(CHOSEN_BY_USER) for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (is it glibc?)
        set_option = library.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(set_option(_MMAP_THRESHOLD, KEPT)) and bool(set_option(_TRIM_THRESHOLD, -1))
