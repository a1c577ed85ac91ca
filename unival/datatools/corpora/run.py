"""Preparing one corpus: records are read twice, once to know splits and answers, once to write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unival.core.seeding import rng_for
from unival.datatools.corpora.answers import closed_list, list_files, scored_answers
from unival.datatools.corpora.media import MISSING, MediaFiles, decode_sample, media_ids
from unival.datatools.corpora.official import Sources
from unival.datatools.corpora.records import AnswerList, Corpus, Record, Table
from unival.datatools.corpora.report import Report
from unival.datatools.corpora.rows import Cleaner, Dropped, coco_annotations, rows_of
from unival.datatools.corpora.texts import RULES
from unival.datatools.corpora.write import Output, TableWriter
from unival.errors import ConfigError, DataError


@dataclass(frozen=True)
class Settings:
    """How to prepare.

    ``out`` receives the tables, ``base`` is the folder that media names start from. ``roots``, ``names``: media root
    and media name of the corpus's other places. ``shuffles``: copies of
    shuffled training tables. ``decode``: media to decode as a sample. ``exclude``: TSV tables whose media stay
    out of the pretraining table. ``hold_out``: media for a validation split that the corpus lacks;
    ``min_answer_count``, ``max_answers``: the closed list; None for the corpus's own numbers.
    """

    annotations: Path
    out: Path
    base: Path
    media_root: Path | None = None
    media_name: str | None = None
    roots: Mapping[str, Path] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    check_media: bool = False
    embed: bool = False
    decode: int = 0
    shuffles: int = 10
    seed: int = 7
    hold_out: int | None = None
    min_answer_count: int | None = None
    max_answers: int | None = None
    exclude: tuple[str, ...] = ()


def prepare(corpus: Corpus, settings: Settings, progress: Callable[[int], None] | None = None) -> Report:
    """Write all tables of ``corpus`` and its report; nothing is written when anything fails.

    ``progress`` is called with the number of records written so far, every 100,000 records.

    Raises DataError (file, key) for official files that are absent or not what they should be, ConfigError for
    settings that cannot work.
    """
    return _Run(corpus, settings, progress).run()


class _Run:
    def __init__(self, corpus: Corpus, settings: Settings, progress: Callable[[int], None] | None) -> None:
        self.progress = progress
        if settings.embed and corpus.modality != "image":
            raise ConfigError(
                f"--base64 is for images; {corpus.title} has {corpus.modality} files, kept as paths"
            )
        if settings.shuffles < 1:
            raise ConfigError(f"--shuffles is {settings.shuffles}; at least 1 file is written")
        self.corpus, self.settings, self.clean = corpus, settings, Cleaner()
        self.sources = Sources(corpus, settings.annotations, settings.files, settings.options, settings.seed)
        root = settings.media_root or settings.base
        places = {"": (settings.media_name or corpus.media, root)}
        for name, template in corpus.roots.items():
            places[name] = (settings.names.get(name, template), settings.roots.get(name, root))
        self.media = {
            name: MediaFiles(*place, settings.base, check=settings.check_media, embed=settings.embed)
            for name, place in places.items()
        }
        published = self.sources.options.get("text") == "published"
        self.cleaners = {
            table: self.clean.with_rule(RULES["letters" if table.layout == "pretrain" else table.text])
            if published
            else self.clean
            for table in corpus.tables
        }
        self.report = Report(corpus.name)
        self.excluded: set[str] = set().union(*map(media_ids, settings.exclude))
        self.ranks: dict[str, int] = {}
        self.held_out: frozenset[str] = frozenset()
        self.closed: frozenset[str] | None = None
        self.sample: list[str] = []
        self.lines: dict[str, dict[str, None]] = {}
        self.references: dict[str, list[Record]] = {t.references: [] for t in corpus.tables if t.references}
        self._seen = 0

    def run(self) -> Report:
        output = Output()
        writers: dict[Table, TableWriter] = {}
        try:
            if not self.corpus.numbered:
                self._look(output)
            writers = {t: self._writer(output, t) for t in self.corpus.tables if t.layout != "jsonl"}
            self._write(output, writers)
            self._finish(output, writers)
            output.commit()
        finally:
            for writer in writers.values():
                writer.discard()
            output.discard()
        return self.report

    def _records(self) -> Iterator[Record]:
        for record in self.corpus.read(self.sources):
            yield replace(record, split="val") if self._is_held_out(record) else record

    def _is_held_out(self, record: Record) -> bool:
        return record.split == "train" and record.media_id in self.held_out

    def _look(self, output: Output) -> None:
        """First reading: which media are in which split, which answers are frequent."""
        rule, counts = self.corpus.answers, Counter[str]()
        for record in self._records():
            self.ranks[record.media_id] = max(_rank(record.split), self.ranks.get(record.media_id, 0))
            counted = rule is not None and record.split in rule.splits and record.group not in rule.uncounted
            if counted and record.answers:
                counts[max(record.answers, key=record.answers.__getitem__)] += 1
        self._hold_out()
        if rule is not None:
            self._close(rule, counts, output)

    def _close(self, rule: AnswerList, counts: Counter[str], output: Output) -> None:
        """Write the closed list of answers."""
        least = _given(self.settings.min_answer_count, rule.min_count)
        most = _given(self.settings.max_answers, rule.max_answers)
        answers = closed_list(counts, replace(rule, min_count=least, max_answers=most))
        if not answers:
            raise DataError(
                f"no answer is the best of {least} questions; lower --min-answer-count",
                path=str(self.settings.annotations),
            )
        self.closed = frozenset(answers)
        text, pickled = list_files(answers)
        output.text(self.settings.out / f"{rule.name}.json", text)
        output.new(self.settings.out / f"{rule.name}.pkl").write_bytes(pickled)
        self.report.tables[f"{rule.name}.json"] = len(answers)

    def _hold_out(self) -> None:
        """Take a validation split out of the training media where the corpus has none (trap T36)."""
        count = _given(self.settings.hold_out, self.corpus.hold_out)
        if 1 in self.ranks.values() or count == 0:
            return
        training = sorted(name for name, rank in self.ranks.items() if rank == 0)
        if count >= len(training):
            raise ConfigError(
                f"--hold-out {count} leaves no training media; there are {len(training)}: give a smaller number"
            )
        chosen = rng_for(self.settings.seed, 0, 0, f"hold out {self.corpus.name}").permutation(len(training))
        self.held_out = frozenset(training[i] for i in chosen[:count])
        self.ranks.update(dict.fromkeys(self.held_out, 1))
        self.report.notes.append(
            f"no official validation split: {count} training media are held out as val (seed {self.settings.seed})"
        )

    def _writer(self, output: Output, table: Table) -> TableWriter:
        return TableWriter(
            output,
            self.settings.out / f"{table.name}.tsv",
            self.settings.shuffles if table.shuffled else 0,
            self.settings.seed,
            ids=not self.corpus.numbered,
        )

    def _write(self, output: Output, writers: Mapping[Table, TableWriter]) -> None:
        """Second reading: rows into their tables."""
        media: dict[str, set[str]] = {}
        taken = {split for table in self.corpus.tables for split in table.splits}
        for number, record in enumerate(self._records(), 1):
            if self.progress is not None and number % 100_000 == 0:
                self.progress(number)
            self.report.records[record.split] += 1
            if record.split not in taken:
                continue
            if "clip" in record.media:
                source, start, end = record.media["clip"]
                target = self.media[record.root].name(record.media)
                clip = {"source": source, "start": start, "end": end, "target": target}
                self.lines.setdefault(self.corpus.segments, {})[_line(clip)] = None
            if not self.corpus.numbered:
                media.setdefault(record.split, set()).add(record.media_id)
            try:
                self._check(record)
                reference = self.media[record.root].reference(record.media)
            except Dropped as error:
                self._drop(record, str(error))
                continue
            self._take_sample(reference)
            for table in self.corpus.tables:
                if not table.takes(record):
                    continue
                if table.layout == "jsonl":
                    bare = {"id": record.id, self.corpus.modality: reference}
                    self.lines.setdefault(f"{table.name}.jsonl", {})[_line(bare)] = None
                else:
                    self._add(writers[table], record, table, reference)
        self.report.media = {split: len(ids) for split, ids in media.items()}
        for name, lines in self.lines.items():
            output.text(self.settings.out / name, "".join(lines))
            self.report.tables[name] = len(lines)
        for name, records in self.references.items():
            if records:
                output.text(self.settings.out / name, coco_annotations(records, self.clean))
                self.report.tables[name] = len(records)

    def _check(self, record: Record) -> None:
        if _rank(record.split) < self.ranks.get(record.media_id, 0):
            raise Dropped("medium is also in an evaluation split")

    def _add(self, writer: TableWriter, record: Record, table: Table, reference: str) -> None:
        try:
            if table.layout == "pretrain" and record.media_id in self.excluded:
                raise Dropped("medium is in a table of --exclude")
            if table.humans and self.sources.options.get("answer-weights") == "official":
                record = replace(record, answers=scored_answers(record.humans))
            for part in self._closed(record) if table.closed else [record]:
                for row in rows_of(part, table, reference, self.cleaners[table]):
                    writer.add(row)
            if table.references:
                self.references[table.references].append(record)
        except Dropped as error:
            self._drop(record, f"{error}, {table.name}")

    def _closed(self, record: Record) -> list[Record]:
        """Return a training record with the answers of the closed list: one for each (as published), or for all."""
        assert self.closed is not None
        known = {answer: value for answer, value in record.answers.items() if answer in self.closed}
        if not known:
            raise Dropped("no answer of the closed list")
        if self.sources.options.get("rows-per") == "question":
            return [replace(record, answers=known)]
        ids = (record.id if number == 0 else f"{record.id}_{number}" for number in range(len(known)))
        return [
            replace(record, id=name, answers=dict([pair]))
            for name, pair in zip(ids, known.items(), strict=True)
        ]

    def _drop(self, record: Record, reason: str) -> None:
        self.report.dropped[record.split, reason] += 1

    def _take_sample(self, reference: str) -> None:
        """Keep an even random sample of all references, whatever their number."""
        self._seen += 1
        if len(self.sample) < self.settings.decode:
            self.sample.append(reference)
        elif self.settings.decode:
            place = int(rng_for(self.settings.seed, 0, self._seen, "decode").integers(self._seen))
            if place < self.settings.decode:
                self.sample[place] = reference

    def _finish(self, output: Output, writers: Mapping[Table, TableWriter]) -> None:
        for table, writer in writers.items():
            writer.close()
            self.report.notes += [
                f"{place.relative_to(self.settings.out)} is from an earlier run and no longer true; delete it"
                for place in writer.stale()
            ]
            if not len(writer):
                self.report.notes.append(f"{table.name}: no rows, not written")
                continue
            numbers = f"_{{1..{writer.shuffles}}}" if writer.shuffles else ""
            self.report.tables[f"{table.name}{numbers}.tsv"] = len(writer)
        if not any(len(writer) for writer in writers.values()):
            reasons = "; ".join(f"{why}: {n}" for (_, why), n in self.report.dropped.most_common(3))
            raise DataError(
                f"no table would have a row ({reasons or 'the files hold no records'})",
                path=str(self.settings.annotations),
            )
        self.report.repaired = self.clean.repaired
        missing = {name: count for files in self.media.values() for name, count in files.missing.items()}
        self.report.missing = missing
        self.report.notes += [f"not given: {name}" for name in self.sources.absent]
        if missing and any(why == MISSING and split != "train" for split, why in self.report.dropped):
            self.report.notes.append(
                "an evaluation split lacks media: scores on it are not those of the official split"
            )
        if self.sample:
            self.report.undecodable = decode_sample(
                sorted(set(self.sample)), self.corpus.modality, self.settings.base
            )
        output.text(self.settings.out / "reports" / f"{self.corpus.name}.json", self.report.to_json())


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _rank(split: str) -> int:
    """Order in which a medium of two splits is given away: training first, test never."""
    return {"train": 0, "val": 1}.get(split, 2)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value
