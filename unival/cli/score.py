"""``unival score``: score saved predictions against references, without a model."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unival.core.files import check_file, write_text
from unival.errors import ConfigError
from unival.metrics import io
from unival.metrics.accuracy import accuracy
from unival.metrics.answers import soft_answer_accuracy
from unival.metrics.caption import METRICS, PROTOCOLS, TOKENIZERS, caption_scores
from unival.metrics.grounding import box_accuracy
from unival.metrics.java import JavaSettings
from unival.metrics.result import MISSING, Scores
from unival.metrics.vqa import vqa_accuracy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("predictions", help="JSON lines, a COCO or VQA result list, or a table with a header")
    parser.add_argument("references", help="COCO or VQA annotations, JSON lines, or a table with a header")
    parser.add_argument("--task", required=True, choices=tuple(io.FORMATS))
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    parser.add_argument("--out", help="write the whole result, with per-item scores, to this JSON file")
    parser.add_argument("--results", help="also write the predictions as an EvalAI/COCO result file")
    add = parser.add_argument
    add("--protocol", choices=PROTOCOLS, default="official", help="official, or as the reference does it")
    add("--missing", choices=MISSING, default="error", help="what to do with ids not predicted")
    add("--ids", choices=("as-is", "int", "str"), default="as-is", help="convert the ids of both files")
    add("--metrics", default="bleu,rouge,cider", help=f"captions: some of {','.join(METRICS)}")
    add("--tokenizer", choices=TOKENIZERS, default="ptb", help="captions: how to split text")
    add("--df", default="corpus", help="captions: 'corpus' or a pickle of document frequencies")
    add("--skip-unavailable", action="store_true", help="captions: leave out what needs absent Java")
    add("--java", default="java", help="the Java program, for meteor, spice and ptb-java")
    add("--jars", help="folder with meteor-1.5.jar and stanford-corenlp-3.4.1.jar")
    add("--spice-jars", help="folder with SPICE's jars (default: UNIVAL_SPICE_JARS)")
    add("--java-limit", type=float, default=180.0, help="seconds to wait for Java's first answer")
    add("--thresholds", default="0.5", help="boxes: IoU thresholds, separated by commas")
    add("--areas", help="boxes: 'small,large' limits in square pixels, e.g. 30000,100000")


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: expected numbers separated by commas") from None


def score_files(args: argparse.Namespace) -> tuple[Scores, dict[Any, Any]]:
    """(scores, predictions) of the two files."""
    predictions = io.read_predictions(args.predictions, args.task, args.ids)
    references = io.read_references(args.references, args.task, args.ids)
    values = references.values
    if args.task == "caption":
        settings = JavaSettings(args.java, args.jars, args.spice_jars, start_limit=args.java_limit)
        scores: Scores = caption_scores(
            predictions,
            values,
            [name.strip() for name in args.metrics.split(",") if name.strip()],
            args.tokenizer,
            protocol=args.protocol,
            document_frequencies=args.df,
            missing=args.missing,
            java_settings=settings,
            skip_unavailable=args.skip_unavailable,
        )
    elif args.task == "vqa":
        soft = [isinstance(value, Mapping) for value in values.values()]
        if args.protocol == "unival" or any(soft):
            if not all(soft):
                raise ConfigError(
                    "protocol unival needs references with confidences (score|!+answer), "
                    f"and {soft.count(False)} of {len(soft)} have none; use --protocol official"
                )
            scores = soft_answer_accuracy(predictions, values, args.missing)
        else:
            scores = vqa_accuracy(predictions, values, references.groups, args.missing)
    elif args.task == "grounding":
        areas = _numbers(args.areas, "--areas") if args.areas else None
        if areas is not None and (len(areas) != 2 or areas[0] > areas[1]):
            raise ConfigError(f"--areas {args.areas!r}: expected two numbers, small and large")
        scores = box_accuracy(
            predictions,
            values,
            _numbers(args.thresholds, "--thresholds"),
            args.missing,
            (areas[0], areas[1]) if areas else None,
            args.protocol,
        )
    else:
        scores = accuracy(predictions, values, args.missing)
    return scores, predictions


def _data_hash(*paths: str) -> dict[str, str]:
    return {Path(path).name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


def run(args: argparse.Namespace) -> int:
    """Score, print, write. Returns 0; problems raise errors that name the file and the remedy."""
    for place in filter(None, (args.out, args.results)):
        check_file(place)
    scores, predictions = score_files(args)
    summary: dict[str, Any] = {
        "task": args.task,
        "scores": scores.corpus,
        "coverage": 1 - scores.info.get("missing", 0) / (scores.info["items"] + _left_out(scores.info)),
        **scores.info,
        "data": _data_hash(args.predictions, args.references),
    }
    if args.out:
        full = summary | {"per_item": scores.to_dict()["per_item"]}
        write_text(args.out, json.dumps(full, indent=1, ensure_ascii=False) + "\n")
    if args.results:
        io.write_results(args.results, predictions, args.task)
    if args.json:
        json.dump(summary, sys.stdout, indent=1, ensure_ascii=False)
        print()
        return 0
    for name, value in scores.corpus.items():
        print(f"{name:<24} {value:.4f}")
    for name in ("items", "missing", "protocol", "tokenizer", "document_frequencies", "warning", "skipped"):
        if scores.info.get(name) not in (None, 0, {}):
            print(f"{name:<24} {scores.info[name]}")
    return 0


def _left_out(info: Mapping[str, Any]) -> int:
    return int(info["missing"]) if info["missing_policy"] == "ignore" else 0
