"""Keys, shapes, types and computed tables of the state dict equal the reference's."""

import json
from pathlib import Path

import pytest
import torch

from tests.support import rules
from unival.modeling.build import build_model

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_keys_shapes_and_types(name):
    recorded = json.loads((DATA / f"{name}_state_dict.json").read_text())
    with torch.device("meta"):
        model = build_model("unival_base", **rules.build_options(name))
    ours = {k: [list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in model.state_dict().items()}
    assert ours == recorded["keys"]
    assert sum(p.numel() for p in model.parameters()) == recorded["n_parameters"]


def test_computed_tables():
    recorded = json.loads((DATA / "tiny_state_dict.json").read_text())["kept_as_computed"]
    state = build_model("unival_base", **rules.build_options("tiny")).state_dict()
    assert state["encoder.embed_tokens.weight"] is not None
    for key, sums in recorded.items():
        tensor = state[key].double()
        # The sines cancel in the sum; 166423 in absolute value.
        slack = 1e-3 if "stft" in key else 1e-6 * max(1.0, sums["abs_sum"])
        assert abs(tensor.sum().item() - sums["sum"]) <= slack, key
        assert abs(tensor.abs().sum().item() - sums["abs_sum"]) <= 1e-6 * max(1.0, sums["abs_sum"]), key


def test_bucket_values():
    state = build_model("unival_base", **rules.build_options("tiny", video=False, audio=False)).state_dict()
    token, image = state["encoder.token_rp_bucket"], state["encoder.image_rp_bucket"]
    # Query minus key: 0, 1, -1, 128, 129, -128.
    got = [token[i, j].item() for i, j in ((5, 5), (6, 5), (5, 6), (128, 0), (129, 0), (0, 128))]
    assert got == [255, 256, 254, 383, 384, 127]
    assert [image[0, 1].item(), image[1, 0].item(), image[0, 0].item()] == [6889, 6890, 6891]


def test_absent_networks_have_no_keys():
    with torch.device("meta"):
        keys = build_model("unival_base").state_dict()
    assert not [k for k in keys if "video" in k or "audio" in k]
