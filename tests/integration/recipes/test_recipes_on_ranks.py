"""A mixture of images, one of images and videos, and a finetuning on two ranks; the script does so for all recipes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.needs import skip_without
from tests.support.recipe_lists import ROOT

skip_without("fairseq")


@pytest.mark.slow
def test_a_finetuning_and_its_stages_on_two_ranks() -> None:
    command = [sys.executable, str(ROOT / "scripts/recipes_on_ranks.py"), "tiny/vqa"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    ran = [line.split(": [0, 0]")[0] for line in done.stdout.splitlines() if ": [0, 0]" in line]
    assert ran == ["tiny/stage1.yaml", "tiny/stage2.yaml", "tiny/vqa.yaml"]
    assert "1 of 1 recipes ran on 2 rank(s)" in done.stdout
