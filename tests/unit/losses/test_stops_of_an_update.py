"""A batch as the trainer gets it: forward pass, loss and backward pass ask the device nothing."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.model_fixtures import ALL, VOCAB, small_model
from tests.support.stops import Stops
from unival.batching.batch import Example, collate
from unival.criterions.label_smoothed import EncouragingLoss, LabelSmoothedCrossEntropy
from unival.errors import DataError
from unival.modeling.batch_facts import BatchFacts

MEDIA = {"image": (3, 64, 64), "video": (3, 4, 64, 64), "audio": (9600,)}
ALLOWED = [[5, 6, 7], list(range(4, 40)), [2, 9]]


def row(number: int, modality: str | None, length: int = 5, media: Any = None, **rest: Any) -> Example:
    generator = torch.Generator().manual_seed(number)
    if media is None and modality is not None:
        media = torch.randn(MEDIA[modality], generator=generator) * 0.1
    tokens = torch.randint(4, VOCAB, (length,), generator=generator)
    if rest.get("allowed"):
        tokens = torch.tensor([6, 9, 2])
    tokens[-1] = 2
    shifted = torch.cat([torch.tensor([0]), tokens[:-1]])
    source = torch.cat([torch.tensor([0]), torch.randint(4, VOCAB, (2 + number,), generator=generator)])
    return Example(str(number), source, tokens, shifted, modality, media, **rest)


def unscored(example: Example) -> Example:
    """A prompt that the decoder is given, as of questions."""
    example.target[:2] = 1
    return example


def kept(number: int) -> Example:
    features = torch.randn(512, 2, 2, generator=torch.Generator().manual_seed(number))
    return row(number, "image", media=features, kept=True)


def batch(name: str) -> Any:
    """What the collator makes of rows like those of a task."""
    picture = torch.randn(MEDIA["image"], generator=torch.Generator().manual_seed(9))
    rows = {
        "caption": [row(0, "image", 4), row(1, "image", 7)],
        "equal lengths": [row(1, "image", 5), row(1, "image", 5)],
        "video": [row(0, "video", 4), row(1, "video", 3)],
        "audio": [row(0, "audio", 4), row(1, "audio", 6)],
        "grounding": [row(0, "image", 5), row(1, "image", 5)],
        "answers": [
            unscored(row(0, "image", 6)),
            row(1, "image", allowed=ALLOWED),
            row(2, "image", weight=0.3),
        ],
        "shared media": [row(0, "image", media=picture), row(1, "image", 3, media=picture), row(2, None)],
        "kept features": [kept(0), row(1, "image"), kept(2), row(3, None)],
        "codes": [row(0, None, code_target=True), row(1, "image")],
    }
    if name != "mixture":
        return {**collate(rows[name]), "group": "image"}
    groups = {
        "image": [*rows["answers"], *rows["shared media"], row(4, None, 8), row(5, "image")],
        "video": [*rows["video"], *rows["audio"], row(2, "audio", allowed=ALLOWED)],
    }
    return [{**collate(group), "group": name} for name, group in groups.items()]


BATCHES = [
    "caption", "equal lengths", "video", "audio", "grounding", "answers", "shared media", "kept features", "codes",
    "mixture",
]  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {"label_smoothing": 0.1},
    {"label_smoothing": 0.1, "report_accuracy": True, "ignore_prefix_size": 1, "ignore_eos": True},
    {"use_rdrop": True, "drop_worst_ratio": 0.2, "drop_best_ratio": 0.1},
]


def criterion(kind: Any = LabelSmoothedCrossEntropy, **options: Any) -> Any:
    chosen = SimpleNamespace(scst=False, scst_args=None)
    task = SimpleNamespace(vocabulary=SimpleNamespace(pad=1, eos=2), cfg=chosen)
    return kind.build_criterion(Namespace(**options), task)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return small_model(**ALL, code_layernorm_embedding=True).train()


def update(model: torch.nn.Module, how: Any, sample: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Statistics and gradients of one pass, of fixed draws."""
    torch.manual_seed(0)
    model.zero_grad()
    loss, size, log = how(model, sample, update_num=5)
    loss.backward()
    numbers = {name: float(value) for name, value in {**log, "size": size, "sum": loss.detach()}.items()}
    return numbers, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "counts", "two passes"])
def test_nothing_is_asked(model: torch.nn.Module, name: str, options: dict[str, Any]) -> None:
    how, sample = criterion(**options), batch(name)
    with Stops() as stops:
        loss, _, _ = how(model, sample, update_num=5)
        loss.backward()
    assert not stops.found


@pytest.mark.parametrize("options", [{}, {"constraint_range": "4,90"}])
def test_nothing_is_asked_by_the_bonus(model: torch.nn.Module, options: dict[str, Any]) -> None:
    how, sample = criterion(EncouragingLoss, log_end=0.5, **options), batch("caption")
    with Stops() as stops:
        loss, _, _ = how(model, sample, update_num=5)
        loss.backward()
    assert not stops.found


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_without_facts_gives_the_same(model: torch.nn.Module, name: str) -> None:
    """Tensors made by hand are asked, and nothing else changes: neither numbers nor gradients."""
    how, sample = criterion(**OPTIONS[1]), batch(name)
    parts = sample if isinstance(sample, list) else [sample]
    bare = [{key: value for key, value in part.items() if key != "facts"} for part in parts]
    known, gradients = update(model, how, sample)
    with Stops() as stops:
        asked, others = update(model, how, bare if isinstance(sample, list) else bare[0])
    assert asked == known and gradients.keys() == others.keys()
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())
    assert any("batch_facts.py" in place for place in stops.found), "the guard sees what it is there to see"


def test_facts_of_another_batch_are_refused(model: torch.nn.Module) -> None:
    codes, caption, shared = batch("codes"), batch("caption"), batch("shared media")
    output = BatchFacts(codes["facts"].source, caption["facts"].output, codes["facts"].target)
    for sample, facts in ((shared, caption["facts"]), (caption, shared["facts"]), (codes, output)):
        with pytest.raises(DataError, match="facts"):
            model(**sample["net_input"], facts=facts)
