"""The report: scores.md, one self-contained report.html, sheet.png and curves.png."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.core.files import check_folder, replacing, write_bytes, write_text
from unival.errors import DataError
from unival.evaluate.pictures import contact_sheet, picture, plain, texts
from unival.media import MediaLoader
from unival.report.curves import draw_curves, read_log
from unival.report.scores import COLUMNS, Result, read_result, score_rows, score_table

if TYPE_CHECKING:
    from PIL import Image

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1320px; padding: 0 1rem }
body { color: #222 } table { border-collapse: collapse }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td:nth-child(n+3), th:nth-child(n+3) { text-align: right; font-variant-numeric: tabular-nums }
h2 { margin: 2rem 0 .4rem } .about { color: #666; font-size: 13px; margin: 0 0 .8rem }
.cards { display: flex; flex-wrap: wrap; gap: 14px } figure { margin: 0; max-width: 612px; min-width: 200px }
figure.image { width: 210px } figcaption { font-size: 13px } figcaption b { font-weight: 600 }
img { max-width: 100% } .said { color: #0b5394 } .truth { color: #555 } .asked { color: #555 }
.right, .wrong, .worth { border-radius: 3px; padding: 0 .35em } .right { background: #d8f0dc; color: #14662a }
.wrong { background: #fbdcdc; color: #a01818 } .worth { background: #fbecd2; color: #7a4a00 }
.doubt { color: #a40000 }
"""


@dataclass(frozen=True)
class Report:
    """Where the parts of a report were written, and its table for the terminal."""

    table: str
    scores: Path
    page: Path
    sheet: Path
    curves: Path | None


def write_report(
    results: Sequence[str | Path | Mapping[str, Any] | Result],
    folder: str | Path,
    logs: Mapping[str, str | Path] | None = None,
    title: str = "UnIVAL report",
    figures: Mapping[str, str | Path] | None = None,
) -> Report:
    """Write the report of some evaluated tasks into ``folder`` (made if absent).

    results: result files of ``unival evaluate`` or their contents. logs: further training logs by name, shown
    before those that the results name. figures: further PNG pictures by title, such as a merging sweep's
    curves. Raises DataError for a result, log or figure that is not as expected; media that cannot be read
    show the reason in place of the picture.
    """
    read = [r if isinstance(r, Result) else read_result(r) for r in results]
    root = Path(folder)
    check_folder(root)
    paths = {name: Path(path) for name, path in (logs or {}).items()}
    paths.update({r.name: r.locate(r.log) for r in read if r.log})
    scores = {
        r.name: (r.main_metric, points)
        for r in read
        if r.log
        for split, points in read_log(paths[r.name], r.main_metric).items()
        if split != "train"
    }
    curves = draw_curves({name: read_log(path) for name, path in paths.items()}, scores) if paths else None
    shown = [
        (result, [(picture(i, result.modality, _loader(result)), i) for i in result.items]) for result in read
    ]

    report = Report(
        score_table(read),
        root / "scores.md",
        root / "report.html",
        root / "sheet.png",
        root / "curves.png" if curves else None,
    )
    write_text(report.scores, f"{score_table(read, all_metrics=True)}\n")
    if report.curves and curves:
        write_bytes(report.curves, curves)
    sections = [(r.name, [(image, plain(i)) for image, i in cards]) for r, cards in shown if cards]
    with replacing(report.sheet) as part:
        contact_sheet(sections).save(part, format="PNG")
    drawn = {name: _png(path) for name, path in (figures or {}).items()}
    write_text(report.page, _html(title, shown, curves, drawn))
    return report


def _png(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"expected a picture ({error.strerror})", path=str(path)) from error
    if not data.startswith(b"\x89PNG"):
        raise DataError("expected a PNG picture", path=str(path))
    return data


def write_cards(
    cards: Sequence[tuple[Image.Image, Mapping[str, Any]]], path: str | Path, title: str, modality: str = ""
) -> None:
    """Write examples as one page: HTML, or one picture where ``path`` ends with .png."""
    path = Path(path)
    if path.suffix.lower() == ".png":
        sheet = contact_sheet([(title, [(image, plain(i)) for image, i in cards])])
        with replacing(path) as part:
            sheet.save(part, format="PNG")
        return
    write_text(path, f"{_head(title)}\n{_cards(cards, modality)}\n</html>\n")


def _loader(result: Result) -> MediaLoader:
    root = result.locate(result.media_root) if result.media_root else None
    return MediaLoader(root=root, table_dir=str(Path(result.table).parent) if result.table else None)


def _html(
    title: str,
    shown: Sequence[tuple[Result, Sequence[tuple[Image.Image, Mapping[str, Any]]]]],
    curves: bytes | None,
    figures: Mapping[str, bytes],
) -> str:
    rows = score_rows([result for result, _ in shown])
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    parts = [
        _head(title),
        f"<table><tr>{head}</tr>\n{body}</table>",
        '<p class="about">Under the pictures: <span class="asked">what was asked</span>, '
        '<span class="said">what the model said</span>, whether that is <span class="right">right</span> or '
        '<span class="wrong">wrong</span> (of a caption that equals no reference: <span class="worth">what it is '
        'worth</span>, 0 to 10), <span class="truth">the truth</span>. Boxes: thick green the truth, thin pink the '
        "prediction. Best possible: the score of the best of each row's own references.</p>",
    ]
    for name, data in figures.items():
        parts.append(f"<h2>{escape(name)}</h2>\n{_embedded(data, 'image/png', escape(name, quote=True))}")
    if curves:
        parts.append(
            f"<h2>loss and validation scores</h2>\n{_embedded(curves, 'image/png', 'loss and score curves')}"
        )
    for result, cards in shown:
        about = " · ".join(escape(text) for text in (result.table, result.checkpoint) if text)
        parts.append(f'<h2>{escape(result.name)}</h2>\n<p class="about">{about}</p>')
        parts += [f'<p class="doubt">{escape(text)}</p>' for text in result.remarks]
        parts.append(_cards(cards, result.modality))
    return "\n".join(parts) + "\n</html>\n"


def _head(title: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{escape(title)}</h1>"
    )


def _cards(cards: Sequence[tuple[Image.Image, Mapping[str, Any]]], modality: str) -> str:
    figures = "\n".join(_figure(image, item, modality) for image, item in cards)
    return f'<div class="cards">\n{figures}\n</div>'


def _figure(image: Image.Image, item: Mapping[str, Any], modality: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    lines = "<br>".join(f'<span class="{kind}">{escape(text)}</span>' for kind, text in texts(item))
    name = escape(str(item.get("id", "")), quote=True)
    kind = "image" if modality in ("", "image") else "wide"
    embedded = _embedded(buffer.getvalue(), "image/png", name)
    return f'<figure class="{kind}">{embedded}<figcaption>{lines}</figcaption></figure>'


def _embedded(data: bytes, media_type: str, name: str) -> str:
    return f'<img alt="{name}" src="data:{media_type};base64,{base64.b64encode(data).decode("ascii")}">'
