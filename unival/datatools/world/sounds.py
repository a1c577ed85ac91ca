"""Sounds: tones, sweeps, beeps and noise with pitch, rhythm and loudness, alone or one after the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unival.datatools.world.attributes import (
    HELD_OUT_SOUNDS,
    PITCHES,
    SOUND_KINDS,
    VOLUMES,
    draw_in_split,
    pick,
)

# a factor of 2.8 apart, and low enough that no overtone of a sweep reaches half of 16 kHz
HERTZ = {"low": 220.0, "medium": 620.0, "high": 1760.0}
BAND = {"low": (80.0, 400.0), "medium": (700.0, 1800.0), "high": (3000.0, 7000.0)}
PEAK = {"quiet": 0.06, "loud": 0.6}
# Of all sounds those with one event. They have 36 contents, of which a validation split gets four: were most of a
# split's sounds of these, its score would say whether four sounds are told and jump from epoch to epoch.
SINGLE = 0.2
BEEPS_PER_SECOND = {"slow beeps": 3.0, "fast beeps": 9.0}


@dataclass(frozen=True)
class Event:
    """One sound; ``seconds`` long, ``detune`` a factor near one on its frequency."""

    kind: str
    pitch: str
    volume: str
    seconds: float
    detune: float


@dataclass(frozen=True)
class Sound:
    """One or two events, sampled at ``rate`` Hz."""

    rate: int
    events: tuple[Event, ...]

    def content(self) -> str:
        """Return what decides the split."""
        return " then ".join(f"{e.volume} {e.pitch} {e.kind}" for e in self.events)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _draw_event(rng: np.random.Generator, held_out: bool, seconds: tuple[float, float]) -> Event:
    while True:
        kind, pitch = pick(rng, SOUND_KINDS), pick(rng, PITCHES)
        if ((kind, pitch) in HELD_OUT_SOUNDS) == held_out:
            break
    length = round(float(rng.uniform(*seconds)), 2)
    return Event(kind, pitch, pick(rng, VOLUMES), length, round(float(rng.uniform(0.9, 1.1)), 3))


def _draw(rng: np.random.Generator, held_out: bool) -> Sound:
    rate = int(rng.choice([16000, 48000], p=[0.6, 0.4]))
    if rng.random() < SINGLE:
        return Sound(rate, (_draw_event(rng, held_out, (1.0, 2.0)),))
    first = _draw_event(rng, held_out, (0.7, 1.0))
    while True:
        second = _draw_event(rng, False, (0.7, 1.0))
        if second.kind != first.kind:
            return Sound(rate, (first, second))


def draw_sound(rng: np.random.Generator, split: str, held_out: bool) -> Sound:
    """Draw a sound whose content belongs to ``split``; ``held_out`` as for scenes, for the first event."""
    return draw_in_split(lambda r: _draw(r, held_out), Sound.content, split, rng)


def _event_wave(event: Event, rate: int, rng: np.random.Generator) -> np.ndarray:
    n = int(event.seconds * rate)
    time = np.arange(n) / rate
    if event.kind == "noise":
        spectrum = np.fft.rfft(rng.normal(size=n))
        frequency = np.fft.rfftfreq(n, 1 / rate)
        low, high = BAND[event.pitch]
        wave = np.fft.irfft(np.where((frequency >= low) & (frequency <= high), spectrum, 0), n)
        wave /= 3 * wave.std()
    else:
        start = end = HERTZ[event.pitch] * event.detune
        if event.kind == "rising":
            end = 2 * start
        elif event.kind == "falling":
            start = 2 * start
        frequency = start * (end / start) ** (time / event.seconds)
        phase = 2 * np.pi * np.cumsum(frequency) / rate
        wave = np.sin(phase) + 0.25 * np.sin(2 * phase)
        wave /= 1.25
        if event.kind in BEEPS_PER_SECOND:
            wave *= (time * BEEPS_PER_SECOND[event.kind]) % 1.0 < 0.5
    ramp = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.01 * rate))
    return np.clip(wave * ramp * PEAK[event.volume], -1, 1)


def sound_wave(sound: Sound, rng: np.random.Generator) -> np.ndarray:
    """Return the waveform: float32 (N,) at ``sound.rate``, two events parted by 0.1 s of silence."""
    pause = np.zeros(sound.rate // 10)
    parts: list[np.ndarray] = []
    for event in sound.events:
        parts += (
            [pause, _event_wave(event, sound.rate, rng)] if parts else [_event_wave(event, sound.rate, rng)]
        )
    return np.concatenate(parts).astype(np.float32)


def save_sound(sound: Sound, path: Path, rng: np.random.Generator) -> None:
    """Write a 16-bit WAV or FLAC, as the suffix says."""
    import soundfile

    soundfile.write(str(path), sound_wave(sound, rng), sound.rate, subtype="PCM_16")
