"""Captions from the web, given as addresses and texts: CC3M, CC12M, SBU. Pictures are local files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial

from unival.datatools.corpora.official import Sources
from unival.datatools.corpora.records import Corpus, Record, Source, Table
from unival.datatools.corpora.texts import TEXT
from unival.errors import DataError

_SHARD = 10_000  # files of a folder, as the usual downloader (img2dataset) makes them


def _pairs(sources: Sources, url_first: bool) -> Iterator[tuple[str, str]]:
    """Yield (address, caption) of a tab-separated list without header; further tabs belong to the caption."""
    for number, line in sources.lines("list"):
        first, tab, second = line.partition("\t") if url_first else line.rpartition("\t")
        if not tab:
            raise DataError(
                "expected an address and a caption separated by a tab, found no tab",
                path=str(sources.paths["list"]),
                line=number,
            )
        yield (first, second) if url_first else (second, first)


def _sbu_pairs(sources: Sources) -> Iterator[tuple[str, str]]:
    """Yield (address, caption) of ``sbu-captions-all.json``: two lists of one length."""
    file = sources.json("list")
    urls, captions = file.listing("image_urls"), file.listing("captions")
    if len(urls) != len(captions):
        raise DataError(
            f"{len(urls)} image_urls and {len(captions)} captions; expected as many", path=str(file.path)
        )
    yield from zip(map(str, urls), map(str, captions), strict=True)


def _web(sources: Sources, name: str, url_first: bool | None) -> Iterator[Record]:
    """Parts for media names: {shard}/{key} (img2dataset), {index} from 0, {url_md5}, {url_file}."""
    pairs = _sbu_pairs(sources) if url_first is None else _pairs(sources, url_first)
    for index, (url, caption) in enumerate(pairs):
        shard = f"{index // _SHARD:05d}"
        yield Record(
            id=f"{name}{index}",
            split="train",
            media_id=f"{name}{index}",
            media={
                "shard": shard,
                "key": f"{shard}{index % _SHARD:04d}",
                "index": index,
                "url_md5": hashlib.md5(url.encode()).hexdigest(),
                "url_file": url.partition("?")[0].rpartition("/")[2],
            },
            captions=(caption,),
            caption_ids=(f"{name}{index}",),
        )


def _corpus(name: str, title: str, file: str, url_first: bool | None, place: str) -> Corpus:
    return Corpus(
        name=name,
        title=title,
        modality="image",
        sources=(Source("list", file),),
        read=partial(_web, name=name, url_first=url_first),
        media="{shard}/{key}.jpg",
        numbered=True,
        options=(TEXT,),
        tables=(Table(place, "pretrain", kind="caption", dataset=name),),
    )


CC3M = _corpus("cc3m", "CC3M", "Train_GCC-training.tsv", False, "pretrain_ours/parts/cc3m_caption")
CC12M = _corpus("cc12m", "CC12M", "cc12m.tsv", True, "pretrain_ours/parts/cc12m_caption")
SBU = _corpus("sbu", "SBU captions", "sbu-captions-all.json", None, "pretrain_ours/parts/sbu_caption")
