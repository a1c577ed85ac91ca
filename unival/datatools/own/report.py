"""What a conversion leaves out, why, and how often: nothing goes without a word."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 3
HIDDEN = "hidden files"
MISSING = "their media are not there"
UNUSABLE = "they cannot be used"
UNREADABLE = "their media cannot be decoded"


@dataclass
class Report:
    """Reasons with their number and first examples, and remarks about what was kept."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, reason: str, example: str | None = None, count: int = 1) -> None:
        """Count something that is left out."""
        if not count:
            return
        self.counts[reason] = self.counts.get(reason, 0) + count
        shown = self.examples.setdefault(reason, [])
        if example is not None and len(shown) < _SHOWN:
            shown.append(example)

    def lines(self) -> list[str]:
        """Return one line per reason, then the remarks."""
        lines = []
        for reason, count in self.counts.items():
            examples = self.examples[reason]
            first = f"; first: {'; '.join(examples)}" if examples else ""
            lines.append(f"left out, {reason}: {count:,}{first}")
        return lines + self.remarks

    def first(self) -> str:
        """Return why the first thing was left out, for the error of a source that gives nothing."""
        for reason, examples in self.examples.items():
            if examples:
                return f"{reason}, the first: {examples[0]}"
        return "; ".join(self.counts)
