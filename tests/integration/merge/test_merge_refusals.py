"""What cannot be merged is refused with a list of reasons, what is doubtful is warned of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.merge_models import SMALL, fairseq_of, folder_of, make_model
from unival.checkpoint import load_folder
from unival.cli import main
from unival.errors import CheckpointError, ConfigError
from unival.merge import MergeRecipe, merge, read_document
from unival.vocabulary import Vocabulary


def refused(error, out, models, **options) -> str:
    with pytest.raises(error) as caught:
        merge(MergeRecipe(str(out), tuple(str(m) for m in models), **options))
    assert not Path(out).exists(), "something was written"
    assert [p.name for p in Path(out).parent.iterdir() if p.name.startswith(".")] == []
    return str(caught.value)


def test_shapes_keys_and_options(family, vocabulary, tmp_path):
    wide = folder_of(tmp_path / "wide", make_model(vocabulary, 5, encoder_ffn_embed_dim=48), vocabulary)
    text = refused(CheckpointError, tmp_path / "m", [family["a"], wide])
    assert "encoder.layers.0.fc1.weight: shapes a (32, 16), wide (48, 16)" in text
    assert "option encoder_ffn_embed_dim: a 32, wide 48" in text
    deep = folder_of(tmp_path / "deep", make_model(vocabulary, 5, decoder_layers=2), vocabulary)
    assert "not in a" in refused(CheckpointError, tmp_path / "m", [family["a"], deep], only_some="keep")
    heads = folder_of(tmp_path / "heads", make_model(vocabulary, 5, attn_scale_factor=4.0), vocabulary)
    text = refused(CheckpointError, tmp_path / "m", [family["a"], heads])
    assert "1 differences" in text and "attn_scale_factor: a 2.0, heads 4.0" in text
    free = folder_of(
        tmp_path / "free", make_model(vocabulary, 5, dropout=0.1, freeze_decoder=True), vocabulary
    )
    merge(MergeRecipe(str(tmp_path / "fine"), (str(family["a"]), str(free))))


def test_vocabulary_and_prompts(family, vocabulary, tmp_path):
    other = Vocabulary.train(["z y x w"] * 4, len(vocabulary) - 1000, num_codes=0, num_bins=1000)
    size = {"vocab": len(other)}
    torch.manual_seed(0)
    from unival import build_model

    strange = folder_of(tmp_path / "strange", build_model("unival_tiny", size["vocab"], **SMALL), other)
    assert "vocabulary: strange has another one" in refused(
        CheckpointError, tmp_path / "m", [family["a"], strange]
    )
    model = make_model(vocabulary, 6)
    asked = folder_of(tmp_path / "asked", model, vocabulary, prompts={"caption.image": " what do you see?"})
    text = refused(CheckpointError, tmp_path / "m", [family["a"], asked])
    assert (
        "prompt 'caption.image': ' what does the image describe?' in a, ' what do you see?' in asked" in text
    )


def test_networks_that_only_some_have_need_a_policy(family, vocabulary, tmp_path):
    video = folder_of(
        tmp_path / "video", make_model(vocabulary, 7, video_encoder_name="all_resnext14"), vocabulary
    )
    text = refused(CheckpointError, tmp_path / "m", [family["a"], video])
    assert "encoder.embed_videos (not in a)" in text and "only_some: keep" in text


def test_raw_and_averaged_weights(family, vocabulary, tmp_path):
    model = make_model(vocabulary, 1)
    both = fairseq_of(tmp_path / "run" / "c.pt", model, vocabulary, ema=model)
    assert "say in the recipe" in refused(ConfigError, tmp_path / "m", [both, family["a"]])
    averaged = folder_of(tmp_path / "averaged", model, vocabulary, weights="ema")
    assert "not merged with each other" in refused(CheckpointError, tmp_path / "m", [averaged, family["a"]])
    text = refused(CheckpointError, tmp_path / "m", [both, family["a"]], weights="ema")
    assert "holds raw weights and the recipe asks for ema" in text
    raw = fairseq_of(tmp_path / "plain" / "c.pt", model, vocabulary)
    assert "no averaged (EMA) weights" in refused(CheckpointError, tmp_path / "m", [both, raw], weights="ema")


def test_base_that_does_not_fit(family, vocabulary, tmp_path):
    wide = folder_of(tmp_path / "wide", make_model(vocabulary, 5, encoder_ffn_embed_dim=48), vocabulary)
    text = refused(
        CheckpointError, tmp_path / "m", [family["a"], family["b"]], base=str(wide), method="task_arithmetic"
    )
    assert "base" in text and "fc1.weight: (48, 16), the models (32, 16)" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "linaer"}, "Did you mean 'linear'"),
        ({"model": []}, "unknown option 'model' for MergeRecipe. Did you mean 'models'"),
        ({"models": []}, "'models' is empty"),
        ({"method": "ties"}, "needs 'base'"),
        ({"base": "x"}, "has no use for 'base'"),
        ({"method": "fisher"}, "unival merge fisher"),
        (
            {
                "method": "linear",
                "models": [{"path": "a", "coefficient": 0.5}, {"path": "b", "coefficient": 0.4}],
            },
            "0.9",
        ),
        ({"models": [{"path": "a", "coefficient": 0.5}, "b"]}, "every model a 'coefficient'"),
        ({"models": ["a", "x/a"]}, "two models have one name"),
        ({"method": "linear", "lambdas": [0.5], "models": ["a", "b", "c"]}, "two models"),
        ({"density": 0.5}, "only for ties, dare, dare_ties"),
        ({"scale": 0.5}, "has none"),
        ({"parts": [{"include": "encodr(", "coefficients": [1, 0]}]}, "Did you mean 'encoder'"),
        ({"parts": [{"include": "encoder", "coefficients": [1]}]}, "1 coefficients for 2 models"),
        ({"parts": [{"include": "encoder"}]}, "coefficients"),
        ({"batchnorm": "recompute"}, "go together"),
        ({"weights": "both"}, "raw, ema"),
        ({"method": "slerp", "models": ["a", "b", "c"]}, "merges 2 models, not 3"),
        (
            {"models": [{"path": "a", "coefficient": 0}, {"path": "b", "coefficient": 0}]},
            "all coefficients are 0",
        ),
    ],
)
def test_recipes_that_cannot_be_meant(changes, message, tmp_path, capsys):
    recipe = {"out": str(tmp_path / "m"), "models": ["a", "b"], **changes}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    assert main(["merge", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error


def test_a_part_that_covers_nothing(family, tmp_path):
    parts = ({"include": "audio", "coefficients": [1, 0]},)
    assert "no weight" in refused(ConfigError, tmp_path / "m", [family["a"], family["b"]], parts=parts)


def test_absent_and_damaged_inputs(family, vocabulary, tmp_path):
    assert "does not exist" in refused(
        CheckpointError, tmp_path / "m", [family["a"], tmp_path / "no.pt"], weights="raw"
    )
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused(CheckpointError, tmp_path / "m", [family["a"], tmp_path / "empty"])
    broken = folder_of(tmp_path / "broken", make_model(vocabulary, 1), vocabulary)
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "shorter" in refused(CheckpointError, tmp_path / "m", [family["a"], broken])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        merge(MergeRecipe(str(tmp_path / "taken"), (str(family["a"]), str(family["b"]))))


def test_ancestors(family, vocabulary, tmp_path):
    """Recorded lineage decides; without it, the direction of the weights."""
    base = load_folder(family["base"])[0]
    near = [make_model(vocabulary, k, base) for k in (1, 2)]

    def warnings(*paths):
        return merge(MergeRecipe(str(tmp_path / "m"), tuple(map(str, paths)), weights="raw"))[0].warnings

    related = [
        fairseq_of(tmp_path / f"r{k}" / "c.pt", near[k], vocabulary, lineage=["x", ("y", "z")[k]])
        for k in (0, 1)
    ]
    apart = fairseq_of(tmp_path / "apart" / "c.pt", near[1], vocabulary, lineage=["w"])
    unknown = fairseq_of(tmp_path / "unknown" / "c.pt", near[1], vocabulary)
    far = fairseq_of(tmp_path / "far" / "c.pt", make_model(vocabulary, 77), vocabulary)
    assert warnings(*related) == ()
    assert "r0 and apart have no recorded ancestor in common" in warnings(related[0], apart)[0]
    assert warnings(related[0], unknown) == ()
    (found,) = warnings(related[0], far)
    assert "different directions" in found
    meta = json.loads((tmp_path / "m" / "config.json").read_text())
    assert meta["merge"]["warnings"] == [found] and "Beware" in (tmp_path / "m" / "README.md").read_text()
    merge(MergeRecipe(str(tmp_path / "both"), tuple(map(str, related)), weights="raw"))
    lineage = json.loads((tmp_path / "both" / "config.json").read_text())["lineage"]
    assert lineage[:3] == ["x", "y", "z"] and len(lineage) == 5, "ancestors of both, then both"


def test_recipes_that_ship(monkeypatch):
    from unival.merge.chain import ChainRecipe, steps
    from unival.merge.sweep import SweepRecipe, grid_points

    root = Path(__file__).resolve().parents[3]
    monkeypatch.chdir(root)
    for name, value in (("SEED", "1"), ("FIRST", "caption"), ("SECOND", "vqa")):
        monkeypatch.setenv(name, value)
    files = sorted([*root.glob("configs/merge/*.yaml"), *root.glob("configs/tiny/merge*.yaml")])
    assert len(files) >= 8
    for file in files:
        text = file.read_text()
        if "\ntasks:" in text:
            chain = read_document(file, ChainRecipe)
            assert len(steps(chain)) > len(chain.tasks)
            recipes = [task.recipe for task in chain.tasks.values()]
        elif "\nevaluations:" in text:
            sweep = read_document(file, SweepRecipe)
            assert grid_points(sweep)
            recipes = [e.recipe for e in sweep.evaluations]
        else:
            recipes = [t.recipe for t in read_document(file, MergeRecipe).recompute]
        assert all((root / name).is_file() for name in recipes), file
