"""Draws docs/figures/network.svg and docs/figures/batch.svg: python docs/figures/network.py"""

from __future__ import annotations

from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
INK, PALE = "#1f2933", "#52606d"
COLOURS = {"image": "#dbeafe", "video": "#e0e7ff", "audio": "#fef3c7", "text": "#dcfce7", "plain": "#f1f5f9"}
LINES = {"image": "#2563eb", "video": "#4f46e5", "audio": "#b45309", "text": "#15803d", "plain": "#64748b"}


class Drawing:
    """Boxes, arrows and words on a sheet of a size in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="Helvetica, Arial, sans-serif" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{PALE}"/></marker></defs>',
        ]

    def box(self, x: float, y: float, w: float, h: float, kind: str, *lines: str, small: int = 1) -> None:
        """A box with its lines in the middle; the first line is bold, from line ``small`` on in small type."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{COLOURS[kind]}" '
            f'stroke="{LINES[kind]}" stroke-width="1.3"/>'
        )
        top = y + h / 2 - 8.5 * (len(lines) - 1) + 4.5
        for number, line in enumerate(lines):
            size, weight = (12.5, "bold") if number < small else (11, "normal")
            self.words(x + w / 2, top + 17 * number, line, size, weight, INK if number < small else PALE)

    def words(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 11,
        weight: str = "normal",
        fill: str = PALE,
        anchor: str = "middle",
    ) -> None:
        """One line of text."""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through points with a tip at its end."""
        way = " ".join(f"{x},{y}" for x, y in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<polyline points="{way}" fill="none" stroke="{PALE}" stroke-width="1.4"{dash} marker-end="url(#tip)"/>'
        )

    def save(self, name: str) -> None:
        """Write the sheet beside this script."""
        (HERE / name).write_text("\n".join([*self.parts, "</svg>"]) + "\n", encoding="utf-8")


def network() -> None:
    """From media and text to words, boxes and codes."""
    d = Drawing(
        1120, 610, "UnIVAL: networks of the modalities, one joined sequence, encoder, decoder, one vocabulary"
    )
    rows = (
        ("image", "image", "(B, 3, h, w)", "ResNet of timm", "grid h/32 x w/32"),
        ("video", "video", "(B, 3, F, h, w)", "3-D ResNeXt", "grid F/16 x h/32 x w/32"),
        ("audio", "audio", "(B, N) waveform", "log-mel, PANN CNN", "time x frequency"),
    )
    for number, (kind, name, shape, net, grid) in enumerate(rows):
        y = 24 + 88 * number
        d.box(20, y, 130, 60, kind, name, shape)
        d.box(190, y, 160, 60, kind, net, grid)
        d.box(390, y, 120, 60, kind, "projection", "(B, P, D)")
        d.arrow((150, y + 30), (188, y + 30))
        d.arrow((350, y + 30), (388, y + 30))
        d.arrow((510, y + 30), (546, y + 30), (546, 166), (566, 166))
    d.box(20, 300, 130, 60, "text", "text", "prompt, question")
    d.box(190, 300, 160, 60, "text", "byte-level BPE", "ids (B, T)")
    d.box(390, 300, 120, 60, "text", "token table", "(B, T, D)")
    d.arrow((150, 330), (188, 330))
    d.arrow((350, 330), (388, 330))
    d.arrow((510, 330), (546, 330), (546, 180), (566, 180))
    d.box(
        568,
        70,
        132,
        200,
        "plain",
        "one sequence",
        "(B, S, D), S = P + T",
        "visual, then text",
        "padding masked",
    )
    d.box(568, 300, 132, 76, "plain", "positions", "grid and text,", "as attention bias")
    d.arrow((700, 338), (732, 338), (732, 240), (746, 240), dashed=True)
    d.arrow((700, 354), (912, 354), (912, 250), (934, 250), dashed=True)
    d.arrow((700, 170), (746, 170))
    d.box(748, 70, 140, 200, "plain", "encoder", "6 layers, D = 768", "states (B, S, D)")
    d.arrow((888, 170), (934, 170))
    d.words(911, 160, "cross", 10)
    d.box(936, 70, 160, 200, "plain", "decoder", "6 layers, causal", "logits (B, U, V)")
    d.box(936, 300, 160, 76, "plain", "target so far", "(B, U)", "same token table")
    d.arrow((1016, 300), (1016, 272))
    d.arrow((1096, 170), (1108, 170), (1108, 400), (760, 400), (760, 436))
    d.words(400, 424, "one vocabulary, V = 59,457 in the released files", 12.5, "bold", INK)
    strip = (
        ("specials", "plain", 70, "0..3"),
        ("words (BPE)", "text", 480, "50,260 pieces of text"),
        ("mask", "plain", 50, "1"),
        ("codes", "image", 220, "8,192 image codes"),
        ("bins", "audio", 150, "1,000 places"),
    )
    x = 75.0
    for name, kind, width, what in strip:
        d.box(x, 438, width, 48, kind, name, what)
        x += width
    outputs = (
        ("a dog runs over grass", "caption, answer, yes / no / maybe", "text", 300),
        ("<code_81> <code_4077> ...", "codes, drawn by a VQGAN", "image", 780),
        ("<bin_90> <bin_212> ...", "a box: two corners in bins", "audio", 968),
    )
    for text, what, kind, middle in outputs:
        d.arrow((middle, 486), (middle, 520))
        d.words(middle, 538, text, 12, "bold", LINES[kind])
        d.words(middle, 556, what)
    d.words(
        560,
        592,
        "B batch, T source text, U target, P visual or audio tokens, S joined, V vocabulary, D width, "
        "F frames, N samples",
    )
    d.save("network.svg")


def batch() -> None:
    """A mixed batch: compact media tensors, and which rows use them."""
    d = Drawing(900, 330, "A batch of four rows: two images, one sound, one text")
    columns = (
        ("src_tokens (B, T)", 130),
        ("patch_types (B,)", 300),
        ("patch_images (b, 3, h, w)", 470),
        ("patch_audios (b, N)", 640),
        ("target (B, U)", 790),
    )
    for name, x in columns:
        d.words(x, 30, name, 11.5, "bold", INK)
    rows = (
        ("image", "what does the image describe?", "0", "row 0", "", "a dog runs"),
        ("image", "which region does ... describe?", "0", "row 1", "", "4 bins"),
        ("audio", "what does the audio describe?", "2", "", "row 0", "rain falls"),
        ("text", "what is the <mask> image?", "-1", "", "", "the whole text"),
    )
    for number, (kind, source, code, image, sound, target) in enumerate(rows):
        y = 46 + 62 * number
        d.box(20, y, 220, 46, "text", f"row {number}", source)
        d.box(270, y, 60, 46, kind, code)
        if image:
            d.box(400, y, 140, 46, "image", image, "3, 384, 384")
        if sound:
            d.box(575, y, 130, 46, "audio", sound, "480,000 samples")
        d.box(720, y, 160, 46, "plain", target)
    d.words(
        450,
        316,
        "Media tensors are compact: as many rows as the batch has of that type, in row order; "
        "the encoder joins them again.",
    )
    d.save("batch.svg")


if __name__ == "__main__":
    network()
    batch()
