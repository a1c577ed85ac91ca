"""The column orders of the reference's headerless TSV files, as data (reference behaviour, inventory 6.2).

``selected_cols`` picks file columns by number, in the order of the canonical names: "0,4,2" for captions
means column 0 is the id, column 4 the image and column 2 the caption, and "1,4,2" takes the image's id as id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unival.errors import ConfigError, nearest


@dataclass(frozen=True)
class Layout:
    """``columns``: what each file column holds. ``orders``: the canonical names that a selection of that
    many columns stands for. ``selected_cols``: the reference's default selection. ``further``: the name of a column
    behind these that the reference does not have; it is read wherever a file has it."""

    columns: tuple[str, ...]
    selected_cols: str
    orders: tuple[tuple[str, ...], ...]
    further: str = ""

    def positions(self, selected_cols: str | Sequence[int] | None = None) -> dict[str, int]:
        """Return canonical name -> 0-based file column.

        Raises ConfigError for a selection that is not numbers or has a length no order stands for.
        """
        numbers = parse_selected_cols(self.selected_cols if selected_cols is None else selected_cols)
        for order in self.orders:
            if len(order) == len(numbers):
                return dict(zip(order, numbers, strict=True))
        accepted = "; ".join(f"{len(order)} ({', '.join(order)})" for order in self.orders)
        raise ConfigError(
            f"selected_cols {','.join(map(str, numbers))} picks {len(numbers)} columns; "
            f"this layout takes {accepted}. The file's columns are {', '.join(self.columns)}."
        )


def parse_selected_cols(value: str | Sequence[int]) -> list[int]:
    """Return the 0-based column numbers of "0,4,2" (or of a list); ConfigError for anything else."""
    parts = [p.strip() for p in value.split(",")] if isinstance(value, str) else [str(p) for p in value]
    if not parts or not all(p.isascii() and p.isdigit() for p in parts):
        raise ConfigError(f"selected_cols is '{value}'; give column numbers from 0, such as '0,4,2'")
    return [int(p) for p in parts]


def _caption(media: str) -> Layout:
    columns = (
        ("id", "image-id", "caption", "objects", "image")
        if media == "image"
        else ("id", "media-id", "caption", "empty", media)
    )
    return Layout(columns, "0,4,2", (("id", media, "caption"),))


def _vqa(media: str) -> Layout:
    order = ("id", media, "question", "answer", "objects")
    columns = ("id", f"{media}-id", "question", "answers", "objects", media)
    return Layout(columns, "0,5,2,3,4", (order, (*order, "caption")), "human_answers")


_PRETRAIN = ("id", "media", "caption", "question", "refs", "objects", "dataset", "type")

LAYOUTS: dict[str, Layout] = {
    "pretrain": Layout(_PRETRAIN, "0,1,2,3,4,5,6,7", (_PRETRAIN,)),
    "caption": _caption("image"),
    "video_caption": _caption("video"),
    "audio_caption": _caption("audio"),
    "vqa": _vqa("image"),
    "video_vqa": Layout(
        ("id", "video-id", "question", "answers", "empty", "video"), "0,5,2,3,4", _vqa("video").orders
    ),
    "grounding": Layout(
        ("id", "image-id", "text", "box", "image"), "0,4,2,3", (("id", "image", "text", "box"),)
    ),
    "entailment": Layout(
        ("id", "image-id", "image", "hypothesis", "caption", "label"),
        "0,2,3,4,5",
        (("id", "image", "hypothesis", "caption", "label"),),
    ),
    "image_gen": Layout(
        ("id", "codes", "caption"),
        "0,2,1",
        (("id", "text", "codes"), ("id", "text"), ("id", "image", "text", "codes")),
    ),
}


def get_layout(name: str) -> Layout:
    """Return the layout called ``name``; ConfigError with the nearest name otherwise."""
    try:
        return LAYOUTS[name]
    except KeyError:
        raise ConfigError(
            f"there is no layout '{name}'; layouts: {', '.join(LAYOUTS)}.{nearest(name, LAYOUTS)}"
        ) from None
