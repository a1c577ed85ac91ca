"""Outputs for policy gradients: what counts as the model's choice, and that nothing else is disturbed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.model_fixtures import ALL, mixed_batch, small_model
from unival.batching.batch import Example, collate
from unival.losses import token_log_probs
from unival.modeling import copies, packing, products
from unival.predict.inference import Inference
from unival.rewards import rollout
from unival.rewards.rollout import roll_out, select_rows, shifted
from unival.specs import SpecOptions, get_spec
from unival.vocabulary import Vocabulary

VOCABULARY = Vocabulary.train(["a red circle", "what colour is it?"], 280, 16, 64)


@pytest.fixture(scope="module", name="model")
def _model() -> torch.nn.Module:
    from tests.support.model_fixtures import SMALL
    from unival.modeling.build import build_model

    torch.manual_seed(1)
    options = {**SMALL, "dropout": 0.3, "freeze_batchnorm": True}
    model = build_model("unival_tiny", len(VOCABULARY), **options)
    with torch.no_grad():
        model.encoder.embed_tokens.weight.mul_(20)  # so that outputs differ
    return model


def batch(prefix: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    examples = []
    for number, length in enumerate((4, 6)):
        source = torch.tensor([0, *range(10, 10 + length), 2])
        target = torch.tensor([20, 21, 22, 23, 2])
        examples.append(
            Example(
                id=f"row{number}",
                source=source,
                target=target,
                prev_output=torch.tensor([0, *target[:-1]]),
                modality="image",
                media=torch.randn(3, 64, 64, generator=generator),
                prefix=torch.tensor([30, 31][: number + 1] if prefix else [], dtype=torch.int64),
                size=(64, 64),
                resize=(1.0, 1.0),
            )
        )
    return collate(examples)


def inference(task: str = "caption", mode: str = "beamsearch", **settings: Any) -> Inference:
    return Inference(get_spec(task), SpecOptions(), VOCABULARY, settings, mode)


@pytest.mark.parametrize("types", [(0, -1, 1, 2, 0), (0, 0, 0), (1, 0), (-1, -1)])
@pytest.mark.parametrize("compact", [True, False])
def test_selected_rows_give_what_they_give_alone(types: tuple[int, ...], compact: bool) -> None:
    model = small_model(**ALL)
    given = mixed_batch(types, compact=compact)
    rows = torch.tensor([n for n in range(len(types)) for _ in range(2)] + [0])
    wanted = model(**given)[0][rows]
    chosen = select_rows(given, rows, given["prev_output_tokens"][rows])
    for name in ("patch_images", "patch_videos", "patch_audios"):
        assert chosen.get(name) is given.get(name)  # media are not copied
    torch.testing.assert_close(model(**chosen)[0], wanted, atol=2e-5, rtol=1e-4)
    again = select_rows(chosen, torch.tensor([1, 0]), chosen["prev_output_tokens"][:2])
    torch.testing.assert_close(model(**again)[0], wanted[[1, 0]], atol=2e-5, rtol=1e-4)


def test_captions(model: torch.nn.Module) -> None:
    model.train()
    before = torch.get_rng_state()
    sampling = inference(sampling=True, beam=4, max_len_b=6, no_repeat_ngram_size=0)
    out = roll_out(model, sampling, batch(), [1, 2])
    assert torch.equal(torch.get_rng_state(), before) and model.training
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms), "frozen stays frozen"
    assert out.tokens.shape == out.scored.shape and out.tokens.shape[:2] == (2, 4)
    assert out.present.all() and out.tokens.dtype == torch.int64
    ended = out.tokens.eq(2)
    assert ended.sum(-1).eq(1).all()
    # an end that the limit forced is no choice of the model; any other is
    cut = ended[..., 6] if out.tokens.size(2) > 6 else torch.zeros_like(ended[..., 0])
    assert cut.any()
    assert torch.equal(out.scored.eq(2).any(-1), ~cut)
    assert torch.equal(out.scored.ne(1) | ended, out.tokens.ne(1))
    assert [len(texts) for texts in out.outputs] == [4, 4]
    same = roll_out(model, sampling, batch(), [1, 2])
    other = roll_out(model, sampling, batch(), [1, 3])
    assert torch.equal(out.tokens, same.tokens) and torch.equal(out.tokens[0], other.tokens[0])
    assert not torch.equal(out.tokens[1], other.tokens[1])
    assert roll_out(model, sampling, batch(), [1, 2], samples=2).tokens.shape[1] == 2


def test_boxes_and_forced_prefixes(model: torch.nn.Module) -> None:
    model.eval()
    boxes = roll_out(model, inference("grounding", beam=2), batch(), [0, 0], samples=1)
    assert boxes.tokens.shape == (2, 1, 5) and boxes.scored[..., 4].eq(1).all()
    assert all(len(found[0]) == 4 for found in boxes.outputs)
    forced = roll_out(model, inference(beam=1, max_len_b=8), batch(prefix=True), [0, 0])
    assert forced.tokens[1, 0, :2].tolist() == [30, 31] and forced.scored[1, 0, :2].eq(1).all()
    assert forced.tokens[0, 0, 0] == 30 and forced.scored[0, 0, 0] == 1 and forced.scored[0, 0, 1] != 1
    ignored = roll_out(model, inference(beam=1, max_len_b=8), batch(), [0, 0], ignore_prefix_size=3)
    assert ignored.scored[..., :3].eq(1).all() and ignored.scored[..., 3].ne(1).all()


def test_teacher_forcing_gives_the_search_its_own_scores(model: torch.nn.Module) -> None:
    """The log-probabilities that the policy loss weighs are those that generation reported."""
    model.eval()
    given, search = batch(), inference("grounding", beam=3)
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    out = roll_out(model, search, given, [0, 0])
    tokens = out.tokens.view(6, -1)
    logits, _ = model(**select_rows(given["net_input"], rows, shifted(tokens, 0)))
    found = token_log_probs(logits, out.scored.view(6, -1), 1, search.constraint)
    wanted = [h.positional_scores[:4] for row in search.search(model, given) for h in row]
    torch.testing.assert_close(found[:, :4], torch.tensor(wanted), atol=2e-5, rtol=1e-4)


def test_weights_that_change_next_keep_no_copies(model, monkeypatch):
    """An update follows: copies would lie beside its gradients, of weights that are no more."""
    monkeypatch.setattr(products, "WAY", products.on_intel)
    monkeypatch.setattr(packing, "NUMBERS", 0)
    monkeypatch.setattr(packing, "USES", 0)
    made = []
    known = copies.Copies()
    monkeypatch.setattr(copies, "_copies", known)
    monkeypatch.setattr(rollout, "release", lambda: (made.append(len(known)), copies.release()))
    roll_out(model, inference(max_len_b=4), batch(), [1, 2])
    assert made[0] > 0 and not len(known)
