"""Imports the engine without scikit-learn, pandas and wandb, which take a third of a start and are not needed here.

Importing fairseq imports every task and criterion in it. Whatever of ours imports fairseq first does it through this
file; where fairseq is imported already (``fairseq-train --user-dir``), nothing happens. ``tasks/tracking.py`` imports
wandb and tensorboard itself when they are asked for.
"""

from __future__ import annotations

import sys
from types import ModuleType

from unival.core.lean_import import import_without

# They import scikit-learn; no arch of ours can be trained with them.
LEFT_OUT = (
    "fairseq.tasks.audio_classification",
    "fairseq.criterions.sentence_prediction",
    "fairseq.criterions.sentence_prediction_adapters",
)

if "fairseq" not in sys.modules:
    sys.modules.update({name: ModuleType(name) for name in LEFT_OUT})
    try:
        import_without("fairseq", "wandb", "torch.utils.tensorboard")
    finally:
        for _name in LEFT_OUT:
            del sys.modules[_name]

from fairseq import options  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402
from fairseq.distributed import utils as distributed_utils  # noqa: E402

__all__ = ["convert_namespace_to_omegaconf", "distributed_utils", "options"]
