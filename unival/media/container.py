"""One stream of a media container through PyAV (FFmpeg), tolerant of damage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from unival.media.source import MediaError, Opened, describe

# Packets in a row that do not decode before the rest of the file is given up.
_MAX_BAD_PACKETS = 100


def pyav() -> ModuleType:
    """Import PyAV, here and not at module level: FFmpeg must first be loaded after the fork."""
    import av

    return av


def confined(in_memory: bool) -> dict[str, str]:
    """FFmpeg options that keep a playlist that poses as a video from opening network addresses and, where
    the content came from memory (an upload), files of this machine."""
    return {"protocol_whitelist": "none" if in_memory else "file"}


def _lenient() -> dict[str, str]:
    """Tags that are no UTF-8 are no error; from PyAV 19 on they never are and the option is gone."""
    return {"metadata_errors": "replace"} if int(pyav().__version__.split(".")[0]) < 19 else {}


@contextmanager
def open_stream(opened: Opened, kind: str) -> Iterator[tuple[Any, Any]]:
    """Open the first stream of a kind ("video" or "audio"): (container, stream). Raises MediaError."""
    target = f"file:{opened.path}" if opened.path is not None else opened.handle()
    with pyav().open(target, options=confined(opened.path is None), **_lenient()) as container:
        streams = getattr(container.streams, kind)
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            found = f" (it has: {', '.join(kinds)})" if kinds else ""
            raise MediaError(opened.name, f"there is no {kind} stream{found}")
        if streams[0].codec_context is None:
            raise MediaError(opened.name, f"FFmpeg has no decoder for its {kind} stream")
        # Parallelism belongs to the data-loading workers.
        streams[0].codec_context.thread_count = 1
        yield container, streams[0]


def packets(opened: Opened, container: Any, stream: Any, limit: int | None = None) -> Iterator[Any]:
    """The stream's packets with content, up to the first read error: there a cut-off file ends.

    Raises MediaError beyond ``limit`` packets.
    """
    source = container.demux(stream)
    count = 0
    while True:
        try:
            packet = next(source, None)
        except (pyav().error.FFmpegError, ValueError):
            return
        if packet is None:
            return
        if packet.size == 0:
            continue
        count += 1
        if limit is not None and count > limit:
            raise MediaError(
                opened.name,
                f"more than {limit} packets, the limit: "
                "cut the clip or raise the limit (Limits.video_packets)",
            )
        yield packet


def decoded(
    opened: Opened,
    container: Any,
    stream: Any,
    limit: int | None = None,
    read: Iterable[Any] | None = None,
) -> Iterator[Any]:
    """The stream's frames in presentation order, leaving out packets that do not decode.

    ``read``: all packets of the stream, where they have been read before.
    Raises MediaError when nothing decodes, naming the decoder's first complaint.
    """
    failure = pyav().error.FFmpegError
    first: Exception | None = None
    bad = good = 0
    for packet in packets(opened, container, stream, limit) if read is None else read:
        try:
            frames = packet.decode()
        except failure as error:
            first = first or error
            bad += 1
            if bad > _MAX_BAD_PACKETS:
                break
            continue
        bad = 0
        good += len(frames)
        yield from frames
    try:
        frames = stream.codec_context.decode(None)
    except failure as error:
        first, frames = first or error, []
    yield from frames
    if good + len(frames) == 0:
        why = f": {describe(first)}" if first else ""
        raise MediaError(opened.name, f"no {stream.type} frame decodes{why}") from first
