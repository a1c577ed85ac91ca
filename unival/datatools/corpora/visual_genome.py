"""Visual Genome: phrases with boxes. Small regions are grounding rows, large ones captions of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from unival.datatools.corpora.coco import SWAPS
from unival.datatools.corpora.official import Official, Sources
from unival.datatools.corpora.records import Corpus, Option, Record, Source, Table
from unival.datatools.corpora.texts import TEXT
from unival.errors import ConfigError
from unival.vocabulary.boxes import Box


def image_name(name: str) -> str:
    return f"{name}.jpg"


@dataclass(frozen=True)
class VgImage:
    """What ``image_data.json`` knows of an image: COCO's id, the folder of the archive, (width, height)."""

    media_id: str
    folder: str = "VG_100K"
    size: tuple[float, float] | None = None


def vg_images(sources: Sources) -> Callable[[str], VgImage]:
    """Return a function from a Visual Genome id to its image.

    An image that COCO has takes COCO's id, so that it is known as one picture; others have "vg" before theirs.
    """
    found: dict[str, VgImage] = {}
    if "vg-images" in sources:
        file = sources.json("vg-images")
        for number, image in enumerate(file.listing()):
            where = f"image {number}"
            name, url = file.text(image, "image_id", where), str(image.get("url", ""))
            coco, width, height = image.get("coco_id"), image.get("width"), image.get("height")
            found[name] = VgImage(
                f"vg{name}" if coco is None else str(coco),
                "VG_100K_2" if "/VG_100K_2/" in url else "VG_100K",
                (float(width), float(height)) if width and height else None,
            )
    return lambda name: found.get(name) or VgImage(f"vg{name}")


def region_box(file: Official, item: Any, where: str) -> Box:
    """Return x, y, width, height of an entry as corners; parts left of and above the image are cut off."""
    x, y, w, h = (float(file.need(item, key, (int, float), where)) for key in ("x", "y", "width", "height"))
    return max(x, 0.0), max(y, 0.0), x + w, y + h


def _vg(sources: Sources) -> Iterator[Record]:
    """``region_descriptions.json``: images with ``regions``; ``objects.json`` gives names of things in them."""
    limit, most = sources.options["max-region-area"], sources.options["captions-per-image"]
    if most < 0:
        raise ConfigError(f"--captions-per-image is {most}; give 1 or more, or 0 for all large regions")
    images, objects = vg_images(sources), _objects(sources)
    file = sources.json("regions")
    for number, image in enumerate(file.listing()):
        where = f"image {number}"
        name = file.text(image, "id", where)
        known = images(name)
        common: dict[str, Any] = {
            "split": "train",
            "media_id": known.media_id,
            "media": {"folder": known.folder, "file": image_name(name), "id": name},
            "objects": objects.get(name, ()),
        }
        large: list[tuple[float, str, str]] = []
        for region in file.need(image, "regions", list, where):
            phrase = file.text(region, "phrase", where)
            box = region_box(file, region, where)
            x1, y1 = known.size or (box[2], box[3])
            box = (box[0], box[1], min(box[2], x1), min(box[3], y1))
            region_id = f"vg{file.text(region, 'region_id', where)}"
            area = (box[2] - box[0]) * (box[3] - box[1])
            if limit and area >= limit:
                large.append((area, region_id, phrase))
            else:
                yield Record(id=region_id, text=phrase, box=box, group="region", **common)
        if large:
            large.sort(key=lambda region: -region[0])
            _, ids, captions = zip(*large[: most or None], strict=True)
            yield Record(id=f"vg{name}", captions=captions, caption_ids=ids, group="caption", **common)


def _objects(sources: Sources) -> dict[str, tuple[str, ...]]:
    if "objects" not in sources:
        return {}
    file = sources.json("objects")
    found = {}
    for number, image in enumerate(file.listing()):
        where = f"image {number}"
        names = [n for thing in file.need(image, "objects", list, where) for n in thing.get("names", ())]
        found[file.text(image, "image_id", where)] = tuple(dict.fromkeys(map(str, names)))
    return found


VISUAL_GENOME = Corpus(
    name="visual_genome",
    title="Visual Genome",
    modality="image",
    sources=(
        Source("regions", "region_descriptions.json"),
        Source("objects", "objects.json", False, SWAPS, asked=True),
        Source("vg-images", "image_data.json", False, "image sizes, and which images are COCO's"),
    ),
    read=_vg,
    media="{folder}/{file}",
    options=(
        Option(
            "max-region-area",
            16384,
            "regions below this many square pixels are grounding rows, larger ones captions; 0: all are grounding",
        ),
        Option(
            "captions-per-image",
            7,
            "regions of an image that become captions, the largest first: about the 0.77 million captions of the "
            "paper; 0: all, about 2 million",
        ),
        TEXT,
    ),
    tables=(
        Table(
            "pretrain_ours/parts/vg_ground",
            "pretrain",
            groups=("region",),
            kind="visual_grounding",
            dataset="vg",
        ),
        Table(
            "pretrain_ours/parts/vg_caption", "pretrain", groups=("caption",), kind="caption", dataset="vg"
        ),
    ),
)
