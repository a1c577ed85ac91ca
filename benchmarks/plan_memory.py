"""Memory that ``unival plan`` says against the peak of a real run of a few updates, per recipe.

    python benchmarks/plan_memory.py RECIPE... [-- OPTIONS of both]

Prints planned and measured MiB (peak resident memory of the training process) and their ratio.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

UPDATES = 4


def planned(recipe: str, options: list[str]) -> float:
    said = subprocess.run(
        [sys.executable, "-m", "unival", "plan", recipe, *options], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"([\d,]+) MiB  on this CPU", said)
    assert found is not None, said
    return float(found[1].replace(",", ""))


def measured(recipe: str, options: list[str]) -> float:
    """Run in a child of a child, so that the peak is this run's alone."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-m", "unival", "train", recipe, *options, "--max-update", str(UPDATES)]
    command += ["--disable-validation", "--no-save", "--num-workers", "0"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    return int(done.stdout.split()[-1]) * unit / 2**20


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    recipes, options = words[:cut], words[cut + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        given = [*options, "--save-dir", folder]
        for recipe in recipes:
            said, real = planned(recipe, given), measured(recipe, given)
            print(
                f"{recipe}: planned {said:,.0f} MiB, measured {real:,.0f} MiB, ratio {said / real:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
