"""What must come out to the bit: endpoints, ties, integer buffers, averages, order of inputs, EMA."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.merge_models import OPTIONS, fairseq_of, folder_of, make_model, weights_of
from unival.checkpoint import load_checkpoint, load_folder, read_fairseq
from unival.evaluate import file_hash
from unival.merge import METHODS, MergeRecipe, merge
from unival.merge.methods import Weight, linear
from unival.merge.recipe import Model


def merged(out: Path, models, **options):
    return merge(MergeRecipe(str(out), tuple(models), **options))[-1].folder


def at(paths, coefficients):
    return [Model(str(p), coefficient=c) for p, c in zip(paths, coefficients, strict=True)]


@pytest.mark.parametrize("method", ["linear", "average", "slerp"])
def test_one_and_zero_give_the_first_model_bit_for_bit(method, family, tmp_path):
    for coefficients, name in (((1, 0), "a"), ((0, 1), "b")):
        folder = merged(tmp_path / name, at([family["a"], family["b"]], coefficients), method=method)
        expected = weights_of(family[name])
        found = weights_of(folder)
        assert found.keys() == expected.keys()
        assert all(
            torch.equal(found[k].view(torch.uint8), expected[k].view(torch.uint8))
            for k in expected
            if found[k].dim()
        )


def test_lambda_is_the_weight_of_the_first_model(family, tmp_path):
    recipe = MergeRecipe(
        str(tmp_path / "line"), (str(family["a"]), str(family["b"])), "linear", lambdas=(0, 0.25, 1)
    )
    folders = [done.folder for done in merge(recipe)]
    assert [folder.name for folder in folders] == ["l0.00", "l0.25", "l1.00"]
    a, b = weights_of(family["a"]), weights_of(family["b"])
    quarter = weights_of(folders[1])
    for key, value in quarter.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * a[key] + 0.75 * b[key], atol=1e-6, rtol=1e-6)
    assert all(torch.equal(v, b[k]) for k, v in weights_of(folders[0]).items())


def test_ties_computed_tables_and_counters(family, tmp_path):
    folder = merged(tmp_path / "m", at([family["a"], family["b"]], (0.3, 0.7)), method="linear")
    model, _, meta = load_folder(folder)
    assert model.decoder.output_projection.weight is model.encoder.embed_tokens.weight
    state, a, b = model.state_dict(), weights_of(family["a"]), weights_of(family["b"])
    counters = [k for k in state if "num_batches" in k]
    assert counters and all(state[k].dtype == torch.int64 and int(state[k]) == 5 for k in counters)  # b's
    computed = [k for k in state if k.endswith(("rp_bucket", "image_position_idx"))]
    assert computed and not any(k in weights_of(folder) for k in computed)
    fresh = load_folder(family["a"])[0].state_dict()
    assert all(torch.equal(state[k], fresh[k]) for k in computed)
    table = "encoder.embed_tokens.weight"
    torch.testing.assert_close(state[table], 0.3 * a[table] + 0.7 * b[table])
    assert meta["task_options"] == OPTIONS and "task" not in meta, (
        "the models were trained on different tasks"
    )


def test_merging_is_linear_in_float64():
    generator = torch.Generator().manual_seed(0)
    x, y, u, v = (torch.randn(7, 5, dtype=torch.float64, generator=generator) for _ in range(4))

    def mixed(*tensors):
        return linear(Weight("w", (0.3, 0.7), lambda k: tensors[k].clone()))

    together = mixed(2 * x - 3 * u, 2 * y - 3 * v)
    torch.testing.assert_close(together, 2 * mixed(x, y) - 3 * mixed(u, v), atol=1e-14, rtol=0)
    assert together.dtype == torch.float64


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"fisher"}))
@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.3), (0.25, 0.25, 0.5)])
def test_the_order_of_the_inputs_changes_no_bit(shares, method, family, tmp_path):
    paths = [family[n] for n in "abc"]
    if method == "slerp":
        paths, shares = paths[:2], shares[:2]
    options = {"method": method, **({"base": str(family["base"])} if METHODS[method].needs_base else {})}
    one = weights_of(merged(tmp_path / "one", at(paths, shares), **options))
    other = weights_of(merged(tmp_path / "other", at(paths[::-1], shares[::-1]), **options))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_half_precision_is_averaged_in_float32(family, vocabulary, tmp_path):
    models = [load_folder(family[n])[0].half() for n in "ab"]
    paths = [folder_of(tmp_path / f"half{k}", m, vocabulary) for k, m in enumerate(models)]
    found = weights_of(merged(tmp_path / "m", at(paths, (0.5, 0.5))))
    key = "decoder.layers.0.fc1.weight"
    a, b = (weights_of(p)[key].float() for p in paths)
    assert found[key].dtype == torch.float16 and torch.equal(found[key], ((a + b) * 0.5).half())
    wide = weights_of(merged(tmp_path / "wide", at(paths, (0.5, 0.5)), dtype="float32"))
    assert wide[key].dtype == torch.float32 and torch.equal(wide[key], (a + b) * 0.5)


@pytest.mark.parametrize("zipped", [True, False])
def test_fairseq_files_raw_and_averaged(zipped, vocabulary, tmp_path):
    """The averaged (EMA) weights are what an EMA merge holds; both file formats."""
    base = make_model(vocabulary, 0)
    raw, ema = (
        [make_model(vocabulary, k, base) for k in (1, 2)],
        [make_model(vocabulary, k, base) for k in (3, 4)],
    )
    files = [
        fairseq_of(tmp_path / f"run{k}" / "checkpoint_best.pt", raw[k], vocabulary, ema[k], zipped=zipped)
        for k in (0, 1)
    ]
    for weights, models in (("raw", raw), ("ema", ema)):
        folder = merged(tmp_path / weights, at(files, (0.5, 0.5)), weights=weights)
        loaded = load_checkpoint(folder)
        assert loaded.weights == weights and loaded.task["name"] == "caption"
        states = [m.state_dict() for m in models]
        for key, value in loaded.model.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, (states[0][key] + states[1][key]) / 2, atol=1e-6, rtol=1e-6)
    assert read_fairseq(files[0]).ema is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ema", "raw", "run0", "run1"], (
        "scratch files were left"
    )


def test_parts_have_coefficients_of_their_own(family, tmp_path):
    recipe = MergeRecipe(
        str(tmp_path / "m"),
        at([family["a"], family["b"]], (0.5, 0.5)),
        parts=(
            {"include": "image", "coefficients": [1, 0]},
            {"include": ["decoder"], "exclude": [r"\.fc1\."], "coefficients": [0, 2]},
        ),
    )
    found, a, b = weights_of(merge(recipe)[0].folder), weights_of(family["a"]), weights_of(family["b"])
    kinds = {"a": 0, "b": 0, "both": 0}
    for key, value in found.items():
        if not value.is_floating_point():
            continue
        if key.startswith(("encoder.embed_images.", "encoder.image_proj.")):
            kind, expected = "a", a[key]
        elif key.startswith("decoder.") and ".fc1." not in key:
            kind, expected = "b", b[key]
        else:
            kind, expected = "both", (a[key] + b[key]) / 2
        kinds[kind] += 1
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    assert min(kinds.values()) > 3


def test_batchnorm_statistics_averaged_or_taken(family, tmp_path):
    pair, shares = [family["a"], family["b"]], (0.25, 0.75)
    a, b = weights_of(pair[0]), weights_of(pair[1])
    averaged = weights_of(merged(tmp_path / "average", at(pair, shares)))
    taken = weights_of(merged(tmp_path / "first", at(pair, shares), batchnorm="first"))
    keys = [k for k in a if "running" in k]
    assert keys
    for key in keys:
        torch.testing.assert_close(averaged[key], 0.25 * a[key] + 0.75 * b[key])
        assert torch.equal(taken[key], a[key])
    beyond = weights_of(merged(tmp_path / "beyond", at(pair, (3, -2)), method="linear"))
    assert all((beyond[k] >= 0).all() for k in keys if "var" in k), "a variance fell below zero"


def test_networks_that_only_some_models_have(family, vocabulary, tmp_path):
    base = load_folder(family["base"])[0]
    more = make_model(vocabulary, 9, base, video_encoder_name="all_resnext14")
    wide = folder_of(tmp_path / "wide", more, vocabulary)
    kept = merged(tmp_path / "kept", at([family["a"], wide], (0.4, 0.6)), only_some="keep")
    model = load_folder(kept)[0]
    assert model.modalities == ("image", "video")
    state, theirs = model.state_dict(), more.state_dict()
    video = [k for k in state if k.startswith("encoder.embed_videos.")]
    assert video and all(torch.equal(state[k], theirs[k]) for k in video), "not scaled by its coefficient"
    dropped = merged(tmp_path / "dropped", at([family["a"], wide], (0.4, 0.6)), only_some="drop")
    assert load_folder(dropped)[0].modalities == ("image",)


def test_provenance_and_card(family, tmp_path):
    models = at([family["a"], family["b"]], (1, 3))
    done = merge(MergeRecipe(str(tmp_path / "m"), tuple(models), description="Two tasks."))[0]
    meta = json.loads((done.folder / "config.json").read_text())
    entry = meta["merge"]
    assert [i["coefficient"] for i in entry["inputs"]] == [0.25, 0.75]
    assert [i["sha256"] for i in entry["inputs"]] == [file_hash(family["a"]), file_hash(family["b"])]
    assert entry["method"] == "average" and "2203.05482" in entry["paper"]
    card = (done.folder / "README.md").read_text()
    assert "Two tasks." in card and str(family["a"]) in card and entry["inputs"][0]["sha256"][:16] in card
    digest = file_hash(done.folder)
    again = merge(MergeRecipe(str(tmp_path / "m"), tuple(models), description="Two tasks."))[0]
    assert file_hash(again.folder) == digest, "the same merge twice gives the same files"
    lineage = merge(replace(MergeRecipe(str(tmp_path / "n"), tuple(models)), seed=1))[0]
    assert json.loads((lineage.folder / "config.json").read_text()).get("lineage") is None, (
        "unknown stays unknown"
    )


def test_released_files_carry_neither_vocabulary_nor_ancestors(vocabulary, world, tmp_path):
    """As released: no task state, arguments only; a head that nothing uses; the vocabulary is named."""
    base = make_model(vocabulary, 0)
    files = []
    for k, task in ((1, "caption"), (2, "vqa_gen")):
        file = fairseq_of(
            tmp_path / f"run{k}" / "checkpoint1.pt", make_model(vocabulary, k, base), vocabulary
        )
        content = torch.load(file, weights_only=False)
        content["task_state"] = {}
        content["cfg"]["task"] = {"task": task, "patch_image_size": 480, "max_src_length": 80}
        content["model"]["classification_heads.snli.dense.weight"] = torch.zeros(2, 2)
        torch.save(content, file)
        files.append(file)
    recipe = MergeRecipe(
        str(tmp_path / "m"), tuple(map(str, files)), weights="raw", bpe_dir=str(world / "vocabulary")
    )
    folder = merge(recipe)[0].folder
    model, _, meta = load_folder(folder)
    assert meta["family"] == "UnIVAL" and "lineage" not in meta
    assert meta["task_options"].items() >= {"max_src_length": 80, "patch_image_size": 480}.items()
    assert not [k for k in weights_of(folder) if "heads" in k]
    key = "encoder.layers.0.fc1.weight"
    a, b = (make_model(vocabulary, k, base).state_dict()[key] for k in (1, 2))
    torch.testing.assert_close(model.state_dict()[key], (a + b) / 2)
