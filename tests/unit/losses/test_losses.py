"""The chunked loss against the plain formula, its gradient, its options and its refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unival.errors import ConfigError
from unival.losses import AllowedTokens, LossOptions, label_smoothed_loss
from unival.losses.plain import plain_row_losses
from unival.losses.rows import CHUNK_ELEMENTS, RowLosses, Terms

V = 11


def sample(batch: int = 3, length: int = 4, seed: int = 0, passes: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch * passes, length, V, generator=generator, dtype=torch.float64)
    target = torch.randint(4, V, (batch, length), generator=generator)
    target[:, -1] = 2
    target[0, -2:] = torch.tensor([2, 1])
    return logits, target


def masks(target: Tensor, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(*target.shape, V, generator=generator) < 0.5
    return mask.scatter(2, target.unsqueeze(2), True)


def naive(
    logits: Tensor,
    target: Tensor,
    o: LossOptions,
    conf: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The formula written out with automatic differentiation; no dropping of tokens."""
    if o.use_rdrop:
        target = target.repeat(2, 1)
    keep = target.ne(1)
    keep[:, : o.ignore_prefix_size] = False
    if o.ignore_eos:
        keep &= target.ne(2)
    allowed = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask
    log_p = torch.log_softmax(logits.masked_fill(~allowed, -torch.inf), -1)
    if conf is not None:
        log_p = log_p * conf.view(-1, 1, 1)
    log_p, target, allowed = log_p[keep], target[keep], allowed[keep]
    nll = -log_p.gather(1, target[:, None])[:, 0]
    e = o.label_smoothing / (allowed.sum(-1) - 1 + (0 if mask is None else 1e-6))
    finite = log_p.masked_fill(~allowed, 0.0)
    loss = (1 - o.label_smoothing - e) * nll - e * finite.sum(-1)
    if o.encouraging:
        p = log_p.exp()
        b = (1 - p).clamp_min(1e-5).log()
        if o.log_end < 1:
            end = torch.tensor(1 - o.log_end, dtype=p.dtype)
            b = torch.where(p > o.log_end, end.log() - (p - o.log_end) / end, b)
        loss = loss + (1 - o.label_smoothing) * b.gather(1, target[:, None])[:, 0]
        loss = loss + o.label_smoothing / V * b.sum(-1)
    total = loss.sum()
    if o.use_rdrop:
        p, q = finite.chunk(2)
        total = total + o.reg_alpha * ((p.exp() - q.exp()) * (p - q)).sum() / 2
    return total


CASES = {
    "plain": LossOptions(),
    "smoothed": LossOptions(label_smoothing=0.1),
    "prefix_and_eos": LossOptions(label_smoothing=0.1, ignore_prefix_size=1, ignore_eos=True),
    "bonus": LossOptions(label_smoothing=0.1, encouraging=True, log_end=0.3),
    "bonus_without_end": LossOptions(label_smoothing=0.2, encouraging=True, log_end=1.0),
    "rdrop": LossOptions(label_smoothing=0.1, use_rdrop=True, reg_alpha=0.7),
    "rdrop_bonus": LossOptions(label_smoothing=0.1, use_rdrop=True, encouraging=True, log_end=0.4),
}


@pytest.mark.parametrize("chunk", [1, 3 * V, 2**22])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_formula(
    name: str, constrained: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", chunk)
    options = CASES[name]
    passes = 2 if options.use_rdrop else 1
    logits, target = sample(passes=passes)
    if options.use_rdrop:
        mask = masks(target).repeat(2, 1, 1) if constrained else None
        conf = None
    else:
        mask = masks(target) if constrained else None
        conf = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = label_smoothed_loss(ours, target, options, conf=conf, constraint_masks=mask).loss
    wanted = naive(plain, target, options, conf, mask)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, plain.grad)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    options = CASES[name]
    logits, target = sample(batch=2, length=3, seed=3, passes=2 if options.use_rdrop else 1)
    logits.requires_grad_()
    conf = None if options.use_rdrop else torch.tensor([1.0, 0.5])
    assert torch.autograd.gradcheck(
        lambda x: label_smoothed_loss(x, target, options, conf=conf).loss, (logits,), atol=1e-6
    )


def test_float32_inside_whatever_the_logits() -> None:
    logits, target = sample()
    low = logits.bfloat16().requires_grad_()
    output = label_smoothed_loss(low, target, LossOptions(label_smoothing=0.1))
    same = label_smoothed_loss(low.detach().float(), target, LossOptions(label_smoothing=0.1))
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == same.loss.item()
    output.loss.backward()
    assert low.grad is not None and low.grad.dtype == torch.bfloat16


def test_allowed_tokens_equal_a_dense_mask() -> None:
    logits, target = sample()
    dense = masks(target)
    lists = [[position.nonzero().flatten().tolist() for position in row] for row in dense]
    lists[0] = lists[0][:3]  # the padded position may be left out
    sparse = AllowedTokens(lists, target.size(1), V)
    options = LossOptions(label_smoothing=0.1)
    one = label_smoothed_loss(logits, target, options, constraint_masks=dense)
    two = label_smoothed_loss(logits, target, options, constraint_masks=sparse)
    assert one.loss.item() == two.loss.item()


@pytest.mark.parametrize("passes", [1, 2])
def test_rows_without_a_constraint_beside_rows_with_one(passes: int) -> None:
    """Rows of two tasks in one batch: each loss is that of the row alone."""
    logits, target = sample(passes=passes)
    dense = masks(target)
    lists = [[position.nonzero().flatten().tolist() for position in row] for row in dense]
    options = LossOptions(label_smoothing=0.1, use_rdrop=passes == 2)
    together = AllowedTokens([None, lists[1], None], target.size(1), V)
    found = label_smoothed_loss(logits, target, options, constraint_masks=together).loss
    alone = 0.0
    for row in range(3):
        mask = dense[row : row + 1] if row == 1 else None
        alone += label_smoothed_loss(
            logits[row::3], target[row : row + 1], options, constraint_masks=mask
        ).loss
    torch.testing.assert_close(found, torch.as_tensor(alone), atol=1e-5, rtol=0)


def test_range_forbids_all_but_specials_and_the_range() -> None:
    logits, target = sample()
    target = torch.where(target > 3, target % 3 + 5, target)
    mask = torch.zeros(*target.shape, V, dtype=torch.bool)
    mask[..., :4] = mask[..., 5:8] = True
    ranged = LossOptions(label_smoothing=0.1, constraint_range="5,8")
    one = label_smoothed_loss(logits, target, ranged)
    two = label_smoothed_loss(logits, target, LossOptions(label_smoothing=0.1), constraint_masks=mask)
    assert one.loss.item() == pytest.approx(two.loss.item())


def test_dropping() -> None:
    logits, target = sample()
    rows = label_smoothed_loss(logits, target, LossOptions()).rows
    assert rows is not None
    ranked = rows[target.ne(1)].sort().values  # 11 scored tokens
    worst = LossOptions(drop_worst_ratio=0.3, drop_worst_after=5)
    assert label_smoothed_loss(logits, target, worst, update_num=5).sample_size == 11
    output = label_smoothed_loss(logits, target, worst, update_num=6)
    assert (output.sample_size, output.ntokens) == (7, 11)
    assert output.loss.item() == pytest.approx(ranked[:7].sum().item())
    best = LossOptions(drop_best_ratio=0.3)
    output = label_smoothed_loss(logits, target, best, update_num=1)
    assert output.loss.item() == pytest.approx(ranked[4:].sum().item())
    both = LossOptions(drop_worst_ratio=0.3, drop_best_ratio=0.5)
    output = label_smoothed_loss(logits, target, both, update_num=1)
    assert output.loss.item() == pytest.approx(ranked[4:7].sum().item())


def test_sample_sizes() -> None:
    logits, target = sample()
    assert label_smoothed_loss(logits, target, LossOptions()).sample_size == 11
    assert label_smoothed_loss(logits, target, LossOptions(ignore_eos=True)).sample_size == 8
    assert label_smoothed_loss(logits, target, LossOptions(sentence_avg=True)).sample_size == 3
    empty = label_smoothed_loss(logits, torch.ones_like(target), LossOptions(label_smoothing=0.1))
    assert (empty.sample_size, empty.loss.item()) == (0, 0.0)


def test_only_the_own_position_gets_a_gradient() -> None:
    logits, target = sample()
    logits.requires_grad_()
    options = LossOptions(ignore_prefix_size=1)
    label_smoothed_loss(logits, target, options).loss.backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(-1) > 0
    expected = target.ne(1)
    expected[:, 0] = False
    assert torch.equal(touched, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"drop_worst_ratio": -0.1}, "drop_worst_ratio"),
        ({"log_end": 0.0}, "log_end"),
        ({"ignore_prefix_size": -1}, "ignore_prefix_size"),
        ({"constraint_range": "7"}, "constraint range"),
        ({"constraint_range": "2,9"}, "constraint range"),
    ],
)
def test_refused_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossOptions(**options)  # type: ignore[arg-type]


def test_refused_shapes() -> None:
    logits, target = sample()
    with pytest.raises(ConfigError, match="rows of logits"):
        label_smoothed_loss(logits, target[:2], LossOptions())
    with pytest.raises(ConfigError, match="does not fit"):
        label_smoothed_loss(logits, target[:, :2], LossOptions())
    with pytest.raises(ConfigError, match="two passes"):
        label_smoothed_loss(logits, target, LossOptions(use_rdrop=True))
    with pytest.raises(ConfigError, match="exclude each other"):
        label_smoothed_loss(
            logits, target, LossOptions(constraint_range="5,8"), constraint_masks=masks(target)
        )
    with pytest.raises(ConfigError, match="beyond the vocabulary"):
        label_smoothed_loss(logits, target, LossOptions(constraint_range="5,80"))


@pytest.mark.parametrize("encouraging", [False, True])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("passes", [1, 2])
def test_rows_equal_their_plain_twin(passes: int, constrained: bool, encouraging: bool) -> None:
    """The hand-written backward pass and autograd on the formula, values and gradients; smoothing is float32."""
    logits, target = sample(passes=passes)
    options = LossOptions(label_smoothing=0.1, encouraging=encouraging, log_end=0.6, use_rdrop=passes == 2)
    both = target.repeat(passes, 1)
    rows = both.ne(1).reshape(-1).nonzero().squeeze(1)
    confidence = torch.linspace(0.3, 1.0, len(rows) // passes, dtype=torch.float64).repeat(passes)
    mask = masks(target).reshape(-1, V) if constrained else None
    terms = Terms(both.reshape(-1)[rows], rows, confidence, mask, options, passes == 2)
    weights = torch.linspace(-1, 1, len(rows), dtype=torch.float64)
    results = []
    for losses in (RowLosses.apply, plain_row_losses):
        flat = logits.detach().reshape(-1, V).requires_grad_()
        parts = losses(flat, terms)
        (weights * (parts[0] + 2 * parts[2] + 3 * parts[3])).sum().backward()
        results.append((*(part.detach() for part in parts), flat.grad))
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, atol=2e-7, rtol=1e-7)
