"""``unival train`` that writes where each of its updates would have stopped a GPU: ``stops.jsonl`` beside its log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.stops import Stops


def main(argv: Sequence[str]) -> int:
    import unival.plugin  # noqa: F401
    from unival.tasks.trainer import UnivalTrainer
    from unival.train import main as train

    step = UnivalTrainer.train_step

    def counted(self: UnivalTrainer, samples: Any, raise_oom: bool = False) -> Any:
        with Stops() as stops:
            output = step(self, samples, raise_oom)
        with open(Path(self.cfg.checkpoint.save_dir) / "stops.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(stops.found) + "\n")
        return output

    UnivalTrainer.train_step = counted  # type: ignore[method-assign]
    return train(list(argv))
