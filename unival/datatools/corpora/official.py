"""Reading official annotation files: JSON, JSON lines, CSV, text and pickles, with errors that name file and key."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from unival.core.safe_pickle import load_plain
from unival.datatools.corpora.records import Corpus
from unival.errors import DataError, nearest

T = TypeVar("T")


class Official:
    """The content of one official file. ``need`` and ``text`` fetch values and say where one is missing."""

    def __init__(self, path: Path, content: Any) -> None:
        self.path, self.content = path, content

    def need(self, item: Any, key: str, kind: type | tuple[type, ...], where: str = "the file") -> Any:
        """Return ``item[key]``, which must be of ``kind``. DataError names file, place and key."""
        if not isinstance(item, Mapping):
            raise DataError(
                f"{where}: expected an object with the key '{key}', found {type(item).__name__}",
                path=str(self.path),
            )
        if key not in item:
            keys = [str(k) for k in item]
            raise DataError(
                f"{where}: the key '{key}' is missing; there are {', '.join(keys[:12]) or 'none'}."
                f"{nearest(key, keys)} Is this the official file?",
                path=str(self.path),
            )
        value = item[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            raise DataError(
                f"{where}: the key '{key}' holds {str(value)[:60]!r}; expected "
                f"{' or '.join(k.__name__ for k in kinds)}",
                path=str(self.path),
            )
        return value

    def text(self, item: Any, key: str, where: str = "the file") -> str:
        """Return ``item[key]``, text or a whole number (ids are either), as text."""
        return str(self.need(item, key, (str, int), where))

    def listing(self, key: str | None = None) -> list[Any]:
        """Return the list that the file is, or holds under ``key``."""
        if key is not None:
            return self.need(self.content, key, list)
        if not isinstance(self.content, list):
            raise DataError(f"expected a list, found {type(self.content).__name__}", path=str(self.path))
        return self.content

    def mapping(self) -> dict[str, Any]:
        """Return the object that the file is."""
        if not isinstance(self.content, dict):
            raise DataError(f"expected an object, found {type(self.content).__name__}", path=str(self.path))
        return self.content


class Sources:
    """The official files of one corpus, its options and the seed, as a reader gets them.

    ``given`` maps source names to paths; the others are looked for under their official names in ``folder``.
    Raises DataError for a file that is given, or required, and absent.
    """

    def __init__(
        self,
        corpus: Corpus,
        folder: Path,
        given: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        seed: int = 7,
    ) -> None:
        self.seed = seed
        self.options = {o.name: o.default for o in corpus.options} | dict(options or {})
        given = dict(given or {})
        # records are read twice; of a corpus's many files the last few are kept
        self._json, self._pickle = lru_cache(maxsize=4)(_read_json), lru_cache(maxsize=2)(_read_pickle)
        self._made: dict[str, Any] = {}
        self.paths: dict[str, Path] = {}
        self.absent: list[str] = []
        for source in corpus.sources:
            named = given.get(source.name)
            if source.asked and not named:
                continue
            path = Path(named) if named else folder / source.file
            if source.refusable and named == "none":
                self.absent.append(f"{source.file}, which the published tables have")
                continue
            if path.exists():
                self.paths[source.name] = path
            elif named or source.required:
                without = f", or leave it out with --{source.name} none" if source.refusable else ""
                raise DataError(
                    f"no such file; {corpus.title} needs the official '{source.file}': put it into the folder "
                    f"of --annotations or name it with --{source.name}{without}",
                    path=str(path),
                )
            else:
                self.absent.append(source.file)
        if not self.paths:
            names = ", ".join(s.file for s in corpus.sources)
            raise DataError(f"{corpus.title}: none of the official files is here: {names}", path=str(folder))

    def __contains__(self, name: str) -> bool:
        return name in self.paths

    def json(self, name: str, keep: bool = True) -> Official:
        """Read a JSON file; without ``keep`` it is not remembered for the second reading."""
        return (self._json if keep else _read_json)(self.paths[name])

    def json_files(self, name: str) -> Iterator[Official]:
        """Read a JSON file, or all those of a folder one after the other; none is remembered."""
        place = self.paths[name]
        for path in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            yield _read_json(path)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what ``make`` made of a file in the first reading, where that is smaller than the file."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def jsonl(self, name: str) -> Iterator[tuple[Official, Any, str]]:
        """Yield (file, object, "line N") of a file with one JSON object per line."""
        path = self.paths[name]
        for number, line in _lines(path):
            if line.strip():
                try:
                    yield Official(path, None), json.loads(line), f"line {number}"
                except json.JSONDecodeError as error:
                    raise DataError(f"not valid JSON: {error.msg}", path=str(path), line=number) from None

    def csv(self, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
        """Yield the rows of a CSV file with a header that must hold ``columns``."""
        path = self.paths[name]
        try:
            with path.open(encoding="utf-8-sig", newline="") as handle:
                reader = csv.DictReader(handle)
                header = [c or "" for c in reader.fieldnames or ()]
                for column in columns:
                    if column not in header:
                        raise DataError(
                            f"the column is missing; there are {', '.join(header[:12]) or 'none'}."
                            f"{nearest(column, header)} Is this the official file?",
                            path=str(path),
                            line=1,
                            column=column,
                        )
                for row in reader:
                    if any(row.get(column) is None for column in columns):
                        raise DataError(
                            f"the row has fewer than {len(header)} cells",
                            path=str(path),
                            line=reader.line_num,
                        )
                    yield row
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"cannot be read as CSV in UTF-8: {error}", path=str(path)) from None

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield (number from 1, line without its break)."""
        return _lines(self.paths[name])

    def pickle(self, name: str) -> Official:
        """Read a pickle of plain containers, also from Python 2; any class in it is refused, nothing is run."""
        return self._pickle(self.paths[name])


def seconds(value: Any, path: Path, where: str) -> float:
    """Return a time of an annotation; DataError when it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: expected a time in seconds, found {value!r}", path=str(path)) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as handle:
            for number, line in enumerate(handle, 1):
                yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text: {error}", path=str(path)) from None


def _read_json(path: Path) -> Official:
    try:
        return Official(path, json.loads(path.read_bytes()))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}", path=str(path)) from None


def _read_pickle(path: Path) -> Official:
    try:
        # "bytes": what Python 2 wrote as str may be UTF-8 or Latin-1
        content = load_plain(path.read_bytes(), encoding="bytes")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=str(path)) from None
    except pickle.UnpicklingError as error:
        raise DataError(
            f"is not a pickle of plain lists and dictionaries; nothing in it was run: {error}", path=str(path)
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"is not a readable pickle: {error!r}", path=str(path)) from None
    return Official(path, _decoded(content))


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if isinstance(value, dict):
        return {_decoded(k): _decoded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_decoded(v) for v in value]
    item = getattr(value, "item", None)  # a number of numpy
    return item() if item is not None else value
