"""Chains of finetunings and merges: vanilla, fusing and ratatouille for N tasks.

vanilla: every task finetuned from the start, then averaged. fusing: every task finetuned again from that
average (Choshen et al. 2022), then averaged. ratatouille: every task finetuned again from every other task's
model, then all averaged (Rame et al. 2023a). Source: paper sections 5 and J.2. Rewarded soups are a vanilla
chain whose "tasks" are one task with several rewards.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.core.children import PARENT
from unival.core.claim import claimed
from unival.core.files import make_folder, write_text
from unival.core.parts import to_line
from unival.core.recipe import write_yaml
from unival.errors import ConfigError, UnivalError
from unival.merge.recipe import MergeRecipe, Model, built, choice
from unival.merge.run import merge

KINDS = ("vanilla", "fusing", "ratatouille")
FUSED = ("all", "auxiliary")
TAIL = 12  # lines of a failed training's log that the error shows


@dataclass(frozen=True)
class Finetuning:
    """One task of a chain: its training recipe and options laid over it, with underscores."""

    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChainRecipe:
    """A chain. start: checkpoint that every first finetuning begins from. tasks: name -> training recipe.

    kinds: which of KINDS. seeds: the whole chain once per seed. options: laid over every training.
    fused: average that fusing starts a task from: of all tasks (the reference's scripts) or only of the
    others (the paper's words). checkpoint: file of a finished training that counts; weights: "raw" or "ema"
    of it. launcher: command in place of "python -m unival", for several GPUs ("bash run_scripts/_launch.sh").
    Raises ConfigError for what cannot be meant.
    """

    out: str
    start: str
    tasks: Mapping[str, Any]
    kinds: tuple[str, ...] = KINDS
    seeds: tuple[int, ...] = (1,)
    options: Mapping[str, Any] = field(default_factory=dict)
    fused: str = "all"
    checkpoint: str = "checkpoint_best.pt"
    weights: str = "raw"
    launcher: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            choice("kind", kind, KINDS)
        choice("fused", self.fused, FUSED)
        choice("weights", self.weights, ("raw", "ema"))
        if len(self.tasks) < 2:
            raise ConfigError(f"{len(self.tasks)} task(s): a chain merges at least two")
        for name in self.tasks:
            if "-from-" in name or "/" in name:
                raise ConfigError(
                    f"the task name '{name}' is used in folder names; leave out '/' and '-from-'"
                )
        made = {name: built(task, Finetuning, text="recipe") for name, task in self.tasks.items()}
        object.__setattr__(self, "tasks", made)
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ConfigError(f"seeds {list(self.seeds)}: give at least one, none twice")


@dataclass(frozen=True)
class Step:
    """One training or merge. ``name`` is its place below the chain's folder, ``needs`` names of earlier steps;
    ``stage``: steps of one stage can run at the same time. ``work``: command or merge recipe."""

    name: str
    stage: int
    needs: tuple[str, ...]
    work: list[str] | MergeRecipe

    @property
    def text(self) -> str:
        if isinstance(self.work, list):
            return shlex.join(self.work)
        return "merge " + ", ".join(model.name for model in self.work.models)

    @property
    def identity(self) -> dict[str, Any]:
        """What a finished step must have been made with to count; by which launcher does not matter."""
        work = self.work[self.work.index("train") :] if isinstance(self.work, list) else [self.text]
        return {"name": self.name, "needs": list(self.needs), "work": work}


def steps(recipe: ChainRecipe) -> list[Step]:
    """All steps in an order in which every step comes after those it needs."""
    made = [step for seed in recipe.seeds for step in _of_seed(recipe, seed)]
    return sorted(made, key=lambda step: step.stage)  # stable: seeds and tasks keep their order


def _of_seed(recipe: ChainRecipe, seed: int) -> list[Step]:
    tasks, root = list(recipe.tasks), f"seed{seed}"
    first = {task: f"{root}/finetuned/{task}" for task in tasks}
    found = [_training(recipe, seed, task, first[task], 0, None) for task in tasks]
    again = {kind for kind in recipe.kinds if kind != "vanilla"}
    if "vanilla" in recipe.kinds or ("fusing" in again and recipe.fused == "all"):
        found.append(_average(recipe, f"{root}/merged/vanilla", 1, list(first.values())))
    if "fusing" in again:
        second = []
        for task in tasks:
            origin = f"{root}/merged/vanilla"
            if recipe.fused == "auxiliary":
                origin = f"{root}/merged/without-{task}"
                found.append(_average(recipe, origin, 1, [first[t] for t in tasks if t != task]))
            second.append(f"{root}/fusing/{task}")
            found.append(_training(recipe, seed, task, second[-1], 2, origin))
        found.append(_average(recipe, f"{root}/merged/fusing", 3, second))
    if "ratatouille" in again:
        everything = []
        for task in tasks:
            second = [f"{root}/ratatouille/{task}-from-{other}" for other in tasks if other != task]
            others = [other for other in tasks if other != task]
            found += [
                _training(recipe, seed, task, name, 2, first[other])
                for name, other in zip(second, others, strict=True)
            ]
            mixed = [first[task], *second]
            found.append(_average(recipe, f"{root}/merged/ratatouille-{task}", 3, mixed))
            everything += mixed
        found.append(_average(recipe, f"{root}/merged/ratatouille", 3, everything))
    return found


def _training(recipe: ChainRecipe, seed: int, task: str, name: str, stage: int, origin: str | None) -> Step:
    entry: Finetuning = recipe.tasks[task]
    start = recipe.start if origin is None else _result(recipe, origin)
    options = {**recipe.options, **entry.options, "seed": seed}
    options |= {"finetune_from_model": start, "save_dir": str(Path(recipe.out) / name)}
    words = [*(shlex.split(recipe.launcher) or [sys.executable, "-m", "unival"]), "train", entry.recipe]
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        else:
            words.append(f"{flag}={to_line(value) if isinstance(value, Mapping) else value}")
    return Step(name, stage, (origin,) if origin else (), words)


def _average(recipe: ChainRecipe, name: str, stage: int, parts: list[str]) -> Step:
    models = tuple(Model(_result(recipe, part), part.split("/", 1)[1].replace("/", "-")) for part in parts)
    out = str(Path(recipe.out) / name)
    return Step(name, stage, tuple(parts), MergeRecipe(out, models, "average", recipe.weights))


def _result(recipe: ChainRecipe, name: str) -> str:
    """The checkpoint that a step leaves: a folder of a merge, a file of a training."""
    folder = Path(recipe.out) / name
    return str(folder if "/merged/" in name else folder / recipe.checkpoint)


def is_done(recipe: ChainRecipe, step: Step) -> bool:
    """True when a step has finished with the present settings. Raises ConfigError when with other ones."""
    marker = _marker(recipe, step)
    if not marker.is_file():
        return False
    if json.loads(marker.read_text(encoding="utf-8") or "{}") != json.loads(json.dumps(step.identity)):
        raise ConfigError(
            f"{marker} says that '{step.name}' was made with other settings; remove the file to make it again, "
            "or choose another 'out'"
        )
    return True


def _marker(recipe: ChainRecipe, step: Step) -> Path:
    return Path(recipe.out) / f"{step.name}.done"


def run_step(recipe: ChainRecipe, step: Step, say: Callable[[str], None] = print) -> None:
    """Do one step unless it is done; a training that was stopped goes on where it was.

    Raises ConfigError when steps that it needs are not done or another process does this one, UnivalError when the
    training fails.
    """
    if is_done(recipe, step):
        say(f"{step.name}: done before")
        return
    missing = [name for name in step.needs if not (Path(recipe.out) / f"{name}.done").is_file()]
    if missing:
        raise ConfigError(f"'{step.name}' needs {', '.join(missing)}, which is not done yet; run that first")
    marker = _marker(recipe, step)
    make_folder(marker.parent)
    with claimed(marker, file=True):
        _do(step, marker, say)


def _do(step: Step, marker: Path, say: Callable[[str], None]) -> None:
    say(f"{step.name}: {step.text}")
    if isinstance(step.work, MergeRecipe):
        merge(step.work, say)
    else:
        log = marker.with_suffix(".log")
        with open(log, "ab") as file:
            environ = {**os.environ, PARENT: str(os.getpid())}  # the training stops when this process is gone
            code = subprocess.call(step.work, stdout=file, stderr=subprocess.STDOUT, env=environ)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            raise UnivalError(
                "\n".join([f"'{step.name}' failed with exit code {code}; end of {log}:", *lines])
            )
    write_text(marker, json.dumps(step.identity))


def save_recipe(recipe: ChainRecipe, listed: list[Step]) -> None:
    """Write ``steps.yaml``: which step has which number, for a reader of the folder."""
    content = [{"step": k, "stage": s.stage, "name": s.name, "work": s.text} for k, s in enumerate(listed)]
    write_yaml(Path(recipe.out) / "steps.yaml", content)
