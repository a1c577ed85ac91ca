"""Each method against its formula written out on toy tensors, and against numbers recorded from mergekit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unival.merge.methods import METHODS, Weight

DATA = Path(__file__).with_name("data") / "mergekit.json"


def toys(count=3, shape=(6, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    return base, [base + 0.3 * torch.randn(shape, generator=generator) for _ in range(count)]


def run(method, coefficients, tensors, base=None, fisher=None, **options):
    weight = Weight(
        "w",
        tuple(coefficients),
        lambda k: tensors[k].clone(),
        None if base is None else base.clone,
        None if fisher is None else (lambda k: fisher[k].clone()),
        **options,
    )
    return METHODS[method].merge(weight)


def test_fisher():
    _, tensors = toys()
    information = [torch.rand(6, 5, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    for f in information:
        f[0] = 0.0  # nothing known about the first row: the plain weighted average
    shares = (0.5, 0.3, 0.2)
    found = run("fisher", shares, tensors, fisher=information)
    above = sum(c * f * t for c, f, t in zip(shares, information, tensors, strict=True))
    below = sum(c * f for c, f in zip(shares, information, strict=True))
    torch.testing.assert_close(found[1:], (above / below)[1:])
    torch.testing.assert_close(found[0], sum(c * t for c, t in zip(shares, tensors, strict=True))[0])
    flat = [torch.full((6, 5), 2.0)] * 3
    torch.testing.assert_close(run("fisher", shares, tensors, fisher=flat), run("average", shares, tensors))


def test_task_arithmetic_adds_and_negates():
    base, tensors = toys(2)
    found = run("task_arithmetic", (1.0, -0.5), tensors, base, scale=0.7)
    torch.testing.assert_close(found, base + 0.7 * ((tensors[0] - base) - 0.5 * (tensors[1] - base)))
    assert torch.equal(run("task_arithmetic", (1.0, 1.0), [base, base], base), base)


def test_ties_by_hand():
    base = torch.zeros(5)
    tensors = [torch.tensor([4.0, -3.0, 0.1, 2.0, 0.0]), torch.tensor([-1.0, -5.0, 2.0, 1.0, 0.2])]
    # density 0.6 keeps three: (4, -3, 0, 2, 0) and (-1, -5, 2, 0, 0) or (0, -5, 2, 1, 0), a draw of 1 and -1
    tensors[1][0] = -1.5
    found = run("ties", (1.0, 1.0), tensors, base, density=0.6)
    # signs of the sums (2.5, -8, 2, 2, 0): +, -, +, +, +; means of those that agree
    torch.testing.assert_close(found, torch.tensor([4.0, -4.0, 2.0, 2.0, 0.0]))
    torch.testing.assert_close(run("ties", (1.0, 1.0), tensors, base, density=0.6, scale=0.5), found / 2)
    weighted = run("ties", (1.0, 3.0), tensors, base, density=1.0)
    assert float(weighted[1]) == pytest.approx((-3.0 - 15.0) / 4)


def test_dare_keeps_a_share_and_the_mean():
    base = torch.zeros(200, 500)
    delta = torch.ones(200, 500)
    found = run("dare", (1.0,), [delta], base, density=0.3, seed=4)
    kept = found != 0
    assert abs(float(kept.float().mean()) - 0.3) < 0.01 and torch.allclose(found[kept], torch.tensor(1 / 0.3))
    assert torch.equal(found, run("dare", (1.0,), [delta], base, density=0.3, seed=4))
    assert not torch.equal(found, run("dare", (1.0,), [delta], base, density=0.3, seed=5))
    base, tensors = toys()
    whole = run("dare", (0.5, 0.3, 0.2), tensors, base, density=1.0)
    torch.testing.assert_close(whole, run("task_arithmetic", (0.5, 0.3, 0.2), tensors, base))
    elected = run("dare_ties", (0.5, 0.3, 0.2), tensors, base, density=1.0)
    torch.testing.assert_close(elected, run("ties", (0.5, 0.3, 0.2), tensors, base, density=1.0))


def test_model_stock():
    base, tensors = toys()
    found = run("model_stock", (1 / 3,) * 3, tensors, base)
    d = [(t - base).flatten() for t in tensors]
    cos = np.mean([float(torch.cosine_similarity(d[i], d[j], dim=0)) for i, j in ((0, 1), (0, 2), (1, 2))])
    ratio = min(max(3 * cos / (1 + 2 * cos), 0.0), 1.0)
    expected = ratio * sum(tensors) / 3 + (1 - ratio) * base
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    same = [tensors[0]] * 3  # one direction: nothing to draw back from
    torch.testing.assert_close(run("model_stock", (1 / 3,) * 3, same, base), tensors[0], atol=1e-5, rtol=1e-5)
    opposite = [base + 1, base - 1]
    assert torch.equal(run("model_stock", (0.5, 0.5), opposite, base), base)
    assert torch.equal(run("model_stock", (0.5, 0.5), [base, base], base), base)


def test_slerp():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    half = run("slerp", (0.5, 0.5), [a, b])
    torch.testing.assert_close(half, torch.tensor([0.5**0.5, 0.5**0.5]))
    third = run("slerp", (2 / 3, 1 / 3), [a, b])
    torch.testing.assert_close(
        third, torch.tensor([np.cos(np.pi / 6), np.sin(np.pi / 6)], dtype=torch.float32)
    )
    near = run("slerp", (0.5, 0.5), [a, a * 3])  # one direction: a straight line
    torch.testing.assert_close(near, torch.tensor([2.0, 0.0]))
    zero = torch.zeros(2)
    assert torch.equal(run("slerp", (0.5, 0.5), [zero, b]), b / 2)


RECORDED = json.loads(DATA.read_text()) if DATA.is_file() else {"cases": []}


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_against_mergekit(case):
    tensors = [torch.tensor(t) for t in case.get("tensors", RECORDED["tensors"])[: case["models"]]]
    found = run(
        case["method"], case["coefficients"], tensors,
        torch.tensor(RECORDED["base"]) if METHODS[case["method"]].needs_base else None,
        **case["options"],
    )  # fmt: skip
    torch.testing.assert_close(found, torch.tensor(case["result"]), atol=case["atol"], rtol=0)


def test_mergekit_numbers_are_there():
    assert {case["method"] for case in RECORDED["cases"]} >= {
        "linear",
        "task_arithmetic",
        "ties",
        "slerp",
        "dare",
    }
