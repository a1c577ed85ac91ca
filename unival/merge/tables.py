"""A table with the settings of its task: what merged models are evaluated, and statistics taken, on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unival.core.options import check_types
from unival.errors import ConfigError
from unival.evaluate.prepare import prepare
from unival.evaluate.recipe import read_recipe
from unival.evaluate.request import Request
from unival.evaluate.run import Evaluation
from unival.specs import all_options, get_spec
from unival.specs.preparation import prepare_row
from unival.specs.reference import resolve_task
from unival.tables import open_table


@dataclass(frozen=True)
class Measured:
    """A table and how it is read.

    recipe: training or evaluation recipe of the task (task, prompts, sizes, decoding, validation table).
    table: another table than the recipe's. name: short name in tables and plots. group: what it is averaged
    with in the bars, such as "in distribution" or "new words". limit: only its first items.
    options: further options of ``unival evaluate``, with underscores.
    """

    recipe: str
    name: str = ""
    table: str | None = None
    group: str = "in distribution"
    limit: int | None = None
    batch_size: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("recipe", "table"):
            if isinstance(value := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
        check_types(self, "option of a table,")
        if not self.name:
            object.__setattr__(self, "name", Path(self.recipe).stem)
        if self.name != Path(self.name).name:
            raise ConfigError(f"the name '{self.name}' is used as a folder's name; leave out '/'")

    def request(self, checkpoint: str | Path, out: str | Path) -> Request:
        """What is asked of an evaluation. Raises ConfigError for an unknown or unfit option."""
        return Request.named(
            str(checkpoint),
            self.table,
            **{
                "recipe": self.recipe,
                "out": str(out),
                "batch_size": self.batch_size,
                "limit": self.limit,
                **self.options,
            },
        )

    def check_targets(self) -> None:
        """Raise ConfigError for a table without targets, whose predictions could not be scored."""
        request, recipe = self.request("", ""), read_recipe(self.recipe)
        spec = get_spec(*resolve_task(request.task or str(recipe.task), request.modality or recipe.modality))
        columns = request.selected_cols or recipe.extra.get("selected_cols")
        source = self.table or recipe.table
        if source is None:
            raise ConfigError(f"evaluation '{self.name}': {self.recipe} names no table; give one as 'table'")
        table = open_table(source, spec.fields, spec.layout_name, columns)
        row = next(iter(table), None)
        if row is not None and spec.reference(row, all_options()()) is None:
            raise ConfigError(
                f"evaluation '{self.name}': {table.path} carries no targets, so nothing can be scored on it; "
                "name a table with targets as 'table'"
            )

    def open(self, checkpoint: str | Path, out: str | Path) -> Evaluation:
        """Prepare the evaluation of a checkpoint without predicting anything."""
        return prepare(self.request(checkpoint, out)).evaluation


def examples(evaluation: Evaluation) -> Iterator[Any]:
    """Yield the prepared examples of an evaluation's items, targets included, in table order.

    Raises DataError for a row that cannot be used and MediaError for media that cannot be read.
    """
    for item in evaluation.items:
        row = evaluation.table[item.row]
        options = evaluation.options
        yield prepare_row(
            evaluation.spec,
            row,
            item.row,
            evaluation.media,
            options,
            evaluation.vocabulary,
            seed=options.seed,
        )[0]
