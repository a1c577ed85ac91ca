"""Wrong captions and wrong answers for the matching half of pretraining.

The rules are the reference's (paper section 3.3), except where it went wrong: a negative here always
differs from what the row says, "how many" answers stay non-negative numbers, and every draw goes through
the row's own generator.
"""

from __future__ import annotations

import json
import os
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unival.errors import ConfigError
from unival.vocabulary.cleaning import clean_caption

_OBJECT_SHARE = 0.4
_TRIES = 20
HOW_MANY = "how many"
OTHER = "other"


class TextLines(Sequence[str]):
    """Lines of a text file of any size, read on demand through the table index (no copy in memory)."""

    def __init__(self, path: str | Path) -> None:
        from unival.tables.index import open_index

        self.path = os.fspath(path)
        self._offsets = open_index(self.path).offsets
        self._handle: int | None = None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._handle)
        start, end = int(self._offsets[index, 0]), int(self._offsets[index + 1, 0])
        return os.pread(self._handle, end - start, start).decode("utf-8", "replace").strip()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


class NegativePool:
    """Captions (per modality), object names and answers by type to draw wrong ones from."""

    def __init__(
        self,
        captions: Mapping[str, Sequence[str]],
        objects: Sequence[str] = (),
        answer_types: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.captions = dict(captions)
        self.objects = tuple(objects)
        self.answer_types = {name: tuple(map(str, texts)) for name, texts in (answer_types or {}).items()}
        # an answer of several types has the last; "other" is none (reference behaviour)
        self._type_of = {
            text: name for name, texts in self.answer_types.items() if name != OTHER for text in texts
        }

    @classmethod
    def from_folder(
        cls, folder: str | Path, captions_video: str | None = None, captions_audio: str | None = None
    ) -> NegativePool:
        """Read ``all_captions.txt``, ``object.txt`` and ``type2ans.json`` (answer type -> answers).

        Captions of videos and sounds are those of the named files, else of ``all_captions_video.txt`` and
        ``all_captions_audio.txt`` where the folder has them, else those of images (as the released folder).
        Raises ConfigError when one is missing or damaged.
        """
        folder = Path(folder)
        try:
            objects = (folder / "object.txt").read_text(encoding="utf-8").splitlines()
            types = json.loads((folder / "type2ans.json").read_text(encoding="utf-8"))
            image = TextLines(folder / "all_captions.txt")
        except Exception as error:
            raise ConfigError(
                f"neg_sample_dir {folder} needs all_captions.txt, object.txt and type2ans.json: {error}"
            ) from error
        if not isinstance(types, dict) or not all(isinstance(texts, list) for texts in types.values()):
            raise ConfigError(f"{folder / 'type2ans.json'} must map answer types to lists of answers")
        captions: dict[str, Sequence[str]] = {"image": image, "video": image, "audio": image}
        for name, named in (("video", captions_video), ("audio", captions_audio)):
            path = Path(named) if named is not None else folder / f"all_captions_{name}.txt"
            if named is not None or path.is_file():
                captions[name] = TextLines(path)
        return cls(captions, [o.strip() for o in objects if o.strip()], types)

    @classmethod
    def from_texts(
        cls,
        captions: Mapping[str, Iterable[str]],
        questions: Iterable[tuple[str, str]] = (),
        objects: Iterable[str] = (),
    ) -> NegativePool:
        """Build from the training texts: captions per modality, (question, answer) pairs, object names.

        Answers are grouped by the first two words of their questions, so that a colour is confused with a
        colour and a count with a count.
        """
        types: dict[str, dict[str, None]] = {}
        for question, answer in questions:
            types.setdefault(" ".join(question.lower().split()[:2]), {})[answer] = None
        unique = {name: tuple(dict.fromkeys(texts)) for name, texts in captions.items()}
        return cls(unique, tuple(dict.fromkeys(objects)), {name: tuple(a) for name, a in types.items()})

    def caption(
        self, rng: np.random.Generator, captions: Sequence[str], modality: str, objects: Sequence[str] = ()
    ) -> str:
        """Return a cleaned caption that is none of ``captions``.

        With probability 0.4 and if a known object is named in the first caption, that object is replaced by
        another; else another caption is drawn. ConfigError when the pool holds nothing else.
        """
        true = {clean_caption(caption) for caption in captions}
        swap = rng.random() < _OBJECT_SHARE
        if swap and objects and self.objects:
            swapped = self._swapped(rng, clean_caption(captions[0]), objects)
            if swapped is not None and swapped not in true:
                return swapped
        pool = self.captions.get(modality, ())
        for _ in range(_TRIES if len(pool) else 0):
            drawn = clean_caption(pool[int(rng.integers(len(pool)))])
            if drawn and drawn not in true:
                return drawn
        others = (
            [text for text in map(clean_caption, pool) if text and text not in true]
            if len(pool) < 10000
            else []
        )
        if not others:
            raise ConfigError(
                f"no other {modality} caption to match against among {len(pool)}: give neg_sample_dir, more "
                "captions, or matching_prob 0"
            )
        return others[int(rng.integers(len(others)))]

    def _swapped(self, rng: np.random.Generator, caption: str, objects: Sequence[str]) -> str | None:
        patterns = [rf"\b{re.escape(name.lower())}\b" for name in map(str.strip, objects) if name]
        named = [pattern for pattern in patterns if re.search(pattern, caption)]
        if not named:
            return None
        other = self.objects[int(rng.integers(len(self.objects)))].lower()
        pattern = named[int(rng.integers(len(named)))]
        # a function as replacement: the object name is no regular expression template
        return re.sub(pattern, lambda _: other, caption)

    def answer(self, rng: np.random.Generator, answers: Mapping[str, float], answer: str) -> str:
        """Return an answer that is none of ``answers``, mostly of the same type as ``answer``.

        The surer the answer, the more often its type is kept; counts are then off by one half of the time.
        ConfigError when the pool knows no other answer.
        """
        draw = rng.random()
        kind = self._type_of.get(answer)
        keep = kind is not None and answers.get(answer, 1.0) > draw + 0.1
        if keep and kind is not None and kind.startswith(HOW_MANY) and answer.isdecimal() and draw > 0.5:
            near = [str(n) for n in (int(answer) - 1, int(answer) + 1) if n >= 0 and str(n) not in answers]
            if near:
                return near[int(rng.integers(len(near)))]
        everything = [text for texts in self.answer_types.values() for text in texts]
        preferred = self.answer_types.get(kind if keep and kind is not None else OTHER, ())
        for texts in (preferred, everything):
            others = [text for text in texts if text not in answers]
            if others:
                return others[int(rng.integers(len(others)))]
        raise ConfigError(
            f"no other answer than {list(answers)[:5]} to verify against: give neg_sample_dir, more "
            "answers, or matching_prob 0"
        )
