"""Diagonal Fisher information: the mean squared gradient of the log-likelihood, value by value."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from unival.batching.batch import collate, to_device
from unival.core.files import check_file, replacing
from unival.core.seeding import rng_for
from unival.errors import ConfigError
from unival.merge.tables import Measured, examples
from unival.modeling.weights import TIED


def estimate(
    checkpoint: str | Path, table: Measured, out: str | Path, targets: str = "model", seed: int = 0
) -> int:
    """Write the Fisher information of a checkpoint's parameters (float32, state-dict keys) and return the
    number of rows it was taken over.

    ``targets``: "model" draws every target token from the model's own distribution given the reference
    prefix (Matena and Raffel 2022, section 3, with teacher forcing); "data" takes the table's targets (the
    empirical Fisher). Gradients are taken row by row, since a batch's gradient squared is not the mean of
    squares. Raises ConfigError when the table has no row.
    """
    from safetensors.torch import save_file

    check_file(out)
    with TemporaryDirectory() as scratch:
        evaluation = table.open(checkpoint, scratch)
        model, pad = evaluation.model, evaluation.vocabulary.pad
        model.eval()  # no dropout, and BatchNorm as the model is used
        named = {n: p for n, p in model.named_parameters() if p.requires_grad and n not in TIED[1:]}
        sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
        count = 0
        for example in examples(evaluation):
            batch = to_device(collate([example], pad), evaluation.settings.device, "float32")
            loss = _negative_log_likelihood(model, batch, pad, targets, seed, count)
            for total, gradient in zip(
                sums.values(), torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True
            ):
                if gradient is not None:
                    total.addcmul_(gradient.float(), gradient.float())
            count += 1
    if not count:
        raise ConfigError(f"{table.table or table.recipe}: no row to take gradients of")
    with replacing(out) as part:
        save_file({n: (total / count).cpu().contiguous() for n, total in sums.items()}, part)
    return count


def _negative_log_likelihood(
    model: nn.Module, batch: dict[str, object], pad: int, targets: str, seed: int, index: int
) -> Tensor:
    """Sum over the scored positions of one row."""
    logits, _ = model(**batch["net_input"])  # type: ignore[arg-type]
    log_probs = torch.log_softmax(logits[0].float(), -1)
    target = batch["target"][0]  # type: ignore[index]
    kept = target.ne(pad)
    chosen = target
    if targets == "model":
        draws = torch.as_tensor(rng_for(seed, 0, index, "fisher").random((len(target), 1)))
        below = log_probs.detach().double().exp().cumsum(-1).cpu() < draws
        chosen = below.sum(-1).clamp_max(log_probs.shape[-1] - 1).to(target.device)
    return -log_probs.gather(1, chosen[:, None])[kept].sum()
