"""A rank that makes updates of a mixture with both exchanges of gradients, ``legacy_ddp`` and ``c10d``, on equal models

main([WHAT]) with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; rank 0 prints a line of JSON for each update.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

IMAGE, VIDEO, AUDIO, TEXT = (0, 0), (1, 1), (2, 2), (-1, -1)
ZERO = "a gradient of zeros"  # what a rank takes for a loss that is not finite
# Updates of passes of groups of rows on each of up to three ranks.
Pass = list[Any]
UPDATES: list[list[Pass]] = [
    [[[IMAGE, VIDEO, AUDIO]] * 3],
    [[[VIDEO, IMAGE], [IMAGE], [IMAGE, VIDEO]]],  # one network is used by some ranks, one by none
    [
        [[AUDIO, VIDEO], [IMAGE], [TEXT]],
        [[IMAGE], [TEXT], [TEXT]],
    ],  # two passes; the last one uses fewer networks
    [[[TEXT]] * 3],
    [[ZERO, [IMAGE], [IMAGE]]],
    [[[AUDIO, VIDEO], [AUDIO, (-1, 2)], [VIDEO]]],
]


def _layout(tensor: Tensor) -> list[int]:
    """Strides that matter: along an edge of one, processors differ in what they say."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


class Sides:
    """Both wrappers around models that begin alike, each with its optimizer."""

    def __init__(self, bf16: bool, **options: Any) -> None:
        from tests.support.model_fixtures import ALL, small_model
        from unival.models.parallel import DataParallel, LegacyDataParallel
        from unival.tasks.precision import batch_norm_kept

        self.type = torch.bfloat16 if bf16 else torch.float32
        models = []
        for _ in range(2):
            model = small_model(**ALL, resnet_type="test_resnet", **options).train()
            with batch_norm_kept(model) if bf16 else nullcontext():
                models.append(model.to(self.type))
        # small buckets, of which most leave before the backward pass ends
        self.wrappers: list[Any] = [
            LegacyDataParallel(models[0], dist.group.WORLD, 2**28),
            DataParallel(models[1], dist.group.WORLD, bucket_cap_mb=0.05),
        ]
        self.optimizers = [self._optimizer(model, bf16) for model in models]

    def _optimizer(self, model: nn.Module, bf16: bool) -> Any:
        from tests.integration.plugin.test_optimizer import settings
        from unival.tasks.optimizer import FairseqAdam, FP16Optimizer

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        cfg = settings(bf16=bf16)
        return FP16Optimizer.build_optimizer(cfg, trained) if bf16 else FairseqAdam(cfg.optimizer, trained)

    def update(self, number: int, passes: Sequence[Pass]) -> None:
        """Forward, backward and exchange, for both."""
        for wrapper, optimizer in zip(self.wrappers, self.optimizers, strict=True):
            optimizer.zero_grad()
            for place, groups in enumerate(passes):
                with wrapper.no_sync() if place < len(passes) - 1 else nullcontext():
                    optimizer.backward(self.loss(wrapper, groups[dist.get_rank()], 10 * number + place))
            optimizer.all_reduce_grads(wrapper)

    def loss(self, wrapper: nn.Module, groups: Any, seed: int) -> Tensor:
        from tests.support.model_fixtures import mixed_batch
        from unival.tasks.base import _zero_gradient

        torch.manual_seed(seed)
        if groups == ZERO:
            return _zero_gradient(wrapper)
        losses = []
        for types in groups:
            batch = mixed_batch(types, compact=True, seed=3 * seed + dist.get_rank())
            for media in batch.keys() & {"patch_images", "patch_videos"}:
                batch[media] = batch[media][..., :32, :32].to(self.type)
            losses.append(wrapper(**batch)[0].float().square().mean())
        return torch.stack(losses).sum()

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.multiply_grads(dist.get_world_size() / 7)
            optimizer.clip_grad_norm(1.0)
            optimizer.step()

    def gradients(self) -> list[tuple[str, Tensor | None, Tensor | None]]:
        legacy, ours = (wrapper.module.named_parameters() for wrapper in self.wrappers)
        return [(name, one.grad, other.grad) for (name, one), (_, other) in zip(legacy, ours, strict=True)]

    def facts(self) -> dict[str, Any]:
        """How the two compare after an exchange and before the step."""
        both = [
            (name, one, other)
            for name, one, other in self.gradients()
            if one is not None and other is not None
        ]
        gaps = {
            name: float((one.double() - other.double()).norm() / one.double().norm())
            for name, one, other in both
            if not torch.equal(one, other)
        }
        legacy, ours = (wrapper.module.state_dict() for wrapper in self.wrappers)
        return {
            "networks": sorted(
                {
                    part
                    for name, gradient, _ in self.gradients()
                    for part in ("images", "videos", "audios")
                    if gradient is not None and name.startswith(f"encoder.embed_{part}.")
                }
            ),
            "alike_in_having_one": all(
                (one is None) == (other is None) for _, one, other in self.gradients()
            ),
            "alike_in_layout": all(_layout(one) == _layout(other) for _, one, other in both),
            "gaps": gaps,
            "unequal_types": sorted({str(one.dtype) for name, one, _ in both if name in gaps}),
            "weights_equal": all(
                torch.equal(value, ours[name]) for name, value in legacy.items() if "bn" not in name
            ),
        }


def updates(sides: Sides, count: int = len(UPDATES)) -> list[dict[str, Any]]:
    """The first updates in turn, each with its step."""
    found = []
    for number, passes in enumerate(UPDATES[:count]):
        sides.update(number, passes)
        found.append(sides.facts())
        sides.step()
    return found


def given_up(sides: Sides) -> list[dict[str, Any]]:
    """Rank 1 has no memory for its last pass, in the middle of the backward pass or before it, or for an earlier pass
    alone; then all is well."""
    ours, groups = sides.wrappers[1], UPDATES[0][0]
    found = []
    for where in ("before", "within", "earlier"):
        loss = sides.loss(ours, groups[0], 1)
        if where == "earlier":
            with ours.no_sync():
                if dist.get_rank() == 1:
                    ours.give_up()
                else:
                    sides.loss(ours, groups[0], 2).backward()
            loss.backward()
        elif dist.get_rank() == 1:
            if where == "within":
                handle = ours.module.encoder.layer_norm.bias.register_hook(_no_memory)
                try:
                    loss.backward()
                except RuntimeError as error:
                    assert "out of memory" in str(error)
                handle.remove()
            ours.give_up()
        else:
            loss.backward()
        other = torch.ones(3)
        dist.all_reduce(other)  # the statistics of the update
        ours.all_reduce_grads()
        left = [name for name, parameter in ours.module.named_parameters() if parameter.grad is not None]
        found.append({"left": left, "statistics": other.tolist()})
    sides.update(7, UPDATES[0])
    return [*found, sides.facts()]


def _no_memory(gradient: Tensor) -> Tensor:
    raise RuntimeError("CUDA out of memory (a test)")


def sending(sides: Sides) -> list[dict[str, Any]]:
    """Which share of the buckets has left when the backward pass comes to a network that the rank uses."""
    ours = sides.wrappers[1]
    rank = dist.get_rank()
    found: dict[str, float] = {}
    part = ours.module.encoder.embed_images if rank == 0 else ours.module.encoder.embed_videos
    last = next(parameter for parameter in part.parameters() if parameter.requires_grad)
    last.register_hook(lambda gradient: found.setdefault("sent", ours._sent / len(ours.buckets)) and None)
    sides.update(1, [[[IMAGE], [VIDEO], [VIDEO]]])
    shares = [None] * dist.get_world_size()
    dist.all_gather_object(shares, found["sent"])
    loss = sides.loss(ours, [IMAGE], 5)
    loss.backward(retain_graph=True)
    message = ""
    try:
        loss.backward()
    except RuntimeError as error:
        message = str(error)
    ours.all_reduce_grads()
    return [{"sent": shares, "again": message}]


def beginning() -> list[dict[str, Any]]:
    """Ranks that were built apart."""
    from unival.models.parallel import DataParallel

    torch.manual_seed(dist.get_rank())
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[1].running_mean.fill_(dist.get_rank())
    DataParallel(model, dist.group.WORLD)
    state = torch.cat([value.double().flatten() for value in model.state_dict().values()])
    states = [torch.empty_like(state) for _ in range(dist.get_world_size())]
    dist.all_gather(states, state)
    return [{"alike": all(bool(torch.equal(states[0], other)) for other in states)}]


def main(argv: Sequence[str]) -> int:
    import unival.plugin  # noqa: F401

    dist.init_process_group("gloo")
    made = {
        "float32": lambda: updates(Sides(False)),
        "bf16": lambda: updates(Sides(True, freeze_batchnorm=True), 3),
        "bf16 with BatchNorm": lambda: updates(Sides(True), 1),
        "given up": lambda: given_up(Sides(False)),
        "sending": lambda: sending(Sides(False)),
        "beginning": beginning,
    }
    found = made[argv[0]]()
    if dist.get_rank() == 0:
        print("\n".join(json.dumps(facts) for facts in found), flush=True)
    dist.barrier()
    dist.destroy_process_group()
    return 0
