"""Memory counted from shapes equals what a real forward pass keeps; the plan of a real recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unival import build_model
from unival.modeling.memory import Optimizer, forward_saves, step_memory, without_content
from unival.modeling.remaking import counting

SMALL: dict[str, Any] = {
    "encoder_embed_dim": 32, "decoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "decoder_ffn_embed_dim": 64,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "resnet_type": "resnet18", "video_encoder_name": "all_resnext14", "audio_encoder_name": "pann_cnn6",
    "hop_size": 640,
}  # fmt: skip
MEDIA = {
    "image": {"patch_images": (3, 3, 64, 64)},
    "video": {"patch_videos": (3, 3, 4, 64, 64)},
    "audio": {"patch_audios": (3, 20000)},
}


def net_input(kind: str) -> dict[str, Any]:
    torch.manual_seed(0)
    media = {name: torch.randn(shape) for name, shape in MEDIA[kind].items()}
    tokens = torch.randint(4, 100, (3, 7))
    tokens[1, 5:] = 1
    types = torch.full((3,), list(MEDIA).index(kind))
    return {
        "src_tokens": tokens,
        "src_lengths": torch.tensor([7, 5, 7]),
        "prev_output_tokens": torch.randint(4, 100, (3, 6)),
        "patch_types": types,
        **media,
    }


def really_saved(model: torch.nn.Module, given: dict[str, Any]) -> int:
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage
        return tensor

    with counting(keep, "cpu"):
        logits, _ = model(**given)
    return sum(s.nbytes() for s in found.values()) + 2 * logits.numel() * 4


@pytest.mark.parametrize("kind", list(MEDIA))
def test_counted_activations_are_those_of_a_real_pass(kind: str) -> None:
    model = build_model("unival_tiny", vocab_size=200, **SMALL).train()
    given = net_input(kind)
    real = really_saved(model, given)
    counted = forward_saves(without_content(model), [given]).total
    assert counted == pytest.approx(real, rel=0.03)


def test_a_cpu_makes_large_maps_again() -> None:
    model = build_model("unival_tiny", vocab_size=200, **SMALL).train()
    batch = [{"net_input": net_input("video"), "nsentences": 3}]
    lean, plain = (step_memory(model, batch, device=device) for device in ("cpu", "cuda"))
    assert lean.activations < 0.85 * plain.activations and lean.peak < plain.peak


def test_parts_follow_from_the_parameters() -> None:
    model = build_model("unival_tiny", vocab_size=200, freeze_decoder=True, **SMALL)

    def memory(*kinds: str, **how: Any) -> Any:
        batches = [{"net_input": net_input(kind), "nsentences": 3} for kind in kinds or ("image",)]
        return step_memory(model, batches, **how)

    model.train()(**net_input("image"))[0].sum().backward()
    trained = sum(p.numel() for p in model.parameters() if p.grad is not None)
    could = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    plain = memory()
    assert 0 < trained < 0.5 * could < could < every, "networks of videos and sounds are there, and not used"
    assert (plain.optimizer, plain.gradients, plain.average) == (8 * trained, 4 * trained, 0)
    assert plain.peak > plain.weights + plain.optimizer + plain.activations
    half = memory(precision=torch.bfloat16, average=torch.float32)
    buffers = plain.weights - 4 * every
    reduced = sum(p.nbytes for p in without_content(model).to(torch.bfloat16).parameters())
    assert half.weights - buffers == reduced + 4 * trained, "masters of what trains"
    assert (half.optimizer, half.gradients, half.average) == (8 * trained, 2 * trained, every * 6)
    assert half.activations < 0.75 * plain.activations
    assert memory(optimizer=Optimizer(moments=1)).optimizer == 4 * trained
    lean = memory(precision=torch.bfloat16, optimizer=Optimizer(masters=False))
    assert lean.weights - buffers == reduced and lean.optimizer == 8 * trained
    engine = memory(precision=torch.bfloat16, optimizer=Optimizer(copies=True))
    assert engine.weights - buffers == reduced + 4 * could and engine.optimizer == 8 * could
    assert engine.gradients == 2 * trained + 4 * could and engine.step > half.step + 3 * could
    several = memory("image", "video")
    assert several.optimizer > plain.optimizer, "what any batch trains is trained"


def test_a_model_is_as_it_was() -> None:
    model = build_model("unival_tiny", vocab_size=200, **SMALL).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes = without_content(model)
    assert all(p.is_meta for p in shapes.parameters()) and all(b.is_meta for b in shapes.buffers())
    assert len(list(shapes.parameters())) == len(list(model.parameters())), "shared tensors stay shared"
    step_memory(model, [{"net_input": net_input("image"), "nsentences": 3}], torch.bfloat16)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sub_batches_live_together() -> None:
    model = build_model("unival_tiny", vocab_size=200, **SMALL)
    parts = [{"net_input": net_input(kind), "nsentences": 3} for kind in ("image", "video")]
    together = step_memory(model, [parts]).activations
    alone = [step_memory(model, [part]).activations for part in parts]
    assert together == pytest.approx(sum(alone), rel=0.01)
