"""The encoder runs once for what a loss and a search, or several searches, ask of the same tensors."""

from __future__ import annotations

from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from tests.support.model_fixtures import ALL, mixed_batch, small_model
from unival.generate import GenerationSettings, generate, rank_candidates
from unival.generate.run import encode
from unival.modeling import products
from unival.modeling.encoding import encoded_once

SETTINGS = GenerationSettings(beam=2, max_len_b=4)
ANSWERS = [[5, 6], [7], [8, 9, 10]]


@pytest.fixture(scope="module")
def model():
    return small_model(**ALL)


@pytest.fixture(autouse=True)
def one_way(monkeypatch):
    """A processor's own products differ from those of a loss in the last digits."""
    monkeypatch.setattr(products, "WAY", None)


@pytest.fixture
def runs(model):
    """The batches that the encoder has met."""
    met = []
    hook = model.encoder.register_forward_pre_hook(
        lambda _, args, named: met.append((args, named)), with_kwargs=True
    )
    yield met
    hook.remove()


def searched(model, batch):
    return [
        (list(best.tokens), float(best.score)) for row in generate(model, batch, SETTINGS) for best in row
    ]


@torch.no_grad()
def test_a_search_takes_the_encoding_of_the_loss(model, runs):
    batch = mixed_batch(compact=True)
    expected, scores = searched(model, batch), rank_candidates(model, batch, ANSWERS)
    del runs[:]
    with encoded_once():
        model(**batch)
        assert searched(model, batch) == expected
        assert torch.equal(rank_candidates(model, batch, ANSWERS), scores)
    assert len(runs) == 1


@torch.no_grad()
def test_parts_of_a_batch_keep_apart(model, runs):
    parts = [mixed_batch(types=(0, -1), seed=1), mixed_batch(types=(2, 1), compact=True, seed=2)]
    expected = [searched(model, part) for part in parts]
    assert expected[0] != expected[1]
    del runs[:]
    with encoded_once():
        for part in parts:
            model(**part)
        assert [searched(model, part) for part in reversed(parts)] == expected[::-1]
    assert len(runs) == 2


@torch.no_grad()
def test_other_tensors_are_encoded_anew(model, runs):
    batch = mixed_batch(compact=True)
    with encoded_once():
        encode(model, batch)
        first = encode(model, batch)
        assert encode(model, batch | {"src_lengths": torch.ones(5)}) is first  # lengths are in the tokens
        for other in (
            batch | {"src_tokens": batch["src_tokens"].clone()},
            batch | {"patch_images": batch["patch_images"] + 1},
            {name: value for name, value in batch.items() if name != "patch_videos"}
            | {"patch_types": torch.tensor([0, -1, -1, 2, 0])},
            batch | {"patch_masks": torch.zeros(5, dtype=torch.bool)},
        ):
            assert encode(model, other) is not first
    assert len(runs) == 5
    assert encode(model, batch) is not first  # nothing outlives its block
    with encoded_once():
        assert encode(model, batch) is not first


@torch.no_grad()
def test_a_block_in_a_block(model, runs):
    batch = mixed_batch(types=(0,))
    with encoded_once():
        encode(model, batch)
        first = encode(model, batch)
        with encoded_once():
            assert encode(model, batch) is first
        assert encode(model, batch) is first
    assert len(runs) == 1


@torch.no_grad()
def test_an_error_ends_the_block(model, runs):
    batch = mixed_batch(types=(0,))
    with pytest.raises(KeyError), encoded_once():
        encode(model, batch)
        raise KeyError
    encode(model, batch)
    assert len(runs) == 2


@torch.no_grad()
def test_another_model_and_changed_tensors_are_encoded_anew(model, runs):
    batch, other = mixed_batch(types=(0,)), small_model(seed=5, **ALL)
    with encoded_once():
        first = encode(model, batch)
        assert not torch.equal(encode(other, batch).states, first.states)
        assert encode(model, batch) is encode(model, batch)
        batch["patch_images"].mul_(2)
        again = encode(model, batch)
    assert len(runs) == 2 and not torch.equal(again.states, first.states)


@torch.no_grad()
def test_threads_do_not_share(model, runs):
    batch = mixed_batch(types=(0,))
    with encoded_once():
        encode(model, batch)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.no_grad()(encode), model, batch).result()
        encode(model, batch)
    assert len(runs) == 2


@torch.no_grad()
def test_outputs_of_layers_are_not_kept(model):
    batch = mixed_batch(types=(0,))
    with encoded_once():
        assert encode(model, batch).layers
        assert not encode(model, batch).layers


def test_a_validation_step_encodes_once(model, runs):
    pytest.importorskip("fairseq")
    from tests.unit.losses.test_stops_of_an_update import batch as collated
    from unival.criterions.label_smoothed import LabelSmoothedCrossEntropy
    from unival.tasks.base import UnivalTask

    chosen = SimpleNamespace(scst=False, scst_args=None)
    task = SimpleNamespace(vocabulary=SimpleNamespace(pad=1, eos=2), cfg=chosen)
    criterion = LabelSmoothedCrossEntropy.build_criterion(Namespace(label_smoothing=0.1), task)
    found = []

    def predict(network, sample):
        found.extend(searched(network, part["net_input"]) for part in sample)

    task = SimpleNamespace(
        uses_ema=False, keeping=None, dummy=False, validation=SimpleNamespace(predict=predict)
    )
    parts = collated("mixture")
    UnivalTask.valid_step(task, parts, model, criterion)
    assert len(found) == len(runs) == len(parts) == 2
    assert found == [searched(model, part["net_input"]) for part in parts]


def test_rounds_of_sampling_share_the_encoding(model, runs):
    from unival.predict.inference import Inference

    inference = Inference.__new__(Inference)
    inference.settings = GenerationSettings(sampling=True, beam=1, max_len_b=4, seed=1)
    inference.options, inference.constraint = SimpleNamespace(sampling_times=3), None
    batch = {"net_input": mixed_batch(types=(0, 1)), "prefix_tokens": None}
    alone = [inference.search(model, batch, seed=seed) for seed in (1, 2, 3)]
    del runs[:]
    found = inference._found(model, batch)
    assert len(runs) == 1
    for row in range(2):
        scores = sorted((float(h.score) for round_ in alone for h in round_[row]), reverse=True)
        assert [float(h.score) for h in found[row]] == scores
