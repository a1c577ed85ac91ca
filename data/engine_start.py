"""Imports the engine without scikit-learn, pandas and wandb, which take a third of a start and are not needed here.

Importing fairseq imports every task and criterion in it. Whatever of ours imports fairseq first does it through this
file; where fairseq is imported already (``fairseq-train --user-dir``), nothing happens. ``tasks/tracking.py`` imports
wandb and tensorboard itself when they are asked for.
"""

from __future__ import annotations

import sys
from types import ModuleType

# They import scikit-learn; no arch of ours can be trained with them.
LEFT_OUT = (
    "fairseq.tasks.audio_classification",
    "fairseq.criterions.sentence_prediction",
    "fairseq.criterions.sentence_prediction_adapters",
)
OPTIONAL = ("wandb", "torch.utils.tensorboard")  # the engine goes on without them


def _import_lean() -> None:
    placeholders: dict[str, ModuleType | None] = {name: ModuleType(name) for name in LEFT_OUT}
    placeholders |= {name: None for name in OPTIONAL if name not in sys.modules}
    sys.modules.update(placeholders)  # type: ignore[arg-type]
    try:
        import fairseq  # noqa: F401
    finally:
        for name in placeholders:
            del sys.modules[name]


if "fairseq" not in sys.modules:
    _import_lean()

from fairseq import options  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402
from fairseq.distributed import utils as distributed_utils  # noqa: E402

__all__ = ["convert_namespace_to_omegaconf", "distributed_utils", "options"]
