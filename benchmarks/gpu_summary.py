"""What the parts of benchmarks/gpu.sh measured beside what is aimed at, as tables for docs/performance.md.

    python benchmarks/gpu_summary.py FOLDER

Reads ``rows.jsonl`` and ``parts.tsv`` (part, seconds, exit code), writes ``summary.md``. Ends with 1 where a part did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IMAGES_A_SECOND = {128: 950, 32: 600}
TIMES_THE_FLOOR = 1.35
CAPTIONS_A_SECOND = 1500

Row = dict[str, Any]


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goal(what: str, measured: float, aim: float, most: bool = False, digits: int = 0) -> list[str]:
    """A line of the table of goals; ``most``: the goal is reached from below."""
    reached = measured <= aim if most else measured >= aim
    sign = "at most " if most else ""
    return [what, f"{measured:,.{digits}f}", f"{sign}{aim:,.{digits}f}", "yes" if reached else "no"]


def called(row: Row) -> str:
    return "as written" if row["way"] == "eager" else row["way"]


def goals(rows: list[Row]) -> Iterator[list[str]]:
    """The lines of what has a goal: image step, its multiple of the bare network, generation."""
    floors = {row["batch"]: row["seconds"] for row in rows if row["part"] == "floor"}
    steps = [row for row in rows if row["part"] == "step" and row["layout"] == "channels_last"]
    for row in steps:
        if row["what"] == "image" and row["batch"] in IMAGES_A_SECOND:
            rate = row["batch"] / row["seconds"]
            what = f"images a second, batch {row['batch']}, {called(row)}"
            yield goal(what, rate, IMAGES_A_SECOND[row["batch"]])
    for row in steps:
        if row["what"] == "image" and row["batch"] in floors:
            what = f"image step / bare network, batch {row['batch']}, {called(row)}"
            yield goal(what, row["seconds"] / floors[row["batch"]], TIMES_THE_FLOOR, most=True, digits=2)
    for row in rows:
        if row["part"] == "generation":
            what = f"captions a second, batch {row['batch']}, beam {row['beam']}, {row['tokens']} tokens"
            yield goal(what, row["batch"] / row["seconds"], CAPTIONS_A_SECOND)
        if row["part"] == "run":
            what = f"examples a second of a training from JPEG files, batch {row['batch']}, {row['workers']} workers"
            yield [what, f"{row['rate']:,.0f}", "-", "-"]


def steps(rows: list[Row]) -> list[list[str]]:
    """All steps, each way beside the model as written."""
    kept = [row for row in rows if row["part"] == "step"]

    def key(row: Row) -> tuple[Any, ...]:
        return row["what"], row["batch"], row["precision"], row["attention"], row["layout"]

    written = {key(row): row["seconds"] for row in kept if row["way"] == "eager"}
    lines = []
    for row in kept:
        before = written.get(key(row))
        layout = "" if row["layout"] == "channels_last" else f", maps {row['layout']}"
        cells = [row["what"], f"{called(row)}{layout}", str(row["batch"]), f"{row['seconds'] * 1e3:.1f}"]
        cells += [f"{row['batch'] / row['seconds']:,.0f}", f"{row['of_peak']:.2%}", f"{row['gib']:.1f}"]
        cells += [f"{before / row['seconds']:.2f}" if before else "-", f"{row['first']:.0f}"]
        lines.append([*cells, row["remarks"] or "-"])
    return lines


def summary(rows: list[Row], parts: list[list[str]], machine: str) -> str:
    """The whole text; what failed and what was left out stands at its end."""
    measured = [row for row in rows if "error" not in row]
    peaks = [row for row in measured if row["part"] == "peak"]
    text = [machine, "", table(("what", "measured", "goal", "reached"), list(goals(measured))), ""]
    head = ("batch of", "way", "rows", "ms / update", "examples / s", "of peak", "GiB", "times as written")
    text += [table((*head, "first updates, s", "remarks"), steps(measured)), ""]
    for peak in peaks[:1]:
        sheet = f", {peak['flops'] / peak['sheet']:.0%} of the data sheet" if peak["sheet"] else ""
        text += [f"Peak: {peak['flops'] / 1e12:,.1f} TFLOP/s of a {peak['precision']} product{sheet}.", ""]
    failed = [
        f"{name} ended with code {code} after {seconds} s" for name, seconds, code in parts if code != "0"
    ]
    for row in rows:
        if "error" in row:
            place = (row.get(name) for name in ("part", "what", "way", "batch"))
            failed.append(f"{', '.join(str(value) for value in place if value is not None)}: {row['error']}")
    text += (
        ["Failed or left out:", "", *(f"- {line}" for line in failed)] if failed else ["All parts worked."]
    )
    return "\n".join(text) + "\n"


def main() -> int:
    folder = Path(sys.argv[1])
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    parts = [line.split("\t") for line in (folder / "parts.tsv").read_text(encoding="utf-8").splitlines()]
    machine = (folder / "machine.txt").read_text(encoding="utf-8").splitlines()
    text = summary(rows, parts, machine[0] if machine else "")
    (folder / "summary.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return int(any(code != "0" for _, _, code in parts))


if __name__ == "__main__":
    sys.exit(main())
