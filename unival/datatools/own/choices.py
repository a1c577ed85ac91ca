"""Sizes, lengths and the number of epochs of a first training, chosen from the rows at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unival.core.modalities import NAMES
from unival.core.sampling import evenly
from unival.errors import UnivalError
from unival.media import MediaLoader
from unival.specs import TaskSpec
from unival.specs.caption import captions_of
from unival.tables import Row
from unival.vocabulary.vocabulary import Vocabulary

_SAMPLED = 48  # media whose sizes or lengths are looked at
_TEXTS = 1000  # rows whose texts are measured
_SIDES = (64, 96, 128)  # of pictures that a small network is trained on from scratch
_FRAMES = (64, 96)
_PRETRAINED_SIDE = 224
_UPDATES = 40  # times the square root of the training rows
_EPOCHS = (3, 60)
_VALIDATIONS = 8
_LONGEST_SOUND = 10.0  # seconds that a small network listens to
_RATE = 32000  # the mel bands reach to 14/48 of the rate
_LOW_RATE, _LOW_BAND = (
    16000,
    4800,
)  # enough for sounds sampled at up to twice the band, such as telephone speech
_SHORT = 2.0  # seconds below which a spectrogram needs finer steps
_LABEL_WORDS, _ROWS_A_LABEL = 6, 5


@dataclass
class Choices:
    """Options by the recipe's sections, and what is said about them."""

    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def add(self, section: str, text: str, **values: Any) -> None:
        self.options.setdefault(section, {}).update(values)
        if text:
            self.said.append(text)


def choose(
    spec: TaskSpec,
    parts: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
    vocabulary: Vocabulary,
    pretrained: bool = False,
) -> Choices:
    """Choose the options of a recipe for the rows of ``parts``; media references start at ``folder``.

    ``pretrained``: the image network has seen pictures of a usual size, and is given such ones.
    """
    rows, found = parts["train"], Choices()
    _length_of_run(found, len(rows))
    if spec.modality in NAMES and spec.reads_media:
        media = evenly(list(dict.fromkeys(str(row[spec.modality]) for row in rows)), _SAMPLED)
        loader = MediaLoader(str(folder))
        if spec.modality == "audio":
            _sound(found, media, loader)
        elif spec.modality == "video":
            _pictures(found, [_frame_side(name, loader) for name in media], "patch_frame_size", _FRAMES)
        else:
            sides = [_side(name, loader) for name in media]
            _pictures(
                found,
                sides,
                "patch_image_size",
                (_PRETRAINED_SIDE,) if pretrained else _SIDES,
                "max_image_size",
            )
    _texts(found, spec, evenly(rows, _TEXTS), vocabulary)
    if is_labels(spec, rows):
        found.add(
            "validation", "captions are labels: 'exact', the share of right ones, chooses the best checkpoint",
            best_checkpoint_metric="exact",
        )  # fmt: skip
    return found


def is_labels(spec: TaskSpec, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the captions of ``rows`` are a few labels: short, one each, and at least five rows of each on average."""
    if spec.name != "caption" or not rows:
        return False
    values = [row.get("caption") for row in rows]
    if not all(isinstance(value, str) and len(value.split()) <= _LABEL_WORDS for value in values):
        return False
    return len(set(values)) * _ROWS_A_LABEL <= len(values)


def _length_of_run(found: Choices, rows: int) -> None:
    batch = 16 if rows < 1000 else 32 if rows < 20000 else 64
    per_epoch = math.ceil(rows / batch)
    wanted = min(max(_UPDATES * math.sqrt(rows) / per_epoch, _EPOCHS[0]), _EPOCHS[1])
    interval = max(1, round(wanted / _VALIDATIONS))
    epochs = interval * math.ceil(wanted / interval)  # the last epoch is validated too
    found.add(
        "optimization",
        f"{epochs} epochs of {rows:,} rows, {batch} an update: {epochs * per_epoch:,} updates (--max-epoch)",
        batch_size=batch,
        max_epoch=epochs,
    )
    found.add("validation", "", validate_interval=interval)
    found.add("checkpoint", "", save_interval=interval)


def _pictures(
    found: Choices, sides: Sequence[int | None], option: str, choices: Sequence[int], *further: str
) -> None:
    known = [side for side in sides if side]
    if not known:
        return
    middle = int(np.median(known))
    side = max((size for size in choices if size <= middle), default=min(choices))
    flag = option.replace("_", "-")
    found.add(
        "inputs",
        f"pictures of {side} x {side} pixels, the shorter sides of yours have {middle} (--{flag})",
        **dict.fromkeys((option, *further), side),
    )


def _side(name: str, loader: MediaLoader) -> int | None:
    try:
        return min(loader.image_size(name))
    except UnivalError:
        return None


def _frame_side(name: str, loader: MediaLoader) -> int | None:
    try:
        return int(min(loader.video(name, 1, "middle").shape[1:3]))
    except UnivalError:
        return None


def _sound(found: Choices, media: Sequence[str], loader: MediaLoader) -> None:
    """Listen to nearly all of nearly all sounds, at a rate that holds what is in them."""
    lengths, high = [], 0.0
    for name in media:
        try:
            wave = loader.audio(name, _RATE)
        except UnivalError:
            continue
        lengths.append(len(wave) / _RATE)
        high = max(high, _share_above(wave, _LOW_BAND))
    if not lengths:
        return
    middle, longest = float(np.median(lengths)), float(np.quantile(lengths, 0.95))
    seconds = math.ceil(10 * min(longest, _LONGEST_SOUND)) / 10
    rate = _LOW_RATE if high < 1e-3 else _RATE
    hop = (320 if seconds <= _SHORT else 1024) * rate // _RATE
    needed = 16 * hop / rate  # a spectrogram that four halvings leave a column of
    found.add(
        "inputs",
        f"sounds of {seconds:g} s at {rate:,} Hz, yours have {middle:.1f} s in the middle and {max(lengths):.1f} at "
        "most (--max-audio-len in samples)",
        sample_rate=rate,
        max_audio_len=round(max(seconds, needed) * rate),
    )
    found.add("model", "", hop_size=hop)


def _share_above(wave: np.ndarray, hertz: float) -> float:
    """Share of a sound's power above a frequency."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    total = float(power[1:].sum())
    return float(power[int(hertz * len(wave) / _RATE) :].sum()) / total if total else 0.0


def _texts(found: Choices, spec: TaskSpec, rows: Sequence[Mapping[str, Any]], vocabulary: Vocabulary) -> None:
    """Let nearly all captions be learnt whole and be said whole."""
    targets: list[str] = []
    for values in rows:
        reference = spec.reference(Row(values, "", 0), spec.options_class())
        if spec.name == "caption":
            targets += captions_of(Row(values, "", 0), "caption") or []
        elif isinstance(reference, str | Mapping):
            targets.append(spec.answer_of(reference))
    if not targets or spec.candidates(spec.options_class()):
        return
    words = int(np.quantile([len(text.split()) for text in targets], 0.99))
    tokens = int(np.quantile([len(vocabulary.encode(f" {text}")) for text in targets], 0.99))
    longest = min(tokens + 3, 200)
    found.add("validation", "", eval_args={"beam": 1, "max_len_b": longest})
    if words > 30:
        found.add("inputs", f"captions of up to {words} words (--max-tgt-length)", max_tgt_length=words)
