"""Freed memory that a process keeps, counted by the pages that the system clears for it."""

import os
import subprocess
import sys

import pytest

from unival.core.allocator import CHOSEN_BY_USER

PROGRAM = """
import resource, sys
import torch
from unival.core.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    print(keep_freed_memory())
else:
    print(False)
pages = 48 * 2**20 // resource.getpagesize()  # of one block, more than glibc keeps as it comes
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(48 * 2**18)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / pages)
"""


def run(what: str, **added: str) -> tuple[str, float]:
    """What was answered, and how many blocks' pages were cleared for twenty blocks."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(CHOSEN_BY_USER)} | added
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what], env=env, capture_output=True, text=True, check=True
    )
    answer, blocks = done.stdout.split()
    return answer, float(blocks)


@pytest.fixture(scope="module")
def as_it_comes() -> float:
    if not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        pytest.skip("another library of C")
    _, blocks = run("nothing")
    if blocks < 5:
        pytest.skip(
            f"pages of {blocks} of 20 blocks are cleared here as it comes: larger pages, or another allocator"
        )
    return blocks


def test_freed_blocks_are_handed_out_again(as_it_comes: float) -> None:
    answer, blocks = run("keep")
    assert answer == "True"
    assert blocks < 0.6 * as_it_comes  # 7 of 20: the alignment of tensors leaves some unfit


def test_choices_of_the_user_stay(as_it_comes: float) -> None:
    answer, blocks = run("keep", MALLOC_TRIM_THRESHOLD_="1000000")
    assert answer == "False"
    assert blocks > 5
