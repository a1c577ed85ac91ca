"""Pictures to image codes: a table or a folder in, a table in the released layout out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unival.core.files import Output
from unival.core.parts import Parts
from unival.datatools.corpora.write import TableWriter
from unival.errors import ConfigError, DataError, UnivalError
from unival.imagegen.grid import write_codes
from unival.imagegen.vqgan import Vqgan
from unival.media import MediaError, MediaLoader
from unival.media.names import files_below
from unival.specs.base import Field, row_id
from unival.specs.caption import captions_of
from unival.specs.inputs import media_id, media_reference
from unival.tables import Table, open_table

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_FIELDS = (Field("image", True, "path, member of the media .tar, or base64"), Field("caption", False, "text"))

Progress = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True)
class Picture:
    """A picture to read: its media reference, its id and captions, and where it is named."""

    reference: str
    id: str
    captions: tuple[str, ...]
    place: str


class Pictures(Sequence[Picture]):
    """Pictures of a folder (all image files below it, by path) or of a table with ``image`` and ``caption``.

    In a folder the id is the path below it, and the caption the text file beside the picture, else the name
    with ``_`` and ``-`` as blanks. Raises DataError where there are none.
    """

    def __init__(
        self, source: str | Mapping[str, Any], selected_cols: str | None = None, image_dir: str | None = None
    ) -> None:
        self._folder: Path | None = None
        self._table: Table | None = None
        if isinstance(source, str) and os.path.isdir(source):
            self._folder = Path(source)
            self._files = [n for n in files_below(source)[0] if Path(n).suffix.lower() in SUFFIXES]
            if not self._files:
                raise DataError(f"there are no pictures ({', '.join(SUFFIXES)}) below it", path=source)
            self.media = MediaLoader(source, source)
        else:
            self._table = open_table(source, _FIELDS, "caption", selected_cols, media_root=image_dir)
            self.media = self._table.loader()

    def __len__(self) -> int:
        return len(self._files) if self._table is None else len(self._table)

    def __getitem__(self, index: Any) -> Any:
        if self._table is None:
            assert self._folder is not None
            name = self._files[index]
            return Picture(name, name, (_folder_caption(self._folder / name),), str(self._folder / name))
        row = self._table[index]
        captions = captions_of(row, "caption") or [""]
        place = row.place
        return Picture(
            media_reference(row, "image"), row_id(row, media_id(row, "image")), tuple(captions), place
        )

    def read(self, picture: Picture, size: int) -> Tensor:
        """Pixels (3, size, size) float32 in [-1, 1], resized without keeping the aspect ratio (reference
        behaviour). Raises MediaError."""
        from unival.media.transforms_image import image_eval

        return image_eval(self.media.image(picture.reference), size)


def _folder_caption(path: Path) -> str:
    beside = path.with_suffix(".txt")
    text = beside.read_text(encoding="utf-8") if beside.is_file() else path.stem
    return text if beside.is_file() else text.replace("_", " ").replace("-", " ")


class CodeTable:
    """Encodes pictures into ``out``: uniq-id, codes, caption; one row per caption, in the order of the source.

    What is done is kept in ``<out>.parts`` until all is, so that a run that was stopped goes on, also with
    several processes; ``identity`` (files, sizes) must then be the same. ``out`` appears complete or not at
    all, beside ``<out>.json`` with the identity and the unreadable pictures.
    """

    def __init__(self, pictures: Pictures, out: str | Path, size: int, identity: Mapping[str, Any]) -> None:
        self.pictures, self.out, self.size = pictures, Path(out), size
        self.identity = {**identity, "pictures": len(pictures), "code_image_size": size}
        self.parts = Parts(self.out.with_name(self.out.name + ".parts"))

    def restart(self) -> None:
        """Forget what an earlier run has done."""
        shutil.rmtree(self.parts.folder, ignore_errors=True)

    def encode(
        self,
        vqgan: Vqgan,
        batch_size: int = 16,
        num_workers: int = 0,
        shard: int = 0,
        num_shards: int = 1,
        progress: Progress = iter,
    ) -> None:
        """Encode this process's share of what is not done yet; unreadable pictures are noted.

        Raises ConfigError when the parts belong to another run, DataError for a bad row.
        """
        if not 0 <= shard < num_shards or batch_size < 1:
            raise ConfigError(f"shard {shard} of {num_shards}, batch_size {batch_size}: not possible")
        self.parts.claim(self.identity)
        done = {row for row, record in self.parts.read().items() if "error" not in record}
        mine = [row for row in range(shard, len(self.pictures), num_shards) if row not in done]
        batches = [mine[k : k + batch_size] for k in range(0, len(mine), batch_size)]
        loader = torch.utils.data.DataLoader(
            _Batches(self.pictures, self.size, batches), batch_size=None, num_workers=num_workers
        )
        device = next(vqgan.parameters()).device
        with self.parts.open(shard, num_shards) as file:
            for prepared in progress(loader):
                if isinstance(prepared, UnivalError):
                    raise prepared
                records, pixels = prepared
                if pixels is not None:
                    readable = [record for record in records if "error" not in record]
                    for record, codes in zip(readable, vqgan.encode(pixels.to(device)).cpu(), strict=True):
                        record["codes"] = write_codes(codes.flatten().tolist())
                self.parts.append(file, records)

    def finish(self, max_broken_share: float = 0.01, shuffles: int = 0, seed: int = 7) -> dict[str, Any]:
        """Write the table and its report, which is returned; remove the parts.

        With ``shuffles`` N the table is written as ``NAME_1`` to ``NAME_N``, each a permutation of its own.
        Raises DataError when pictures are not encoded yet, or too many are unreadable.
        """
        found = self.parts.read()
        absent = len(self.pictures) - len(found)
        if absent:
            raise DataError(f"{absent} of {len(self.pictures)} pictures are not encoded yet; start again")
        broken = [record["error"] for _, record in sorted(found.items()) if "error" in record]
        if len(broken) > max_broken_share * len(found):
            raise DataError(
                f"{len(broken)} of {len(found)} pictures cannot be read, the first: {broken[0]}. Mend them and "
                "start again (only these are encoded), or leave them out with a higher --max-broken-share"
            )
        with Output() as output:
            writer = TableWriter(output, self.out, shuffles, seed, ids=False)
            try:
                for _, record in sorted(found.items()):
                    for caption in record["captions"] if "error" not in record else ():
                        writer.add([_cell(record["id"]), record["codes"], _cell(caption)])
                writer.close()
            finally:
                writer.discard()
            report = {**self.identity, "rows": len(writer), "shuffles": shuffles, "unreadable": broken}
            output.text(self.out.with_name(self.out.name + ".json"), json.dumps(report, indent=1) + "\n")
            output.commit()
        shutil.rmtree(self.parts.folder)
        return report


class _Batches(torch.utils.data.Dataset[Any]):
    """(records, pixels of the readable ones) of numbered pictures, or the error of a bad row."""

    def __init__(self, pictures: Pictures, size: int, batches: list[list[int]]) -> None:
        self.pictures, self.size, self.batches = pictures, size, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, index: int) -> tuple[list[dict[str, Any]], Tensor | None] | UnivalError:
        records, pixels = [], []
        for number in self.batches[index]:
            try:
                picture = self.pictures[number]
                record = {"row": number, "id": picture.id, "captions": list(picture.captions)}
                pixels.append(self.pictures.read(picture, self.size))
            except MediaError as error:
                record["error"] = f"{picture.place}: {error}"
            except UnivalError as error:
                return error  # an exception in a worker would arrive wrapped in its traceback
            records.append(record)
        return records, torch.stack(pixels) if pixels else None


def _cell(text: str) -> str:
    """A value without what would end a cell or a row."""
    return " ".join(text.split())
