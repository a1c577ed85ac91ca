"""Our Adam beside the engine's: the same formula, the same state, in float32 and with float32 masters."""

from __future__ import annotations

import copy

import pytest
import torch
from fairseq.optim import adam, fp16_optimizer
from omegaconf import OmegaConf

import unival.plugin  # noqa: F401
from unival.tasks.optimizer import Adam, FairseqAdam, FP16Optimizer, restore_masters, saved_masters

SHAPES = ((7, 5), (5,), (3, 2, 4), (6,), ())
UNUSED, SELDOM = 3, 1  # parameters without a gradient: always, every third update


def settings(bf16: bool = False, old: bool = False) -> OmegaConf:
    engine = {"_name": "adam", "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8, "weight_decay": 0.01}
    engine |= {"use_old_adam": old, "fp16_adam_stats": False, "tpu": False, "lr": [1e-2]}
    common = {"bf16": bf16, "fp16_scale_window": 1, "model_parallel_size": 1}
    return OmegaConf.create({"optimizer": engine, "common": common, "optimization": {"update_freq": [1]}})


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in SHAPES]


def update(optimizer, params, number: int) -> torch.Tensor:
    """One update as the engine's trainer makes it, with seeded gradients of very different sizes."""
    generator = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    loss = torch.zeros(())
    for place, parameter in enumerate(params):
        drawn = torch.randn(parameter.shape, generator=generator) * 10.0 ** (place - number % 4)
        if place != UNUSED and not (place == SELDOM and number % 3 == 0):
            loss = loss + (parameter.float() * drawn).sum()
    optimizer.backward(loss)
    optimizer.multiply_grads(1 / 7)
    norm = optimizer.clip_grad_norm(1.0)
    optimizer.set_lr(1e-2 / (1 + number))
    optimizer.step()
    return norm


def engines(cfg, params):
    optimizer = adam.FairseqAdam(cfg.optimizer, params)
    assert type(optimizer.optimizer) is adam.Adam
    return optimizer


def test_the_registered_adam_is_ours():
    from fairseq import optim

    cfg = settings()
    optimizer = optim.build_optimizer(cfg.optimizer, parameters())
    assert type(optimizer) is FairseqAdam
    assert type(optimizer.optimizer) is Adam
    cfg.optimizer.use_old_adam = True
    assert type(optim.build_optimizer(cfg.optimizer, parameters()).optimizer) is adam.Adam


def test_a_hundred_updates_are_the_engines():
    theirs, ours = parameters(), parameters()
    one, other = engines(settings(), theirs), FairseqAdam(settings().optimizer, ours)
    for number in range(100):
        assert torch.allclose(update(one, theirs, number), update(other, ours, number), rtol=1e-6)
        for a, b in zip(theirs, ours, strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-6), number
    assert torch.equal(ours[UNUSED], parameters()[UNUSED])


@pytest.mark.parametrize("from_engine", [True, False])
def test_the_state_goes_both_ways(from_engine):
    params = parameters()
    make = (engines, lambda cfg, p: FairseqAdam(cfg.optimizer, p))
    first, second = make if from_engine else make[::-1]
    optimizer = first(settings(), params)
    for number in range(5):
        update(optimizer, params, number)
    state = copy.deepcopy(optimizer.state_dict())
    others = [torch.nn.Parameter(parameter.detach().clone()) for parameter in params]
    went_on = second(settings(), others)
    went_on.load_state_dict(state)
    for number in range(5, 20):
        update(optimizer, params, number)
        update(went_on, others, number)
    for a, b in zip(params, others, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)
    assert went_on.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def test_bf16_keeps_float32_masters_of_what_trains():
    ours = parameters(torch.bfloat16)
    optimizer = FP16Optimizer.build_optimizer(settings(bf16=True), ours)
    assert type(optimizer) is FP16Optimizer
    reference = parameters(torch.bfloat16)
    masters = [torch.nn.Parameter(parameter.detach().float()) for parameter in reference]
    plain = engines(settings(), masters)
    for number in range(50):
        update(optimizer, ours, number)
        update(plain, masters, number)
    for place, (parameter, master) in enumerate(zip(ours, masters, strict=True)):
        held = optimizer.optimizer.masters.get(parameter)
        assert (held is None) == (place == UNUSED)
        assert parameter not in optimizer.optimizer.state or place != UNUSED
        if held is not None:
            # gradients pass through bfloat16, eight bits
            assert torch.allclose(held, master, rtol=1e-2, atol=1e-3), place
            assert torch.equal(parameter, held.bfloat16())
    assert torch.equal(ours[UNUSED], reference[UNUSED])


@pytest.mark.parametrize("from_engine", [True, False])
def test_bf16_state_goes_both_ways(from_engine):
    params = parameters(torch.bfloat16)

    def theirs(params):
        return fp16_optimizer.FP16Optimizer.build_optimizer(settings(bf16=True, old=True), params)

    def own(params):
        return FP16Optimizer.build_optimizer(settings(bf16=True), params)

    first, second = (theirs, own) if from_engine else (own, theirs)
    optimizer = first(params)
    for number in range(5):
        update(optimizer, params, number)
    state, masters = copy.deepcopy((optimizer.state_dict(), saved_masters(optimizer)))
    assert all(entry["exp_avg"].dtype == torch.float32 for entry in state["state"].values())
    others = [torch.nn.Parameter(parameter.detach().clone()) for parameter in params]
    went_on = second(others)
    went_on.load_state_dict(state)
    restore_masters(went_on, masters)
    for number in range(5, 20):
        update(went_on, others, number)
        update(optimizer, params, number)
    for place, (a, b) in enumerate(zip(params, others, strict=True)):
        if place not in (UNUSED, SELDOM):  # the engine takes no gradient for one of zeros
            assert torch.allclose(a.float(), b.float(), rtol=1e-2, atol=1e-4), place
    if not from_engine:
        return
    copied = [torch.nn.Parameter(parameter.detach().clone()) for parameter in others]
    again = own(copied)
    again.load_state_dict(copy.deepcopy(went_on.state_dict()))
    restore_masters(again, copy.deepcopy(saved_masters(went_on)))
    for number in range(20, 25):
        update(went_on, others, number)
        update(again, copied, number)
    assert all(torch.equal(a, b) for a, b in zip(others, copied, strict=True))
