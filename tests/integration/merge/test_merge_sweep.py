"""Sweeps, searches, Fisher information and recomputed statistics, on real tables."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from tests.support.merge_models import OPTIONS, weights_of
from unival.batching.batch import collate
from unival.checkpoint import load_folder
from unival.cli import main
from unival.errors import ConfigError
from unival.merge import MergeRecipe, merge, read_document
from unival.merge.search import _Objective, search
from unival.merge.statistics import recompute
from unival.merge.sweep import Scorer, SweepRecipe, grid_points
from unival.merge.tables import Measured, examples
from unival.merge.tensorfile import TensorFile


@pytest.fixture(scope="session")
def recipes(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Evaluation recipes of two tasks."""
    folder, found = tmp_path_factory.mktemp("recipes"), {}
    inputs = {**OPTIONS, "image_dir": str(world)}
    decoding = {"caption": {"beam": 1, "max_len_b": 6}, "vqa": {"beam": 1, "max_len_b": 4}}
    for name, task in (("caption", "caption"), ("vqa", "vqa_gen")):
        content = {
            "task": task,
            "data": {"valid": str(world / f"tables/{name}_val.tsv")},
            "inputs": inputs,
            "validation": {
                "eval_args": decoding[name],
                **({"val_inference_type": "open"} if name == "vqa" else {}),
            },
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        found[name] = str(path)
    return found


def sweep_file(path: Path, out: Path, family, recipes, **changes) -> Path:
    evaluations = [
        {"name": name, "recipe": recipes[name], "limit": 4, "options": {"device": "cpu"}}
        for name in ("caption", "vqa")
    ]
    content = {
        "out": str(out),
        "merge": {"method": "linear", "models": [str(family["a"]), str(family["b"])]},
        "grid": {"lambda": [0, 0.5]},
        "evaluations": evaluations,
        **changes,
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_sweep_is_cached_and_goes_on(family, recipes, tmp_path, capsys):
    out = tmp_path / "sweep"
    file = sweep_file(tmp_path / "s.yaml", out, family, recipes, also={"base": str(family["base"])})
    assert main(["merge", "sweep", str(file)]) == 0
    first = capsys.readouterr().out
    assert first.count("(n = 4)") == 6 and "| l0.5 |" in first
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [r["point"] for r in rows[::2]] == ["l0", "l0.5", "base"]
    assert (
        rows[2]["coefficients"] == "0.5 0.5"
        and rows[0]["metric"] == "cider"
        and rows[1]["metric"] == "vqa_score"
    )
    content = json.loads((out / "sweep.json").read_text())
    assert content["models"] == ["a", "b"] and len(content["records"]) == 6
    assert {p.name for p in out.glob("*.png")} == {"curves.png", "fronts.png"}
    assert not list(out.rglob("model.safetensors")), "merged weights are not kept unless asked for"
    # a stopped sweep: one score is missing, the others are read back
    before = (out / "points/l0.5/caption/score.json").read_bytes()
    (out / "points/l0.5/caption/score.json").unlink()
    assert main(["merge", "sweep", str(file)]) == 0
    assert capsys.readouterr().out.count("(n = 4)") == 1
    assert (
        json.loads(before)["record"]
        == json.loads((out / "points/l0.5/caption/score.json").read_text())["record"]
    )
    # another limit is another score
    changed = yaml.safe_load(file.read_text())
    changed["evaluations"][0]["limit"] = 3
    del changed["also"]
    file.write_text(yaml.safe_dump(changed))
    assert main(["merge", "sweep", str(file)]) == 0
    assert capsys.readouterr().out.count("(n = 3)") == 2
    assert main(["merge", "plot", str(out), str(out), "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both" / "curves.png").is_file() and "to" in (
        tmp_path / "both" / "table.md"
    ).read_text()


def test_the_ends_of_the_line_are_the_models(family, recipes, tmp_path):
    file = sweep_file(
        tmp_path / "s.yaml", tmp_path / "o", family, recipes,
        grid={"lambda": [0, 1]}, also={name: str(family[name]) for name in "ab"},
    )  # fmt: skip
    from unival.merge.record import sweep

    records = sweep(read_document(file, SweepRecipe), say=lambda line: None)["records"]
    by_point = {(r["point"], r["evaluation"]): r["metrics"] for r in records}
    for end, name in (("l1", "a"), ("l0", "b")):
        assert by_point[end, "caption"] == by_point[name, "caption"]
        assert by_point[end, "vqa"] == by_point[name, "vqa"]
    assert (tmp_path / "o" / "bars.png").is_file()


def test_grids(family, recipes, tmp_path):
    three = {"models": [str(family[n]) for n in "abc"]}
    file = sweep_file(tmp_path / "s.yaml", tmp_path / "o", family, recipes, merge=three, grid={"simplex": 3})
    points = grid_points(read_document(file, SweepRecipe))
    assert len(points) == 10 and points[0].values["coefficients"] == [1.0, 0.0, 0.0]
    assert len({p.label for p in points}) == 10
    vectors = {"models": [str(family[n]) for n in "ab"], "method": "ties", "base": str(family["base"])}
    grid = {"scale": [0.5, 1.0], "density": [0.2, 0.5, 1.0]}
    file = sweep_file(tmp_path / "s.yaml", tmp_path / "o", family, recipes, merge=vectors, grid=grid)
    labels = [p.label for p in grid_points(read_document(file, SweepRecipe))]
    assert labels[:2] == ["scale0.5_density0.2", "scale0.5_density0.5"] and len(labels) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"lamda": [0]}}, "Did you mean 'lambda'"),
        ({"fronts": [["caption", "vqq"]]}, "Did you mean 'vqa'"),
        ({"grid": {}}, "nothing to score"),
        ({"merge": None}, "'grid' needs 'merge'"),
        ({"search": {"validation": ["caption"], "test": ["nope"]}}, "no evaluation is named 'nope'"),
        ({"evaluations": []}, "at least one"),
        ({"also": {"a/b": "x"}}, "leave out '/'"),
        ({"evaluations": [{"recipe": "a.yaml", "tabel": "x"}]}, "Did you mean 'table'"),
    ],
)
def test_sweeps_that_cannot_be_meant(changes, message, family, recipes, tmp_path):
    file = sweep_file(tmp_path / "s.yaml", tmp_path / "o", family, recipes, **changes)
    with pytest.raises(ConfigError, match=message):
        read_document(file, SweepRecipe)


def test_search_reports_the_test_score_of_the_chosen_point_only(family, recipes, world, tmp_path, capsys):
    evaluations = [
        {"name": "validation", "recipe": recipes["caption"], "limit": 4, "options": {"device": "cpu"}},
        {
            "name": "test", "recipe": recipes["caption"], "limit": 4, "options": {"device": "cpu"},
            "table": str(world / "tables/caption_test.tsv"),
        },
    ]  # fmt: skip
    section = {"validation": ["validation"], "test": ["test"], "evaluations": 4}
    file = sweep_file(
        tmp_path / "s.yaml", tmp_path / "o", family, recipes, evaluations=evaluations, search=section
    )
    assert main(["merge", "sweep", str(file), "--search"]) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "o" / "search.json").read_text())
    assert len(found["search"]["tried"]) == 4
    tested = [r for r in found["records"] if r["evaluation"] == "test"]
    assert len(tested) == 1 and "test test: cider" in out
    best = max(found["search"]["tried"], key=lambda t: t["value"])
    assert tested[0]["values"]["coefficients"] == best["coefficients"]
    assert list((tmp_path / "o" / "points").glob("*/test")), "the test table was scored once"
    assert len(list((tmp_path / "o" / "points").glob("*/test"))) == 1


class _Known(Scorer):
    """Scores that follow a formula, for the search alone: best at shares 0.6, 0.3, 0.1."""

    best = (0.6, 0.3, 0.1)

    def __call__(self, point, evaluations):
        shares = point.values["coefficients"]
        height = math.exp(
            -4 * sum((x - b) ** 2 for x, b in zip(shares, self.best[: len(shares)], strict=True))
        )
        return [{"evaluation": e.name, "point": point.label, "score": height} for e in evaluations]


@pytest.mark.parametrize("count", [2, 3])
def test_search_finds_the_top_of_a_known_hill(count, family, recipes, tmp_path):
    merge_section = {"method": "average", "models": [str(family[n]) for n in "abc"[:count]]}
    file = sweep_file(
        tmp_path / "s.yaml", tmp_path / "o", family, recipes, merge=merge_section, grid={"simplex": 2},
        search={"validation": ["caption"], "test": ["vqa"], "evaluations": 120},
    )  # fmt: skip
    recipe = read_document(file, SweepRecipe)
    scorer = _Known(recipe)
    if count == 2:
        scorer.best = (0.64, 0.36)
    starts = [p.values["coefficients"] for p in grid_points(recipe)]
    found = search(recipe, scorer, starts)
    shares = list(found["coefficients"].values())
    assert max(abs(a - b) for a, b in zip(shares, scorer.best, strict=True)) < 0.02
    assert len(found["tried"]) <= 120 and found["test"][0]["evaluation"] == "vqa"
    assert _Objective(recipe, scorer).tables[0].name == "caption"


def test_fisher_information(family, recipes, tmp_path):
    files = {}
    for name in "ab":
        files[name] = tmp_path / f"{name}.safetensors"
        words = ["merge", "fisher", family[name], "--recipe", recipes["caption"], "--samples", 3]
        assert main([str(w) for w in (*words, "--targets", "data", "--out", files[name])]) == 0
    # the definition, written out: squared gradients of the log-likelihood, row by row
    table = Measured(recipes["caption"], limit=3, options={"device": "cpu"})
    evaluation = table.open(family["a"], tmp_path / "scratch")
    model, key = evaluation.model, "decoder.layers.0.fc1.weight"
    total = 0.0
    for example in examples(evaluation):
        batch = collate([example], 1)
        logits, _ = model(**batch["net_input"])
        loss = torch.nn.functional.cross_entropy(
            logits[0], batch["target"][0], ignore_index=1, reduction="sum"
        )
        model.zero_grad()
        loss.backward()
        total = total + dict(model.named_parameters())[key].grad ** 2
    found = TensorFile(files["a"])
    torch.testing.assert_close(found.read(key), total / 3, rtol=1e-4, atol=1e-9)
    assert "decoder.output_projection.weight" not in found.specs and len(found.specs) > 50
    models = [{"path": str(family[n]), "fisher": str(files[n])} for n in "ab"]
    folder = merge(MergeRecipe(str(tmp_path / "m"), tuple(models), "fisher"))[0].folder
    a, b, f = weights_of(family["a"])[key], weights_of(family["b"])[key], TensorFile(files["b"]).read(key)
    known = (total / 3 + f) > 1e-12
    expected = (total / 3 * a + f * b) / (total / 3 + f)
    torch.testing.assert_close(weights_of(folder)[key][known], expected[known], rtol=1e-3, atol=1e-5)
    drawn = tmp_path / "drawn.safetensors"
    words = ["merge", "fisher", family["a"], "--recipe", recipes["caption"], "--samples", 2, "--out", drawn]
    assert main([str(w) for w in words]) == 0
    assert float(TensorFile(drawn).read(key).sum()) > 0


def test_batchnorm_statistics_recomputed_on_a_table(family, recipes, tmp_path):
    table = {"recipe": recipes["caption"], "limit": 6, "batch_size": 3, "options": {"device": "cpu"}}
    recipe = MergeRecipe(
        str(tmp_path / "m"), (str(family["a"]), str(family["b"])), batchnorm="recompute", recompute=(table,)
    )
    folder = merge(recipe)[0].folder
    plain = merge(MergeRecipe(str(tmp_path / "plain"), (str(family["a"]), str(family["b"]))))[0].folder
    found, before = weights_of(folder), weights_of(plain)
    changed = {k for k in found if not torch.equal(found[k], before[k])}
    assert changed and all("running_" in k for k in changed)
    # the first norm sees the first convolution's output, whose statistics can be written down
    model = load_folder(plain)[0]
    network = model.encoder.embed_images
    evaluation = Measured(**table).open(plain, tmp_path / "scratch")
    rows = list(examples(evaluation))
    norm = next(n for n, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    dict(network.named_modules())[norm].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    for part in (rows[:3], rows[3:]):
        batch = collate(part, 1)["net_input"]
        batch.pop("prev_output_tokens")
        with torch.no_grad():
            model.encoder(**batch)
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(
        found[f"encoder.embed_images.{norm}.running_mean"], means, rtol=1e-4, atol=1e-5
    )
    assert recompute(folder, recipe.recompute) > 3


def test_the_report_shows_a_sweep(tmp_path):
    from unival.errors import DataError
    from unival.merge.plots import draw
    from unival.report import write_report

    records = [
        {"point": f"l{x}", "values": {"lambda": x}, "evaluation": e, "group": "g", "metric": "m", "score": x}
        for x in (0.0, 0.5, 1.0)
        for e in ("caption", "vqa")
    ]
    files = draw([records], tmp_path / "plots")
    assert [f.name for f in files] == ["curves.png", "fronts.png"]
    result = {"task": "caption", "metrics": {"cider": 1.0}, "main_metric": "cider", "n": 3}
    report = write_report([result], tmp_path / "page", figures={"merging <2>": files[0]})
    page = report.page.read_text()
    assert "<h2>merging &lt;2&gt;</h2>" in page and page.count("data:image/png") == 1
    with pytest.raises(DataError, match="PNG"):
        (tmp_path / "no.png").write_text("text")
        write_report([result], tmp_path / "page", figures={"x": tmp_path / "no.png"})


def test_a_table_without_targets_is_said_before_anything_is_merged(family, recipes, world, tmp_path, capsys):
    blank = tmp_path / "blank.jsonl"
    rows = [{"image": "images/a.jpg", "question": "what is it?", "answer": ""}] * 3
    blank.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluations = [
        {"name": "caption", "recipe": recipes["caption"], "limit": 4, "options": {"device": "cpu"}},
        {"name": "VQAv2", "recipe": recipes["vqa"], "table": str(blank), "options": {"device": "cpu"}},
    ]
    file = sweep_file(tmp_path / "s.yaml", tmp_path / "o", family, recipes, evaluations=evaluations)
    assert main(["merge", "sweep", str(file)]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: evaluation 'VQAv2': {blank} carries no targets, so nothing can be scored on it; "
        "name a table with targets as 'table'\n"
    )
    assert not (tmp_path / "o/points").exists()


def test_a_sweep_leaves_validation_tables_to_the_search(family, recipes, tmp_path):
    evaluations = [{"name": "caption", "recipe": recipes["caption"], "group": "validation"}]
    with pytest.raises(ConfigError, match="which only a search looks at"):
        read_document(
            sweep_file(tmp_path / "s.yaml", tmp_path / "o", family, recipes, evaluations=evaluations),
            SweepRecipe,
        )
    evaluations.append({"name": "vqa", "recipe": recipes["vqa"]})
    file = sweep_file(tmp_path / "s.yaml", tmp_path / "o", family, recipes, evaluations=evaluations)
    assert [e.name for e in read_document(file, SweepRecipe).reported] == ["vqa"]


def test_the_shipped_sweep_searches_on_validation_and_reports_on_test(monkeypatch):
    from pathlib import Path

    from unival.evaluate.recipe import read_recipe

    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    recipe = read_document("configs/merge/sweep.yaml", SweepRecipe)
    tables = {e.name: Path(str(e.table or read_recipe(e.recipe).table)).name for e in recipe.evaluations}
    assert tables["VQAv2"] == "vqa_val.tsv" and tables["COCO captions"] == "caption_test.tsv"
    assert {tables[name] for name in recipe.search.validation} == {"caption_val.tsv", "vqa_val.tsv"}
    assert not set(recipe.search.validation) & set(recipe.search.test)
    assert "vqa_test.tsv" not in tables.values()
