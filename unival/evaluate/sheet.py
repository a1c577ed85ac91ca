"""One picture of what a model says about some rows: what a validation leaves to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unival.evaluate.items import Item, shown
from unival.evaluate.pictures import contact_sheet, picture, plain
from unival.specs import TaskSpec
from unival.tables import Table

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Section:
    """Predictions of one table: ``found`` maps an item's id to (output, reference)."""

    title: str
    spec: TaskSpec
    table: Table
    found: Mapping[str, tuple[Any, Any]]


def prediction_sheet(sections: Sequence[Section], rows: int) -> Image.Image | None:
    """Draw evenly spaced ``rows`` of each section: medium, question, "> prediction", "= reference", boxes.

    Outputs that are neither text nor a box are left out; None when nothing is left. Media that cannot be read
    show the reason.
    """
    drawn = []
    for section in sections:
        spec, table = section.spec, section.table
        places = np.linspace(0, len(table) - 1, min(rows, len(table))).round().astype(int).tolist()
        cards = []
        for place in places:
            name = spec.item_id(table[place])
            output, reference = section.found.get(name, (None, None))
            if not isinstance(output, str | tuple):
                continue
            item = Item(name, place, (place,), reference)
            said = list(output) if isinstance(output, tuple) else output
            entry = shown(spec, table, item, {"prediction": said, "score": None})
            cards.append((picture(entry, spec.modality, table.loader()), plain(entry)))
        if cards:
            drawn.append((section.title, cards))
    return contact_sheet(drawn) if drawn else None
