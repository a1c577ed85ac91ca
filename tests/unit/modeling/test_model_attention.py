import pytest
import torch

from tests.support.model_fixtures import ALL, mixed_batch, small_model
from unival.errors import ConfigError
from unival.modeling import attention
from unival.modeling.attention import attend, mask_bias


def inputs(dtype=torch.float32, rows=2):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(rows, 4, 5, 8, generator=generator)
    k = torch.randn(rows, 4, 7, 8, generator=generator)
    v = torch.randn(rows, 4, 7, 8, generator=generator)
    bias = torch.randn(1, 4, 5, 7, generator=generator)
    return [t.to(dtype) for t in (q, k, v, bias)]


def both(*args, **kwargs):
    out = []
    for name in attention.BACKENDS:
        with attention.backend(name):
            out.append(attend(*args, **kwargs))
    return out


@pytest.mark.parametrize("bias_rows", [None, 1, 2])
def test_backends_agree(bias_rows):
    q, k, v, bias = inputs()
    bias = None if bias_rows is None else bias.repeat(bias_rows, 1, 1, 1)
    fused, naive = both(q, k, v, bias, 0.3)
    assert (fused - naive).abs().max() < 2e-6  # measured 3e-7


def test_gradients_of_both_backends_agree():
    grads = []
    for name in attention.BACKENDS:
        tensors = [t.requires_grad_() for t in inputs()]
        with attention.backend(name):
            attend(*tensors, 0.3).square().sum().backward()
        grads.append([t.grad for t in tensors])
    for a, b in zip(*grads, strict=True):
        assert (a - b).abs().max() < 1e-5  # measured 1.3e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fully_masked_rows_are_not_nan(dtype):
    q, k, v, bias = inputs(dtype)
    blocked = torch.zeros(2, 1, 1, 7, dtype=torch.bool)
    blocked[1] = True
    for bias_type in (dtype, torch.float32):
        for out in both(q, k, v, mask_bias(bias.to(bias_type), blocked), 0.3):
            assert out.dtype == dtype and torch.isfinite(out).all()
            assert (out[1].float().abs() <= v[1].float().abs().amax(1, keepdim=True)).all()


def test_masked_keys_have_no_influence():
    q, k, v, bias = inputs()
    blocked = torch.tensor([False] * 4 + [True] * 3)
    short = attend(q, k[:, :, :4], v[:, :, :4], bias[..., :4], 0.3)
    for out in both(q, k, v, mask_bias(bias, blocked), 0.3):
        assert (out - short).abs().max() < 2e-6


def test_softmax_is_float32_under_bfloat16():
    """3000 nearly equal keys: weights of 1/3000 summed in bfloat16 would be off by several per cent."""
    q, k = torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 3000, 8)
    v = torch.ones(1, 1, 3000, 8)
    bias = torch.linspace(0, 0.01, 3000).expand(1, 1, 1, -1)
    for out in both(*(t.bfloat16() for t in (q, k, v, bias)), 0.3):
        assert (out.float() - 1).abs().max() < 0.01


@pytest.mark.parametrize("kind", [0, 1, 2, -1])
def test_whole_model_with_both_backends(kind):
    model = small_model(**ALL)
    batch = mixed_batch((kind,) * 2)
    logits = []
    for name in attention.BACKENDS:
        with attention.backend(name), torch.no_grad():
            logits.append(model(**batch)[0])
    assert (logits[0] - logits[1]).abs().max() < 2e-5


def test_unknown_backend():
    with pytest.raises(ConfigError, match="sdpa"):
        attention.set_backend("spda")
    assert attention.get_backend() == "sdpa"
