"""Freed memory stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import torch
from unival.core.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2 ** 24).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
assert keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc of glibc")
def test_the_pages_of_a_freed_tensor_are_used_again() -> None:
    as_the_system_has_it = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=as_the_system_has_it
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    pages = 2**26 // 2**12
    assert before > pages / 2 and after < pages / 50
