"""Asking what a task offers to people, whichever method of the predictor answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unival.specs.base import TaskSpec

if TYPE_CHECKING:
    from unival.predict.predictor import Predictor, Results


def name_of(spec: type[TaskSpec]) -> str:
    """The task's name in a service and on a page: its method's, which people know, else its own."""
    return spec.offer.method if spec.offer is not None and spec.offer.method else spec.name


def texts_of(spec: type[TaskSpec]) -> tuple[str, ...]:
    """Names of the texts that must be given, as :func:`ask` takes them."""
    if spec.offer is not None and spec.offer.argument:
        return (spec.offer.argument,)
    return tuple(field.name for field in spec().asked)


def ask(
    predictor: Predictor, spec: type[TaskSpec], media: Any, texts: Mapping[str, Any], **chosen: Any
) -> Results:
    """Ask one task; ``chosen``: modality, n_best, answers, as far as its method takes them. Raises its errors."""
    if spec.offer is not None and spec.offer.method:
        return getattr(predictor, spec.offer.method)(media, **texts, **chosen)  # type: ignore[no-any-return]
    return predictor.ask(spec.name, media, texts, **chosen)
