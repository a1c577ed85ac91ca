"""On a GPU: the recorded numbers in float32, half precision near them, the same hypotheses and losses as the CPU."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import rules
from unival.generate import generate
from unival.losses import LossOptions, label_smoothed_loss
from unival.modeling import attention
from unival.modeling.build import build_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DATA = Path(__file__).parent / "data"
RECORDS = json.loads((DATA / "tiny_forward.json").read_text())
CASES = [c for c in RECORDS["cases"] if not c.startswith("mix_")]
MIXED = [c for c in RECORDS["cases"] if c.startswith("mix_")]
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def exact_products():
    """float32 products in float32, not TF32, while these tests run."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def make(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return rules.set_rule_weights(build_model("unival_base", **rules.build_options("tiny")))


@cache
def model() -> torch.nn.Module:
    return make().cuda().eval()


@cache
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "tiny_forward.npz"))


def batch(case: str, device: str = "cuda") -> dict[str, torch.Tensor]:
    return {k: v.to(device) for k, v in rules.net_input(case, RECORDS["cases"][case]["spec"]).items()}


@pytest.mark.parametrize("backend", attention.BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_recorded_ones(case: str, backend: str) -> None:
    with torch.no_grad(), attention.backend(backend):
        logits, _ = model()(**batch(case))
    columns = RECORDS["logit_columns"]
    part = eval("logits" + RECORDS["cases"][case]["logits_slice"], {"logits": logits, "COLS": columns})
    assert np.abs(part.cpu().numpy() - recorded()[f"{case}/logits"]).max() < TOLERANCE
    assert (logits.argmax(-1).cpu().numpy() == recorded()[f"{case}/logits_argmax"]).all()


@pytest.mark.parametrize("case", MIXED)
def test_rows_of_a_mixed_batch_equal_the_cpu(case: str) -> None:
    with torch.no_grad():
        there, _ = model()(**batch(case))
        here, _ = make().eval()(**batch(case, "cpu"))
    assert (there.cpu() - here).abs().max() < TOLERANCE


@pytest.mark.parametrize("backend", attention.BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_cpu(case: str, backend: str) -> None:
    """In the networks a rounded ReLU opens or closes now and then: up to 8.5e-3 of a weight's norm."""
    found = {}
    for device in ("cpu", "cuda"):
        net, inputs = make().to(device).eval(), batch(case, device)
        lengths = RECORDS["cases"][case]["spec"]["tgt"]
        target = rules.shifted_target(inputs["prev_output_tokens"], lengths)
        with attention.backend(backend):
            label_smoothed_loss(net(**inputs)[0], target, LossOptions(label_smoothing=0.1)).loss.backward()
        found[device] = {n: p.grad.double().cpu() for n, p in net.named_parameters() if p.grad is not None}
    assert found["cpu"].keys() == found["cuda"].keys()
    whole = torch.cat([g.flatten() for g in found["cpu"].values()]).norm()
    for name, ours in found["cpu"].items():
        difference = (ours - found["cuda"][name]).norm()
        limit = 2e-2 if name.startswith("encoder.embed_") else 2e-4
        assert difference <= limit * ours.norm() + 1e-6 * whole, name


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_near(case: str, precision: torch.dtype) -> None:
    """Logits have a spread of 1: bfloat16 keeps 8 bits of each value, float16 11."""
    net, inputs = make().to(precision).cuda(), batch(case)
    net.eval()
    logits, _ = net(**inputs)
    with torch.no_grad():
        exact, _ = model()(**inputs)
    assert logits.dtype == precision
    limit = 0.08 if precision == torch.bfloat16 else 0.02
    assert (logits.float() - exact).std() < limit
    target = rules.shifted_target(inputs["prev_output_tokens"], RECORDS["cases"][case]["spec"]["tgt"])
    label_smoothed_loss(logits, target, LossOptions(label_smoothing=0.1)).loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_hypotheses_equal_the_cpu(kind: str) -> None:
    """Weights under which beam search ends by itself; scores agree to rounding."""
    inputs = {
        "src_tokens": rules.tokens("gpu/src", [7, 5, 6]),
        "patch_types": torch.full((3,), ("image", "video", "audio").index(kind)),
    }
    media = {
        "image": lambda: rules.image("gpu/image", 3, 96, 96),
        "video": lambda: rules.video("gpu/video", 3, 4, 64, 64),
        "audio": lambda: rules.audio("gpu/audio", 3, 48_000),
    }
    inputs[f"patch_{kind}s"] = media[kind]()
    settings = {"beam": 5, "max_len_b": 16, "min_len": 1}
    found = {}
    for device in ("cpu", "cuda"):
        net = build_model("unival_base", **rules.build_options("tiny"))
        net = rules.set_generation_weights(net).to(device).eval()
        found[device] = generate(net, {k: v.to(device) for k, v in inputs.items()}, settings=settings)
    for here, there in zip(found["cpu"], found["cuda"], strict=True):
        assert [h.tokens for h in here] == [h.tokens for h in there]
        assert [h.score for h in here] == pytest.approx([h.score for h in there], abs=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"encouraging": True}, {"use_rdrop": True}, {"drop_worst_ratio": 0.2}]
)
def test_losses_equal_the_cpu(options: dict) -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(4, 9, 600), torch.randint(4, 600, (4, 9))
    target[0, 6:] = 1
    settings = LossOptions(label_smoothing=0.1, **options)
    found = []
    for device in ("cpu", "cuda"):
        own = logits.to(device).requires_grad_()
        loss = label_smoothed_loss(own, target.to(device), settings, update_num=1).loss
        loss.backward()
        found.append((loss.item(), own.grad.cpu()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_attention_with_slices_of_a_bias(precision: torch.dtype) -> None:
    """Decoding reads rows of a larger bias, which begin at any address: fused kernels must not misread them."""
    torch.manual_seed(0)
    with torch.no_grad():
        for keys in (1, 5, 8, 13, 16, 21, 33):
            k, v = (torch.randn(3, 2, keys, 16, device="cuda", dtype=precision) for _ in range(2))
            whole = torch.randn(1, 2, 9, keys, device="cuda", dtype=precision)
            for at, queries in ((0, 1), (1, 1), (3, 1), (2, 5), (8, 1)):
                q = torch.randn(3, 2, queries, 16, device="cuda", dtype=precision)
                found = []
                for backend in attention.BACKENDS:
                    with attention.backend(backend):
                        found.append(attention.attend(q, k, v, whole[:, :, at : at + queries], 0.25))
                torch.cuda.synchronize()
                limit = 1e-5 if precision == torch.float32 else 2e-2
                assert (found[0] - found[1]).abs().max() < limit, (keys, at, queries)
