"""One picture per example: an image with boxes, a strip of video frames, a waveform over a spectrogram."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unival.media import MediaError, MediaLoader
from unival.vocabulary.boxes import drawable

if TYPE_CHECKING:
    from PIL import Image

HEIGHT = 192
STRIP_FRAMES = 6
STRIP_HEIGHT = 96
AUDIO_RATE = 16000
MARGIN = 12
TRUE_BOX, PREDICTED_BOX = (20, 160, 60), (230, 0, 150)
INK = {"right": (20, 130, 50), "wrong": (200, 30, 30), "worth": (170, 95, 0)}
PLAIN_INK = (40, 40, 40)

Line = tuple[str, tuple[int, int, int]]  # a text and its colour


def picture(item: Mapping[str, Any], modality: str, loader: MediaLoader) -> Image.Image:
    """Return the picture of one example as RGB; for media that cannot be read a card with the reason."""
    draw: dict[str, Callable[[Mapping[str, Any], MediaLoader], Image.Image]] = {
        "video": _strip,
        "audio": _sound,
    }
    if item.get("media") is None:
        return _refusal("no picture was kept")
    try:
        return draw.get(modality, _image)(item, loader)
    except MediaError as error:
        return _refusal(error.reason)


def _image(item: Mapping[str, Any], loader: MediaLoader) -> Image.Image:
    from PIL import Image, ImageDraw

    image = loader.image(item["media"])
    factor = HEIGHT / image.height
    large = image.resize((max(1, round(image.width * factor)), HEIGHT), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(large)
    for key, colour, width in (("true_box", TRUE_BOX, 5), ("box", PREDICTED_BOX, 2)):
        if item.get(key):
            scaled = [float(value) * factor for value in item[key]]
            pen.rectangle(drawable(scaled, large.size), outline=colour, width=width)
    return large


def _strip(item: Mapping[str, Any], loader: MediaLoader) -> Image.Image:
    from PIL import Image

    frames = loader.video(item["media"], STRIP_FRAMES, "middle")
    scale = STRIP_HEIGHT / frames.shape[1]
    width = max(1, round(frames.shape[2] * scale))
    strip = Image.new("RGB", (STRIP_FRAMES * (width + 3) - 3, STRIP_HEIGHT), "white")
    for k, frame in enumerate(frames):
        strip.paste(
            Image.fromarray(frame).resize((width, STRIP_HEIGHT), Image.Resampling.LANCZOS),
            (k * (width + 3), 0),
        )
    return strip


def _sound(item: Mapping[str, Any], loader: MediaLoader) -> Image.Image:
    wave = loader.audio(item["media"], AUDIO_RATE)
    return waveform_picture(wave, AUDIO_RATE)


def waveform_picture(wave: np.ndarray, rate: int, width: int = 320) -> Image.Image:
    """Draw the waveform (N,) above its log spectrogram (low tones at the bottom, rate / 2 at the top)."""
    from PIL import Image

    top = HEIGHT // 4
    pixels = np.full((HEIGHT, width, 3), 255, dtype=np.uint8)
    blocks = np.array_split(wave, width) if len(wave) >= width else [wave] * width
    for x, block in enumerate(blocks):
        low, high = (float(np.clip(v, -1, 1)) for v in (block.min(initial=0), block.max(initial=0)))
        y0, y1 = (round((1 - v) * (top - 1) / 2) for v in (high, low))
        pixels[y0 : y1 + 1, x] = (52, 101, 164)
    frame, hop = 1024, 128
    padded = np.pad(wave, (0, max(0, frame - len(wave))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop] * np.hanning(frame)
    power = np.log10(np.abs(np.fft.rfft(windows)).T + 1e-3)  # (frequency, time)
    octaves = np.geomspace(2, frame // 2, HEIGHT)[::-1]  # in bins; equal steps of pitch
    power = power[np.rint(octaves).astype(int)]
    shade = (power - power.min()) / max(float(np.ptp(power)), 1e-6)
    body = Image.fromarray((255 * shade).astype(np.uint8)).resize((width, HEIGHT - top - 4))
    pixels[top + 4 :] = _heat(np.asarray(body, dtype=np.float32) / 255)
    return Image.fromarray(pixels)


def _heat(shade: np.ndarray) -> np.ndarray:
    """Colour 0..1 from dark blue over red to pale yellow: uint8 (..., 3)."""
    stops = np.array(
        [(8, 8, 40), (86, 20, 110), (190, 55, 80), (250, 145, 30), (252, 250, 190)], dtype=np.float32
    )
    place = shade * (len(stops) - 1)
    below = np.minimum(place.astype(int), len(stops) - 2)
    part = (place - below)[..., None]
    return (stops[below] * (1 - part) + stops[below + 1] * part).astype(np.uint8)


def _refusal(reason: str) -> Image.Image:
    from PIL import Image, ImageDraw

    card = Image.new("RGB", (HEIGHT, HEIGHT), (225, 225, 225))
    ImageDraw.Draw(card).multiline_text(
        (8, 8), "\n".join(wrap_lines(reason, 22)[:10]), fill=(90, 90, 90), font_size=14
    )
    return card


def contact_sheet(
    sections: Sequence[tuple[str, Sequence[tuple[Image.Image, Sequence[Line]]]]], width: int = 1320
) -> Image.Image:
    """Lay out (picture, lines) cards under the title of their section, all of them."""
    from PIL import Image

    rows = []
    for title, cards in sections:
        cell = max((image.width for image, _ in cards), default=HEIGHT) + MARGIN
        fit = max(1, (width - MARGIN) // cell)
        for start in range(0, len(cards), fit):
            rows.append(_row(title if start == 0 else "", cards[start : start + fit], cell, width))
    sheet = Image.new("RGB", (width, sum(row.height for row in rows) + MARGIN), "white")
    top = MARGIN
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(
    title: str, cards: Sequence[tuple[Image.Image, Sequence[Line]]], cell: int, width: int
) -> Image.Image:
    """Draw cards side by side, each ``cell`` pixels wide."""
    from PIL import Image, ImageDraw

    line, heading = 15, 28 if title else 0
    fit = (cell - MARGIN) * 10 // 63
    wrapped = [[(part, ink) for text, ink in lines for part in wrap_lines(text, fit)] for _, lines in cards]
    below = heading + max(image.height for image, _ in cards) + 4
    row = Image.new("RGB", (width, below + line * max(map(len, wrapped)) + MARGIN), "white")
    pen = ImageDraw.Draw(row)
    if title:
        pen.text((MARGIN, 2), title, fill=(0, 0, 0), font_size=18)
    for k, ((image, _), lines) in enumerate(zip(cards, wrapped, strict=True)):
        left = MARGIN + k * cell
        row.paste(image, (left, heading))
        for m, (words, ink) in enumerate(lines):
            pen.text((left, below + m * line), words, fill=ink, font_size=12)
    return row


def wrap_lines(text: str, width: int) -> list[str]:
    """Break every line of ``text`` into lines of at most ``width`` characters."""
    return [part for whole in text.split("\n") for part in textwrap.wrap(whole, width) or [""]]


def texts(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is written under an example: (kind, text) with kind "asked", "said", "truth" or a verdict's."""
    lines = []
    asked = item.get("question") or item.get("text") or item.get("source")
    if asked:
        lines.append(("asked", str(asked).strip()))
    if item.get("box") is None and item.get("prediction") is not None:
        lines.append(("said", str(item["prediction"]).strip()))
    lines += verdict(item)
    truth = item.get("references")
    if item.get("true_box") is None and truth:
        if isinstance(truth, Mapping):
            truth = [a if confidence == 1 else f"{a} ({confidence:g})" for a, confidence in truth.items()]
        kept = [truth] if isinstance(truth, str) else [str(t) for t in truth][:3]
        lines.extend(("truth", text.strip()) for text in kept)
    return lines


def verdict(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say whether a prediction is right, or what it is worth: ("right" or "wrong" or "worth", text), if known."""
    if item.get("right") is not None:
        kind = "right" if item["right"] else "wrong"
        return [(kind, kind)]
    return [("worth", f"CIDEr {item['cider']:.2f}")] if item.get("cider") is not None else []


def plain(item: Mapping[str, Any]) -> list[Line]:
    """Return the lines for the contact sheet: question, "> answer [verdict]" in its colour, "= first reference"."""
    first: dict[str, str] = {}
    for kind, text in texts(item):
        first.setdefault(kind, text)
    [(kind, judged)] = verdict(item) or [("", "")]
    said = " ".join(filter(None, [first.get("said"), judged and f"[{judged}]"]))
    lines = [
        (first.get("asked"), PLAIN_INK),
        (said and f"> {said}", INK.get(kind, PLAIN_INK)),
        ("truth" in first and f"= {first['truth']}", PLAIN_INK),
    ]
    return [(text, ink) for text, ink in lines if text]
