"""Merges that would be wrong without a word: values that are no numbers, an output that is an input, odd recipes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.support.merge_models import folder_of, make_model
from unival.cli import main
from unival.core.provenance import file_hash
from unival.errors import CheckpointError, ConfigError
from unival.merge import MergeRecipe, merge


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("method", "more"), [("average", {}), ("ties", {"density": 0.5}), ("task_arithmetic", {})]
)
def test_weights_that_are_no_numbers(value, method, more, family, vocabulary, tmp_path):
    """They were merged in silence; the result said "raise max_len_b" when it was used."""
    model = make_model(vocabulary, 5)
    with torch.no_grad():
        model.decoder.layers[0].fc1.weight[0, :2] = value
    sick = folder_of(tmp_path / "sick", model, vocabulary)
    base = {} if method == "average" else {"base": str(family["base"])}
    with pytest.raises(
        CheckpointError, match=r"sick': 2 of .* values of decoder\.layers\.0\.fc1\.weight are NaN or inf"
    ):
        merge(MergeRecipe(str(tmp_path / "m"), (str(family["a"]), str(sick)), method=method, **base, **more))
    assert not (tmp_path / "m").exists()


def test_results_that_do_not_fit_their_type(family, tmp_path):
    models = tuple({"path": str(family[name]), "coefficient": c} for name, c in (("a", 1e9), ("b", 1 - 1e9)))
    with pytest.raises(CheckpointError, match=r"do not fit float16.*dtype: float32"):
        merge(MergeRecipe(str(tmp_path / "m"), models, method="linear", dtype="float16"))


def test_an_output_that_is_an_input_is_refused(family, vocabulary, tmp_path):
    """The first model was replaced by the merge."""
    own = folder_of(tmp_path / "runs" / "own", make_model(vocabulary, 5), vocabulary)
    before = file_hash(own)
    (tmp_path / "link").symlink_to(own)
    for out in (own, tmp_path / "runs", tmp_path / "link", f"{own}/../own"):
        with pytest.raises(ConfigError, match="an input of the merge; name another folder"):
            merge(MergeRecipe(str(out), (str(family["a"]), str(own))))
    lambdas = tmp_path / "runs" / "l0.50"
    own.rename(lambdas)
    with pytest.raises(ConfigError, match="an input of the merge"):
        merge(
            MergeRecipe(
                str(tmp_path / "runs"), (str(family["a"]), str(lambdas)), method="linear", lambdas=(0.5,)
            )
        )
    assert file_hash(lambdas) == before


MODELS = "models: [a, b]\nout: m\n"
ODD = {
    "coefficient nan": "models: [{path: a, coefficient: .nan}, {path: b, coefficient: 1.0}]\nout: m\n",
    "coefficient text": "models: [{path: a, coefficient: x}, {path: b, coefficient: 1.0}]\nout: m\n",
    "lambdas text": f"{MODELS}method: slerp\nlambdas: [0, 0.5, a]\n",
    "lambdas infinite": f"{MODELS}method: slerp\nlambdas: [.inf]\n",
    "lambdas number": f"{MODELS}method: slerp\nlambdas: 0.5\n",
    "no out": "models: [a, b]\n",
    "out number": "models: [a, b]\nout: 0.5\n",
    "out nul": 'models: [a, b]\nout: "\\0"\n',
    "models text": "models: fisher\nout: m\n",
    "models numbers": "models: [1, 2]\nout: m\n",
    "path number": "models: [{path: 3}, {path: b}]\nout: m\n",
    "name number": "models: [{path: a, name: -1}, {path: b}]\nout: m\n",
    "base number": f"{MODELS}method: ties\nbase: -1\n",
    "scale switch": f"{MODELS}method: ties\nbase: c\nscale: false\n",
    "scale nan": f"{MODELS}method: ties\nbase: c\nscale: .nan\n",
    "density text": f"{MODELS}method: ties\nbase: c\ndensity: half\n",
    "seed fraction": f"{MODELS}seed: 1.5\n",
    "dtype list": f"{MODELS}dtype: [float32]\n",
    "parts mapping": f"{MODELS}parts: {{include: a}}\n",
    "part numbers": f"{MODELS}parts: [{{include: [1], coefficients: [1, 1]}}]\n",
    "part coefficients": f"{MODELS}parts: [{{include: encoder, coefficients: [1, .nan]}}]\n",
    "recompute text": f"{MODELS}batchnorm: recompute\nrecompute: x\n",
    "recompute number": f"{MODELS}batchnorm: recompute\nrecompute: [{{recipe: 3}}]\n",
    "method number": f"{MODELS}method: 3\n",
    "a list": "- 1\n",
    "nothing": "",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_recipes_are_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(ODD[name])
    assert main(["merge", "m.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
