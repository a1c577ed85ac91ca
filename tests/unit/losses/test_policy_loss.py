"""The policy loss against the plain formula and finite differences; baselines; rewards that teach nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unival.errors import ConfigError, UnivalError
from unival.losses import PolicyOptions, mean_of_others, policy_loss
from unival.losses.rows import CHUNK_ELEMENTS
from unival.rewards import RewardGuard, RewardSums

V = 11
REWARDS = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)


def generated() -> tuple[Tensor, Tensor]:
    """Logits (3, 4, V) and tokens of three lengths; the middle of one row is not scored."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 4, V, generator=generator, dtype=torch.float64)
    tokens = torch.tensor([[5, 2, 1, 1], [6, 7, 8, 2], [9, 1, 10, 2]])
    return logits, tokens


def naive(logits: Tensor, tokens: Tensor, rewards: Tensor, limits: tuple[int, int] | None = None) -> Tensor:
    if limits is not None:
        kept = torch.zeros(V, dtype=torch.bool)
        kept[:4] = True
        kept[limits[0] : limits[1]] = True
        logits = logits.masked_fill(~kept, -torch.inf)
    chosen = torch.log_softmax(logits, -1).gather(2, tokens[..., None])[..., 0]
    return -(chosen.masked_fill(tokens == 1, 0.0).sum(1) * rewards).sum()


@pytest.mark.parametrize("chunk", [1, 3 * V, 2**22])
@pytest.mark.parametrize("limits", [None, (5, 11)])
def test_equals_the_formula(
    limits: tuple[int, int] | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", chunk)
    logits, tokens = generated()
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    output = policy_loss(ours, tokens, REWARDS, limits=limits)
    wanted = naive(plain, tokens, REWARDS, limits)
    torch.testing.assert_close(output.loss, wanted)
    output.loss.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, plain.grad)
    assert output.nll_loss.item() == pytest.approx(naive(logits, tokens, torch.ones(3), limits).item())


def test_finite_differences() -> None:
    logits, tokens = generated()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: policy_loss(x, tokens, REWARDS).loss, (logits,))


def test_counts() -> None:
    logits, tokens = generated()
    output = policy_loss(logits, tokens, 1.0)
    assert (output.ntokens, output.sample_size, output.nsentences) == (9, 9, 3)
    tokens[0] = 1  # a row with fewer outputs than the others
    output = policy_loss(logits, tokens, 1.0, sentence_avg=True)
    assert (output.ntokens, output.sample_size, output.nsentences) == (7, 2, 2)
    assert output.rows is not None and output.rows[0].abs().sum() == 0


def test_float32_inside_whatever_the_logits() -> None:
    logits, tokens = generated()
    low = logits.bfloat16().requires_grad_()
    output = policy_loss(low, tokens, REWARDS)
    same = policy_loss(low.detach().float(), tokens, REWARDS)
    assert output.loss.dtype == torch.float32 and output.loss.item() == same.loss.item()
    output.loss.backward()
    assert low.grad is not None and low.grad.dtype == torch.bfloat16


def test_nothing_is_kept_beside_the_logits() -> None:
    """The backward pass needs the logits alone: nothing else of (tokens, V) is saved for it."""
    logits = torch.randn(4, 8, 1000, requires_grad=True)
    tokens = torch.randint(4, 1000, (4, 8))
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy_loss(logits, tokens, 1.0)
    large = {tensor.data_ptr() for tensor in saved if tensor.numel() >= logits.numel()}
    assert large == {logits.data_ptr()}


def test_what_does_not_fit_is_refused() -> None:
    logits, tokens = generated()
    with pytest.raises(ConfigError, match="2 rewards do not fit 3 sequences"):
        policy_loss(logits, tokens, torch.ones(2))
    with pytest.raises(ConfigError, match="do not fit logits"):
        policy_loss(logits, tokens[:, :3], 1.0)
    for options, message in (
        ({"scst_baseline": "greed"}, "Did you mean 'greedy'"),
        ({"scst_samples": 0}, "scst_samples 0: expected 1 or more"),
        ({"scst_patience": -1}, "scst_patience"),
        ({"constraint_range": "9"}, "constraint range"),
    ):
        with pytest.raises(ConfigError, match=message):
            PolicyOptions(**options)


def test_mean_of_others() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [4.0, 0.0, 9.0], [5.0, 9.0, 9.0]])
    present = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    baseline = mean_of_others(rewards, present)
    assert baseline[0].tolist() == [4.0, 3.5, 1.5]
    assert baseline[1, :2].tolist() == [0.0, 4.0]
    assert baseline[2, 0] == 5.0  # alone: no advantage
    advantage = (rewards - baseline)[0]
    assert advantage.sum().item() == pytest.approx(0.0)


def sums(rewards: list[list[float]], baseline: float = 0.0) -> RewardSums:
    values = torch.tensor(rewards)
    return RewardSums.of(values, values - baseline, torch.ones_like(values, dtype=torch.bool))


def test_statistics_join() -> None:
    parts = [[[0.0, 1.0], [3.0, 3.0]], [[2.0, 2.0]]]
    logs = [{"loss": 1.0, **sums(part).log()} for part in parts]
    joined = RewardSums.joined([*logs, {"loss": 0.0}]).statistics()
    values = torch.tensor([0.0, 1.0, 3.0, 3.0, 2.0, 2.0])
    assert joined["reward"] == pytest.approx(float(values.mean()))
    assert joined["reward_std"] == pytest.approx(float(values.std(unbiased=False)))
    assert (joined["reward_min"], joined["reward_max"]) == (1.0, 2.5)  # means over the two steps
    flat = sums([[2.0, 2.0], [2.0, 3.0]], baseline=2.0).statistics()
    assert flat["zero_advantage"] == 0.5
    assert RewardSums.joined([{"loss": 0.0}]).statistics() == {}


def test_the_guard_stops_what_teaches_nothing() -> None:
    good, zero, flat = sums([[1.0]]), sums([[0.0]]), sums([[2.0]], baseline=2.0)
    guard = RewardGuard(3, "start elsewhere")
    for update in range(3):
        guard.see(update, zero)
        guard.see(update, zero)  # accumulated
    with pytest.raises(UnivalError, match=r"last 3 updates are zero.*start elsewhere.*--scst-patience 3"):
        guard.see(3, good)
    guard = RewardGuard(3, "")
    for update in range(3):
        guard.see(update, flat)
    with pytest.raises(UnivalError, match="no output was better or worse than its baseline"):
        guard.see(3, flat)


def test_the_guard_lets_pass_what_teaches_something() -> None:
    good, zero = sums([[1.0]]), sums([[0.0]])
    guard = RewardGuard(3, "")
    for update in range(30):
        guard.see(update, good if update % 3 == 1 else zero)
    resumed = RewardGuard(3, "")
    for update in range(4, 7):  # began within a block
        resumed.see(update, zero)
    never = RewardGuard(0, "")
    for update in range(100):
        never.see(update, zero)
