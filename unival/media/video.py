"""Videos: chosen frames of the first video stream as 8-bit RGB, through PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from unival.media.container import decoded, open_stream, packets, pyav
from unival.media.frames import check_sampling, frame_indices, shown_at, variable_times
from unival.media.seeking import Lost, PacketIndex, held_packets, packets_in_file, sought_frames
from unival.media.source import DEFAULT_LIMITS, Limits, MediaError, Opened, Source, open_source, reading

_HELD = 64 * 2**20  # bytes of a file that are held between counting and decoding


def read_video(
    source: Source,
    num_frames: int,
    sampling: str = "middle",
    rng: np.random.Generator | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
) -> np.ndarray:
    """Read ``num_frames`` frames as uint8 (F, h, w, 3), chosen by ``unival.media.frames.frame_indices``.

    Always F = num_frames: too few frames repeat the last one (sampling "fps<x>" with num_frames 0 gives
    as many as the video has). Where the frame rate clearly varies (telephones), frames are chosen by the time at
    which they are shown; a video of constant rate gives the frames that counting gives. Animated GIFs work.
    A rotation of 90, 180 or 270 degrees stored in the file is applied, any other value ignored. Pixels are as
    stored: the sample aspect ratio is ignored (reference behaviour).
    A damaged or cut-off file gives the frames that decode, chosen over their real number, so the result
    depends only on the file. Of long videos only what the chosen frames need is decoded (unival.media.seeking):
    the same frames, unless the file is damaged elsewhere so that a packet there gives no frame, which is not seen.
    Memory holds the chosen frames only; one decoder thread.
    Raises MediaError (no video stream, nothing decodes, beyond a limit), ConfigError for bad arguments.
    """
    check_sampling(num_frames, sampling, rng)
    opened = open_source(source, name)
    with reading(opened.name):
        with open_stream(opened, "video") as (container, stream):
            length, fps, times, read, index = _expected(opened, container, stream, limits)
            indices = shown_at(frame_indices(num_frames, length, sampling, rng, fps), times)
            seek = index if index.pays(set(indices)) else None
            if read is not None:
                frames, found = _pick(opened, container, stream, set(indices), limits, read, seek)
        if read is None:
            frames, found = _pick_anew(opened, set(indices), limits, seek)
        # Packets say how many frames to expect. When fewer decode, choose again among those.
        if len(frames) < len(set(indices)):
            indices = frame_indices(num_frames, found, sampling, rng, fps)
            frames, _ = _pick_anew(opened, set(indices), limits)
            if len(frames) < len(set(indices)):
                raise MediaError(opened.name, "gives a different number of frames each time it is decoded")
    clip = np.stack([frames[i] for i in indices])
    if len(clip) < num_frames:
        clip = np.concatenate([clip, np.repeat(clip[-1:], num_frames - len(clip), axis=0)])
    return clip


def _expected(
    opened: Opened, container: Any, stream: Any, limits: Limits
) -> tuple[int, float | None, np.ndarray | None, list[Any] | None, PacketIndex]:
    """Expected number of frames (at least 1), frames a second, and where the rate varies the times at which the
    frames appear, in mean frames from the start; without decoding. Then the packets, unless they are too large to
    be held, and their index."""
    _check_size(opened.name, stream.codec_context.width, stream.codec_context.height, limits)
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    found, held, size, index = [], [], 0, PacketIndex(stream)
    for packet in packets(opened, container, stream, limits.video_packets):
        if not packet.is_discard:
            found.append((packet.pts, packet.duration))
        index.add(packet)
        size += packet.size
        if size <= _HELD:
            held.append(packet)
    index.finish()
    seconds = float(stream.time_base) if stream.time_base else None
    times, mean = variable_times(found, seconds)
    fps = mean if times is not None else float(rate) if rate else None
    return max(len(found), 1), fps, times, held if size <= _HELD else None, index


def _pick_anew(
    opened: Opened, wanted: set[int], limits: Limits, seek: PacketIndex | None = None
) -> tuple[dict[int, np.ndarray], int]:
    with open_stream(opened, "video") as (container, stream):
        return _pick(opened, container, stream, wanted, limits, seek=seek)


def _pick(
    opened: Opened,
    container: Any,
    stream: Any,
    wanted: set[int],
    limits: Limits,
    read: list[Any] | None = None,
    seek: PacketIndex | None = None,
) -> tuple[dict[int, np.ndarray], int]:
    """Decode up to the last wanted frame, with ``seek`` only what that needs; the wanted frames by index, and how many
    frames came."""
    if seek is None:
        every = enumerate(decoded(opened, container, stream, limits.video_packets, read))
        return _converted(opened, every, wanted, limits)
    if read is not None:
        packets_from = held_packets(read)
    else:
        packets_from = packets_in_file(seek, opened, container, stream, limits.video_packets)
    try:
        some = sought_frames(seek, wanted, stream.codec_context, packets_from)
        return _converted(opened, some, wanted, limits)
    except Lost:
        return _pick_anew(opened, wanted, limits)


def _converted(
    opened: Opened, indexed: Iterable[tuple[int, Any]], wanted: set[int], limits: Limits
) -> tuple[dict[int, np.ndarray], int]:
    """The wanted ones of (index, frame), ascending, and how many frames there are up to the last."""
    frames: dict[int, np.ndarray] = {}
    shape: tuple[int, int] | None = None
    turns = seen = 0
    last = max(wanted)
    converter = pyav().video.reformatter.VideoReformatter()
    for index, frame in indexed:
        if index in wanted:
            _check_size(opened.name, frame.width, frame.height, limits)
            if shape is None:
                shape, turns = (frame.width, frame.height), _quarter_turns(frame.rotation)
            # A stream may change its frame size on the way; a clip has one.
            picture = converter.reformat(
                frame, width=shape[0], height=shape[1], format="rgb24", **_one_thread()
            ).to_ndarray()
            frames[index] = np.rot90(picture, turns)
        seen = index + 1
        if seen > last:
            break
    return frames, seen


@cache
def _one_thread() -> dict[str, int]:
    """FFmpeg would start threads for the conversion of every single frame; older PyAV knows no such option."""
    return {"threads": 1} if "threads" in (pyav().VideoFrame.reformat.__doc__ or "") else {}


def _quarter_turns(degrees: int) -> int:
    """Counter-clockwise quarter turns; broken files carry any number here."""
    return degrees // 90 % 4 if -360 <= degrees <= 360 and degrees % 90 == 0 else 0


def _check_size(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.video_pixels:
        raise MediaError(
            name,
            f"frames of {width} x {height} = {width * height} pixels, the limit is {limits.video_pixels}: "
            "scale the video down or raise the limit (Limits.video_pixels)",
        )
