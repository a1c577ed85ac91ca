"""Regions: a compiler takes each of them whole, and runs it in training alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.model_fixtures import ALL, SMALL, VOCAB, mixed_batch, small_model
from unival.modeling.batch_facts import BatchFacts, SourceFacts, TargetFacts
from unival.modeling.build import build_model
from unival.modeling.regions import REGIONS

NETWORKS = {"image_network", "whole_network"}
STACKS = {"encoder_layers", "decoder_layers"}
KINDS = {
    "mixture": (ALL, (0, -1, 1, 2, 0)),
    "shared": ({"video_encoder_name": "frames", "audio_encoder_name": "image", "mel_bins": 64}, (0, 1, 2)),
    "timm": ({"image_encoder_name": "timm", "image_backbone": "test_efficientnet"}, (0, 0)),
    "extras": (
        {"resnet_type": "test_resnet", "checkpoint_activations": True, "encoder_drop_path_rate": 0.1},
        (0, 0),
    ),
}


@pytest.fixture
def calls(monkeypatch):
    """(region, inputs) of every region that ran in place of the function as written."""
    found = []
    for one in REGIONS:

        def record(*inputs, one=one):
            found.append((one, inputs))
            return one.function(*inputs)

        monkeypatch.setattr(one, "compiled", record)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_no_region_leaves_the_compiler(kind, calls):
    options, types = KINDS[kind]
    model = small_model(**options).train()
    model(**mixed_batch(types, compact=True))
    names = {one.function.__name__ for one, _ in calls}
    assert names == (STACKS | NETWORKS if kind == "mixture" else STACKS | {"image_network"})
    for one, inputs in calls:
        explained = torch._dynamo.explain(one.function)(*inputs)
        reasons = [reason.reason for reason in explained.break_reasons]
        assert (explained.graph_count, reasons) == (1, []), one.function.__name__


def test_validation_and_generation_run_as_written(calls):
    model = small_model(resnet_type="test_resnet")
    with torch.no_grad():
        model(**mixed_batch((0, 0)))
    assert not calls


def test_copies_have_their_own_weights(calls):
    """The moving average is a copy of the model."""
    model = small_model(resnet_type="test_resnet").train()
    average = copy.deepcopy(model)
    average(**mixed_batch((0, 0)))
    theirs = {id(parameter) for parameter in model.parameters()}
    for _, (module, *_) in calls:
        assert theirs.isdisjoint(id(parameter) for parameter in module.parameters())
    assert model.state_dict().keys() == average.state_dict().keys()


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_no_region_leaves_the_compiler_on_a_gpu(calls):
    """Tensors that say they are on a GPU and hold nothing take the paths of one."""
    batch = mixed_batch((0, 0))
    previous = batch["prev_output_tokens"]
    source = SourceFacts.of(batch["src_tokens"], batch["patch_types"])
    facts = BatchFacts(source, TargetFacts.of(previous), previous.numpy())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model = build_model("unival_tiny", VOCAB, **SMALL | {"resnet_type": "test_resnet"}).train()
        there = {
            name: None if value is None else torch.empty_like(value, device="cuda")
            for name, value in batch.items()
        }
        model(**there, facts=facts)
        for one, inputs in calls:
            assert torch._dynamo.explain(one.function)(*inputs).graph_count == 1, one.function.__name__
    assert len(calls) == 3
