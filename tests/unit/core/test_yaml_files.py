"""YAML written by hand: a key that stands twice, and files that are none, in recipes, merges and descriptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from unival.core.recipe import load_recipe
from unival.core.yaml_files import read_yaml
from unival.errors import ConfigError, DataError, UnivalError
from unival.merge.recipe import MergeRecipe, read_document
from unival.tables import open_table
from unival.tasks.mixture import read_mixture

TWICE = {
    "recipe": "task: caption\noptimization:\n  lr: 3.0e-3\noptimization:\n  lr: 5.0e-4\n",
    "option": "task: caption\noptimization:\n  lr: 3.0e-3\n  lr: 5.0e-4\n",
    "merge": "models: [a, b]\nmethod: average\nout: c\nmethod: ties\n",
    "table": "path: t.jsonl\nwhere: {split: train}\nlimit: 3\nwhere: {split: test}\n",
    "mixture": "- table: t.jsonl\n  weight: 1\n  weight: 2\n",
    "nested": "data: {train: {path: t.jsonl, path: u.jsonl}}\n",
}
READERS = {
    "recipe": load_recipe,
    "option": load_recipe,
    "merge": lambda path: read_document(path, MergeRecipe),
    "table": open_table,
    "mixture": read_mixture,
    "nested": load_recipe,
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_stands_twice_is_refused(name: str, tmp_path: Path) -> None:
    """The last one won without a word."""
    (tmp_path / "f.yaml").write_text(TWICE[name])
    with pytest.raises(UnivalError, match=r"f\.yaml, line \d.*stands here and in line \d"):
        READERS[name](tmp_path / "f.yaml")


def test_merge_keys_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  x: 3\nagain: *b\n")
    assert read_yaml(tmp_path / "f.yaml")["own"] == {"x": 3, "y": 2}


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
BROKEN = {
    "no YAML": ("a: [", "not valid YAML"),
    "tabs": ("a:\n\tb: 1\n", "line 2: not valid YAML"),
    "tag": ("a: !!python/object/apply:os.system [ls]", "not valid YAML: could not determine a constructor"),
    "bomb": (BOMB, "more than 1,000,000 values"),
    "itself": ("a: &a [*a]", "contains itself"),
    "deep": ("[" * 3000, "nested too deeply|not valid YAML"),
    "no date": ("a: 2020-99-99", "cannot be read"),
    "long number": ("a: " + "9" * 5000, "cannot be read"),
    "list as key": ("? [a]\n: 1\n", "not valid YAML"),
    "control character": ("a: \x01", "not valid YAML"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_yaml_is_one_line(name: str, tmp_path: Path) -> None:
    text, expected = BROKEN[name]
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"f\.yaml.*({expected})") as error:
        read_yaml(tmp_path / "f.yaml")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError):
        read_yaml(tmp_path / "f.yaml", DataError)


def test_places_that_hold_no_file(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9\n")
    for name, expected in (
        (".", "directory"),
        ("absent.yaml", "No such file"),
        ("latin.yaml", "UTF-8 at byte 7"),
    ):
        with pytest.raises(ConfigError, match=expected):
            read_yaml(tmp_path / name)
    (tmp_path / "empty.yaml").write_text("\n# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") is None
