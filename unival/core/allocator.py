"""What the C library does with memory that a program has freed."""

from __future__ import annotations

import ctypes

# mallopt's names of the two, in malloc.h of glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_FROM_HEAP = 1 << 30  # bytes of one tensor; larger ones are mapped and given back as before
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let freed memory stay with the process, and return whether this system's C library can (glibc).

    Tensors of an update are as large as those of the update before. By default glibc gives large ones back to the
    system, which clears every page that it hands out again: 2 to 9 % of the processor time of an update of the base
    model on a CPU. The peak stays as it is, but the process holds it between updates.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MOST_FROM_HEAP) and mallopt(_TRIM_THRESHOLD, _NEVER))
