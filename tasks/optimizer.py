"""Adam under the engine's name: its formula in one pass over weights, gradients and moments.

The engine writes Adam out in seven passes, scales gradients in a pass of its own and clips them in another, and in
bfloat16 keeps float32 copies, gradients and moments of networks that a task never uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from fairseq import optim
from fairseq.optim import adam, fp16_optimizer
from torch import Tensor

_CHUNK = 2**22  # numbers whose float32 copies live at once


class Adam(torch.optim.Optimizer):
    """p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps), weights decayed by lr * weight_decay before
    (reference behaviour: the engine's Adam; moments and steps in its state, under its names).

    Parameters of half precision are updated in float32: through float32 masters that come into being with the first
    gradient where ``keep_masters``, else by rounding to and fro. A parameter without a gradient is left alone.
    """

    supports_memory_efficient_fp16 = True
    supports_flat_params = True
    supports_step_with_scale = True
    disable_mem_eff_fp16_loading_hack = True  # moments stay float32 here

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.keep_masters = False
        self.masters: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, scale: float | Tensor = 1.0) -> Any:  # type: ignore[override]
        """One update with gradients divided by ``scale``."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            by_step: dict[int, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_step.setdefault(self._counted(parameter), []).append(parameter)
            for step, parameters in by_step.items():
                for chunk in _chunks(parameters):
                    self._update(group, step, chunk, scale)
        return loss

    def _counted(self, parameter: Tensor) -> int:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.float32)
        state["step"] += 1
        return int(state["step"])

    def _update(
        self, group: Mapping[str, Any], step: int, parameters: Sequence[Tensor], scale: float | Tensor
    ) -> None:
        device, (beta1, beta2) = parameters[0].device, group["betas"]
        weights = [self._float32(parameter) for parameter in parameters]
        gradients = [parameter.grad.float() for parameter in parameters if parameter.grad is not None]
        if not isinstance(scale, Tensor):
            scale = torch.full((), scale, device=device)
        torch._fused_adamw_(
            weights,
            gradients,
            [self.state[parameter]["exp_avg"] for parameter in parameters],
            [self.state[parameter]["exp_avg_sq"] for parameter in parameters],
            [],
            [torch.full((), float(step), device=device)] * len(parameters),
            lr=float(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            weight_decay=float(group["weight_decay"]),
            # torch adds it to sqrt(v / (1 - b2^t)), the engine to sqrt(v)
            eps=group["eps"] / math.sqrt(1 - beta2**step),
            amsgrad=False,
            maximize=False,
            grad_scale=scale.to(device, torch.float32),
        )
        for parameter, weight in zip(parameters, weights, strict=True):
            if weight is not parameter:
                parameter.copy_(weight)

    def _float32(self, parameter: Tensor) -> Tensor:
        if parameter.dtype == torch.float32:
            return parameter
        return self.master(parameter) if self.keep_masters else parameter.float()

    def master(self, parameter: Tensor) -> Tensor:
        """The float32 master of a parameter of reduced precision."""
        if parameter not in self.masters:
            self.masters[parameter] = parameter.detach().float()
        return self.masters[parameter]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore; moments stay float32 whatever the type of the parameters (torch would round them)."""
        super().load_state_dict(dict(state_dict))
        numbers = (number for group in state_dict["param_groups"] for number in group["params"])
        for number, parameter in zip(numbers, self._all(), strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    self.state[parameter][name] = value.to(parameter.device, torch.float32)

    def _all(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def weights(self) -> list[Tensor]:
        """The float32 weights of all parameters in order."""
        return [
            self.masters[parameter] if parameter in self.masters else parameter.detach().float()
            for parameter in self._all()
        ]

    def restore_weights(self, saved: Sequence[Tensor]) -> None:
        """Take back what :meth:`weights` gave, but for what its parameter says already."""
        for parameter, value in zip(self._all(), saved, strict=True):
            if value.dtype == torch.float32 and not torch.equal(
                value.to(parameter.device), parameter.float()
            ):
                self.masters[parameter] = value.to(parameter.device).clone()


class FairseqAdam(adam.FairseqAdam):
    """``--optimizer adam``. The class has the engine's name because checkpoints name the class that wrote them.

    Scaling and clipping wait for the update, which reads every gradient anyway. ``--use-old-adam`` chooses the
    engine's own.
    """

    def __init__(self, cfg: Any, params: Any) -> None:
        super().__init__(cfg, params)
        self._factor: float | Tensor = 1.0
        if type(self._optimizer) is adam.Adam and not getattr(cfg, "use_old_adam", False):
            self._optimizer = Adam(params, **self.optimizer_config)

    @property
    def _fused(self) -> bool:
        return isinstance(self._optimizer, Adam)

    def multiply_grads(self, c: float | Tensor) -> None:
        if not self._fused:
            super().multiply_grads(c)
            return
        self._factor = self._factor * c

    def clip_grad_norm(
        self, max_norm: float, aggregate_norm_fn: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Norm (float32) of the scaled gradients; above ``max_norm`` (0: no limit) the update shortens them to it."""
        if not self._fused:
            return super().clip_grad_norm(max_norm, aggregate_norm_fn)
        norm = self._factor * gradient_norm(self.params)
        if aggregate_norm_fn is not None:
            norm = aggregate_norm_fn(norm)
        if max_norm > 0:
            self._factor = self._factor * (float(max_norm) / (norm + 1e-6)).clamp_(max=1)
        return norm

    def step(self, closure: Any = None, scale: float | Tensor = 1.0, groups: Any = None) -> None:
        super().step(closure, scale / self._factor, groups)
        self._factor = 1.0

    def zero_grad(self) -> None:
        super().zero_grad()
        self._factor = 1.0


class FP16Optimizer(optim.MemoryEfficientFP16Optimizer):
    """``--bf16`` with Adam: float32 masters and moments of what gets gradients. Anything else is the engine's.

    The name is the engine's, as above.
    """

    @classmethod
    def build_optimizer(cls, cfg: Any, params: Any, **kwargs: Any) -> Any:
        inner = optim.build_optimizer(cfg.optimizer, params) if cfg.common.bf16 else None
        if inner is None or not isinstance(inner.optimizer, Adam):
            return fp16_optimizer.FP16Optimizer.build_optimizer(cfg, params, **kwargs)
        inner.optimizer.keep_masters = True
        return cls(cfg, params, inner, **kwargs)

    @property
    def fp32_params(self) -> list[Tensor]:
        """All masters, those of parameters without a gradient so far too; for who copies and restores them in place."""
        adam: Adam = self.optimizer
        return [adam.master(parameter) for parameter in self.params if parameter.dtype != torch.float32]


def saved_masters(optimizer: Any) -> list[Tensor] | None:
    """The float32 weights beside a model of reduced precision, for a checkpoint; None where there are none."""
    if isinstance(optimizer, FP16Optimizer):
        return optimizer.optimizer.weights()
    if not isinstance(optimizer, fp16_optimizer._FP16OptimizerMixin):
        return None
    masters = optimizer.fp32_params
    return [master.data for master in (masters.values() if isinstance(masters, dict) else masters)]


def restore_masters(optimizer: Any, saved: Sequence[Tensor]) -> None:
    """Take back what :func:`saved_masters` gave."""
    if isinstance(optimizer, FP16Optimizer):
        optimizer.optimizer.restore_weights(saved)
        return
    for own, value in zip(saved_masters(optimizer) or (), saved, strict=True):
        own.copy_(value)


@torch.no_grad()
def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, float32 ()."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, torch.float32)))


def _chunks(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """All at once where they are float32 and alike, else as many as may have float32 copies together."""
    if all(parameter.dtype == torch.float32 for parameter in parameters):
        yield list(parameters)
        return
    part: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if part and size + parameter.numel() > _CHUNK:
            yield part
            part, size = [], 0
        part.append(parameter)
        size += parameter.numel()
    if part:
        yield part
