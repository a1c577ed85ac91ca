"""From official annotation files to the project's tables.

A corpus is a small declaration: official files, a reader that yields records, tables to write. One runner
checks splits, ids and media, one writer writes all tables, one report says what was left out and why.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from unival.errors import ConfigError, nearest

if TYPE_CHECKING:
    from unival.datatools.corpora.records import Corpus

# corpus -> module of its declaration, which is named in capitals there
_HOMES = {
    "coco": "coco",
    "nocaps": "coco",
    "image_gen": "image_gen",
    "vqa": "vqa",
    "okvqa": "vqa",
    "vizwiz": "vqa",
    "gqa": "vqa",
    "refcoco": "refcoco",
    "refcocoplus": "refcoco",
    "refcocog": "refcoco",
    "snli_ve": "snli_ve",
    "visual_genome": "visual_genome",
    "cc3m": "web",
    "cc12m": "web",
    "sbu": "web",
    "webvid": "video",
    "webvidqa": "video",
    "msrvtt": "video",
    "msrvtt_qa": "video",
    "msvd": "video",
    "msvd_qa": "video",
    "activitynet": "video",
    "audiocaps": "audio",
    "clotho": "audio",
}
CORPORA = tuple(_HOMES)


def get_corpus(name: str) -> Corpus:
    """Return the declaration of a corpus; ConfigError with the nearest name for an unknown one."""
    if name not in _HOMES:
        raise ConfigError(
            f"there is no corpus '{name}'; corpora: {', '.join(CORPORA)}.{nearest(name, CORPORA)}"
        )
    corpus: Corpus = getattr(import_module(f"unival.datatools.corpora.{_HOMES[name]}"), name.upper())
    return corpus
