#!/usr/bin/env python3
"""Every shipped recipe for three updates on several ranks, in the miniature that the tests of recipes use.

    python scripts/recipes_on_ranks.py                        # all of them on two ranks
    python scripts/recipes_on_ranks.py --ranks 1 tiny/vqa finetune/caption_coco

Ranks are processes of this machine without a GPU, forked after the imports. What a recipe starts from is made before
it, on as many ranks. Prints a line a recipe; ends with 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _rank(words: list[str], rank: int, ranks: int, port: int, log: Path) -> NoReturn:
    """What one forked process does."""
    from unival.cli import main as program
    from unival.core.children import become

    if ranks > 1:
        names = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in names.items()})
    become(lambda: program(words), log)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Environment:
    """What the tests' fixture changes variables with."""

    @staticmethod
    def setenv(name: str, value: str) -> None:
        os.environ[name] = value


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", help="below configs/, without ending (default: all)")
    parser.add_argument("--ranks", type=int, default=2)
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)  # no pool of threads that a fork would leave behind
    import unival.plugin  # noqa: F401
    from tests.integration.recipes.test_recipe_runs import Runs
    from tests.support.miniature import Miniature
    from tests.support.recipe_lists import RUN_HERE

    names = [f"{name}.yaml" for name in args.recipes] or RUN_HERE
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)

        class Forked(Runs):
            @staticmethod
            def run(words: list[str], name: str) -> int:
                started, port = time.monotonic(), _port()
                files = [logs / f"{name.replace('/', '-')}.{rank}" for rank in range(args.ranks)]
                running = []
                for rank, log in enumerate(files):
                    child = os.fork()
                    if not child:
                        _rank(words, rank, args.ranks, port, log)
                    running.append(child)
                codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in running]
                print(f"{name}: {codes}, {time.monotonic() - started:.0f} s", flush=True)
                if any(codes):
                    print(*[log.read_text()[-2000:] for log in files], sep="\n")
                return max(map(abs, codes))

        runs = Forked(Miniature(Path(folder) / "data"), Environment())  # type: ignore[arg-type]
        for name in names:
            try:
                runs.train(name)
            except AssertionError as error:  # of this recipe or of one that it starts from
                failed.append(f"{name} ({str(error).splitlines()[0]})")
    print(
        f"{len(names) - len(failed)} of {len(names)} recipes ran on {args.ranks} rank(s)", *failed, sep="\n"
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
