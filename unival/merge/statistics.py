"""BatchNorm statistics of a merged model, taken anew by running it over tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from unival.batching.batch import collate
from unival.checkpoint.folder import WEIGHTS
from unival.errors import ConfigError
from unival.merge.tables import Measured, examples
from unival.merge.tensorfile import TensorFile
from unival.modeling.freezing import BATCH_NORMS


@torch.no_grad()
def recompute(folder: str | Path, tables: Sequence[Measured]) -> int:
    """Replace every BatchNorm mean and variance of a checkpoint folder by those over the tables' rows.

    The modality networks run in batches of ``batch_size`` over the first ``limit`` items of each table
    (evaluation transforms); statistics are the mean over batches. Returns the number of layers renewed.
    Layers of a modality that no table has keep theirs. Raises ConfigError when no layer was reached.
    """
    file = TensorFile(Path(folder) / WEIGHTS)
    renewed: dict[str, Tensor] = {}
    with TemporaryDirectory() as scratch:
        model = None
        for table in tables:
            evaluation = table.open(folder, scratch)
            if model is None:
                model = evaluation.model
                norms = {n: m for n, m in model.named_modules() if isinstance(m, BATCH_NORMS)}
                for norm in norms.values():
                    norm.reset_running_stats()
                    norm.momentum = None  # the plain mean over all batches, not a running one
                    norm.train()
            rows = examples(evaluation)
            while batch := list(islice(rows, table.batch_size)):
                if len(batch) > 1 or table.batch_size == 1:
                    inputs = collate(batch, evaluation.vocabulary.pad)["net_input"]
                    inputs.pop("prev_output_tokens"), inputs.pop("code_masks", None)
                    model.encoder(**inputs)  # type: ignore[operator]
        for name, norm in norms.items():
            if norm.num_batches_tracked and norm.running_mean is not None and norm.running_var is not None:
                renewed[f"{name}.running_mean"] = norm.running_mean
                renewed[f"{name}.running_var"] = norm.running_var
    if not renewed:
        raise ConfigError("no BatchNorm layer was reached by the tables of 'recompute'")
    for name, value in renewed.items():
        file.overwrite(name, value)
    return len(renewed) // 2
