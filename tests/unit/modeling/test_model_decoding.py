import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.model_fixtures import ALL, mixed_batch, small_model
from unival.errors import DataError
from unival.modeling.encoder_output import EncoderOutput


@pytest.fixture(scope="module")
def model():
    return small_model(**ALL)


@pytest.fixture(scope="module")
def case(model):
    batch = mixed_batch()
    codes = torch.tensor([False, True, False, False, True])
    with torch.no_grad():
        logits, extra = model(**batch, code_masks=codes)
    return batch["prev_output_tokens"], logits, extra["encoder_out"], codes


def differences(got, want, tokens):
    return (got - want)[tokens.ne(1)].abs().max()


@pytest.mark.parametrize("beam", [1, 3])
def test_steps_equal_the_full_pass(model, case, beam):
    tokens, logits, encoder_out, codes = case
    state = model.decoder.start(encoder_out, 10, codes, beam)
    rows = tokens.repeat_interleave(beam, 0)
    got = torch.stack([model.decoder.step(rows[:, t], state) for t in range(tokens.size(1))], 1)
    for b in range(beam):
        assert differences(got[b::beam], logits, tokens) < 2e-5  # measured 5e-7


@given(cut=st.integers(1, 6))
@settings(max_examples=6, deadline=None)
def test_prefill_equals_steps(model, case, cut):
    tokens, logits, encoder_out, codes = case
    state = model.decoder.start(encoder_out, 7, codes)
    parts = [model.decoder.prefill(tokens[:, :cut], state), model.decoder.prefill(tokens[:, cut:], state)]
    assert differences(torch.cat(parts, 1), logits, tokens) < 2e-5


def test_reorder_within_rows(model, case):
    _, _, encoder_out, _ = case
    generator = torch.Generator().manual_seed(0)
    beam, rows = 3, 15
    state = model.decoder.start(encoder_out, 8, beam=beam)
    history = torch.zeros(rows, 1, dtype=torch.long)
    for _ in range(5):
        logits = model.decoder.step(history[:, -1], state)
        with torch.no_grad():
            want, _ = model.decoder(history, encoder_out.select(torch.arange(5).repeat_interleave(beam)))
        assert (logits - want[:, -1]).abs().max() < 2e-5
        order = torch.cat([torch.randint(0, beam, (beam,), generator=generator) + beam * i for i in range(5)])
        state.reorder(order)
        history = torch.cat([history[order], torch.randint(4, 100, (rows, 1), generator=generator)], 1)


@pytest.mark.parametrize("kept", [[0, 1, 4, 5], [2, 3], [0, 3, 8, 9], [9, 0, 5], [7]])
def test_dropped_rows(model, case, kept):
    """Whole groups, uneven groups, and rows of other encoder rows in any order."""
    tokens, _, encoder_out, codes = case
    rows = tokens.repeat_interleave(2, 0)
    state = model.decoder.start(encoder_out, 8, codes, beam=2)
    model.decoder.prefill(rows[:, :3], state)
    kept = torch.tensor(kept)
    state.keep(kept)
    assert state.rows == len(kept)
    logits = model.decoder.step(rows[kept, 3], state)
    with torch.no_grad():
        want, _ = model.decoder(rows[kept, :4], encoder_out.select(kept // 2), codes[kept // 2])
    assert (logits - want[:, -1]).abs().max() < 2e-5


def test_limits_are_explained(model, case):
    tokens, _, encoder_out, _ = case
    state = model.decoder.start(encoder_out, 2)
    model.decoder.step(tokens[:, 0], state)
    with pytest.raises(DataError, match="5"):
        model.decoder.step(tokens[:3, 0], state)
    with pytest.raises(DataError, match="started for 2"):
        model.decoder.prefill(tokens[:, :2], state)
    with pytest.raises(DataError, match="1024"):
        model.decoder.start(encoder_out, 1025)


def test_decoding_with_prefixes():
    model = small_model(encoder_prompt=True, decoder_prompt=True, decoder_prompt_projection=True)
    model.requires_grad_(False)
    batch = mixed_batch((0, 0))
    logits, extra = model(**batch)
    state = model.decoder.start(extra["encoder_out"], 7)
    tokens = batch["prev_output_tokens"]
    got = torch.stack([model.decoder.step(tokens[:, t], state) for t in range(7)], 1)
    assert differences(got, logits, tokens) < 2e-5


def test_half_precision_state_follows_the_model(case, model):
    tokens, logits, encoder_out, codes = case
    half = small_model(**ALL).bfloat16()
    out = EncoderOutput(encoder_out.states.bfloat16(), encoder_out.padding, encoder_out.positions.bfloat16())
    state = half.decoder.start(out, 7, codes)
    got = torch.stack([half.decoder.step(tokens[:, t], state) for t in range(7)], 1)
    assert got.dtype == torch.bfloat16
    assert (got.float() - logits)[tokens.ne(1)].abs().max() < 0.1 * logits.std() * 3
