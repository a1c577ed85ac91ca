"""Frames of a long video without decoding all that lies before them: from key frame to key frame, checked."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from unival.media.container import packets, pyav
from unival.media.source import Opened

# Decoders that start anew at a key frame and give one frame for each packet that is shown.
_CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1")
# Frames that are always decoded at the beginning: they show whether packets, time stamps and frames fit together, and
# some streams name the encoder, whose faults the decoder makes good, only there.
_FIRST = 16
_WORTH = 0.6  # of the packets up to the last wanted frame: with more to decode, a failure costs more than seeking gains
_EMPTY_VOP = 16  # bytes: an MPEG-4 packet that small may say that there is no picture

PacketsFrom = Callable[[int], Iterator[Any]]


class Lost(Exception):
    """What was decoded is not what the packets promised: all must be decoded."""


class PacketIndex:
    """Where the frames of a video stream are: its packets in the order of the file, without their content."""

    def __init__(self, stream: Any) -> None:
        context = stream.codec_context
        self.codec = context.codec.canonical_name
        self.usable = self.codec in _CODECS
        self.stamps: list[int] = []
        self._nal_length = _nal_length(self.codec, bytes(context.extradata or b""))
        self._shown: list[int] = []
        self._keys: list[int] = []
        self._times: dict[int, int] = {}
        self._parameters: bytes | None = None

    def add(self, packet: Any) -> None:
        """Note the next packet of the stream."""
        if not self.usable:
            return
        if packet.pts is None or packet.is_corrupt or (self.codec == "mpeg4" and packet.size <= _EMPTY_VOP):
            self.usable = False
            return
        number = len(self.stamps)
        self.stamps.append(packet.pts)
        if packet.is_discard or (self.codec == "vp8" and not memoryview(packet)[0] & 16):
            return  # shown never: cut off by an edit list, or a picture for others to refer to
        self._shown.append(packet.pts)
        if packet.is_keyframe:
            self._add_key(number, packet)

    def finish(self) -> None:
        """Order what was noted."""
        self._shown.sort()
        self.rank = {stamp: rank for rank, stamp in enumerate(self._shown)}
        self.place = {stamp: number for number, stamp in enumerate(self.stamps)}
        self._key_stamps = [self.stamps[key] for key in self._keys]
        unique = len(self.place) == len(self.stamps)
        self.usable = self.usable and unique and self._key_stamps == sorted(self._key_stamps)

    def key_before(self, index: int) -> int:
        """Return the number of the packet from which the frame of this index can be decoded."""
        found = bisect_right(self._key_stamps, self._shown[index]) - 1
        return self._keys[found] if found >= 0 else 0

    def time(self, number: int) -> int:
        """Return for which time to ask a container that is to go to the key frame of this number, or one before it:
        some compare it with the time of presentation, others with that of decoding."""
        return self._times[number]

    def pays(self, wanted: set[int]) -> bool:
        """Whether these frames can be sought, and with clearly fewer packets than all up to the last of them."""
        if not self.usable or max(wanted) >= len(self._shown):
            return False
        decoded = position = 0
        for index in _goals(wanted):
            key, here = self.key_before(index), self.place[self._shown[index]]
            if here < key:
                return False
            position = max(position, key)
            decoded += max(here + 1 - position, 0)
            position = max(position, here + 1)
        return decoded < _WORTH * position

    def _add_key(self, number: int, packet: Any) -> None:
        if self.codec in _NALS:
            starts, parameters = _nals_of_key(self.codec, bytes(packet), self._nal_length)
            # What a decoder is told between the beginning and a key frame must not matter for that key frame.
            if self._parameters is None:
                self._parameters = parameters
            self.usable = self._parameters == parameters
            if not starts:
                return
        self._keys.append(number)
        self._times[number] = packet.pts if packet.dts is None else packet.dts


def sought_frames(
    index: PacketIndex, wanted: set[int], context: Any, packets_from: PacketsFrom
) -> Iterator[tuple[int, Any]]:
    """Decode runs of packets that hold the wanted frames: (index, frame), ascending, others between them.

    context: the stream's decoder, of which nothing has been decoded. Raises Lost at the first frame that is not the
    one which the time stamps promise, and where anything does not decode.
    """
    position = expected = 0
    run = packets_from(0)
    leading = False  # whether frames may come that are shown before the key frame of the run
    for goal in _goals(wanted):
        if goal < expected:
            continue
        key = index.key_before(goal)
        if key > position:
            context.flush_buffers()
            position, expected, leading = key, index.rank[index.stamps[key]], True
            run = packets_from(key)
        while expected <= goal:
            packet = next(run, None)
            position += 1
            frames = _decoded(packet, context)
            if packet is None and not frames:
                raise Lost
            for frame in frames:
                rank = index.rank.get(frame.pts, -1)
                if leading and 0 <= rank < expected:
                    continue
                if rank != expected or frame.is_corrupt or (leading and not frame.key_frame):
                    raise Lost
                leading = False
                yield rank, frame
                expected += 1


def held_packets(read: list[Any]) -> PacketsFrom:
    """Packets from the one of a number on, where all are in memory."""
    return lambda number: islice(read, number, None)


def packets_in_file(
    index: PacketIndex, opened: Opened, container: Any, stream: Any, limit: int
) -> PacketsFrom:
    """Packets from the one of a number on, sought in the file. Raises Lost where they are not those of the index."""

    def packets_from(number: int) -> Iterator[Any]:
        if number:
            try:
                container.seek(index.time(number), stream=stream)
            except (pyav().error.FFmpegError, ValueError) as error:
                raise Lost from error
        expected = number
        for packet in packets(opened, container, stream, limit):
            found = index.place.get(packet.pts, -1)
            if expected == number and 0 <= found < number:
                continue  # formats may seek to an earlier key frame
            if found != expected:
                raise Lost
            yield packet
            expected += 1

    return packets_from


def _goals(wanted: set[int]) -> list[int]:
    return sorted(wanted.union(range(min(_FIRST, max(wanted)))))


def _decoded(packet: Any, context: Any) -> Iterable[Any]:
    try:
        return context.decode(packet)
    except (pyav().error.FFmpegError, ValueError) as error:
        raise Lost from error


# of a NAL unit's first byte: its type, the types of slices, those of key frames to which no later frame looks back past
# them, and those of parameter sets
_NALS: dict[str, tuple[Callable[[int], int], range, range, range]] = {
    "h264": (lambda byte: byte & 31, range(1, 6), range(5, 6), range(7, 9)),
    "hevc": (lambda byte: byte >> 1 & 63, range(0, 32), range(16, 22), range(32, 35)),
}


def _nal_length(codec: str, extradata: bytes) -> int:
    """Return how many bytes hold the length of a NAL unit; 0 where start codes separate them."""
    place = {"h264": 4, "hevc": 21}.get(codec, 0)
    return (extradata[place] & 3) + 1 if len(extradata) > place and extradata[0] == 1 else 0


def _nals_of_key(codec: str, data: bytes, length: int) -> tuple[bool, bytes]:
    """Whether decoding can start at a packet, as its first slice says, and the parameter sets before that slice.

    Containers call a frame a key frame also where recovery from it is gradual, and where frames after it may refer to
    frames before it.
    """
    kind_of, slices, starts, parameter_sets = _NALS[codec]
    parameters = b""
    for unit in _nal_units(data, length):
        kind = kind_of(unit[0])
        if kind in slices:
            return kind in starts, parameters
        if kind in parameter_sets:
            parameters += unit
    return False, parameters


def _nal_units(data: bytes, length: int) -> Iterator[bytes]:
    place = 0
    while length and place + length < len(data):
        size = int.from_bytes(data[place : place + length], "big")
        place += length
        if size:
            yield data[place : place + size]
        place += size
    if not length:
        for unit in data.split(b"\0\0\1")[1:]:
            if unit:
                yield unit
