"""Long videos: seeking to the key frames before the chosen frames gives what decoding everything gives."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from unival.core.seeding import rng_for
from unival.media import Limits, MediaError, read_video, seeking, video
from unival.media.container import open_stream, packets
from unival.media.frames import frame_indices
from unival.media.source import open_source

MEDIA = Path(__file__).resolve().parents[3].parent / "shared" / "media" / "videos"
FRAMES = 120
CHOICES: list[tuple[int, str]] = [
    (1, "middle"),
    (4, "middle"),
    (1, "rand"),
    (3, "rand"),
    (8, "rand"),
    (0, "fps1"),
]


def picture(number: int) -> np.ndarray:
    """Frames of a moving pattern, all different; the colours turn at frame 50."""
    y, x = np.mgrid[:48, :64]
    pixels = np.stack([2 * x + 3 * number, 3 * y + number, x + y + 7 * number], -1) % 256
    return (pixels if number < 50 else 255 - pixels).astype(np.uint8)


def write(path: Path, codec: str, frames: int = FRAMES, **options: str) -> Path:
    try:
        av.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=10, options={k.replace("_", "-"): v for k, v in options.items()}
        )
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# data, pts, dts, whether it is a key frame
Packets = list[tuple[bytes, int, int, bool]]


def rewritten(source: Path, target: Path, change: Callable[[Packets], Packets], *more: Path) -> Path:
    """The packets of a file, and those of further ones at their ends, changed."""
    with av.open(str(source)) as first, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(first.streams.video[0])
        base, read, shift = first.streams.video[0].time_base, [], 0
        for path in (source, *more):
            with av.open(str(path)) as container:
                found = [packet for packet in container.demux(video=0) if packet.size]
                read += [(bytes(p), p.pts + shift, p.dts + shift, p.is_keyframe) for p in found]
                shift += max(p.pts for p in found) + found[0].duration
        for data, pts, dts, key in change(read):
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.is_keyframe = pts, dts, key
            packet.time_base, packet.stream = base, stream
            out.mux(packet)
    return target


def index_of(path: Path) -> tuple[seeking.PacketIndex, int]:
    with open_stream(open_source(path), "video") as (container, stream):
        index = seeking.PacketIndex(stream)
        read = list(packets(open_source(path), container, stream))
        for packet in read:
            index.add(packet)
        index.finish()
    return index, len(read)


def outcomes(path: Path) -> list[Any]:
    """What every choice of frames gives, and the next draw of its generator."""
    given: list[Any] = []
    for place, (count, sampling) in enumerate(CHOICES):
        rng = rng_for(0, 0, place)
        try:
            given.append(read_video(path, count, sampling, rng))
        except MediaError as error:
            given.append(str(error))
        given.append(rng.integers(1 << 60))
    return given


def assert_as_without_seeking(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sought even where it does not pay, from memory and in the file."""
    monkeypatch.setattr(seeking, "_WORTH", 0.0)
    whole = outcomes(path)
    monkeypatch.setattr(seeking, "_WORTH", 10.0)
    for held in (64 * 2**20, 0):
        monkeypatch.setattr(video, "_HELD", held)
        for expected, got in zip(whole, outcomes(path), strict=True):
            assert type(got) is type(expected) and np.array_equal(got, expected)


H264 = {"g": "15", "sc_threshold": "0", "preset": "medium"}
WITHOUT_B = {**H264, "bf": "0"}
STREAMS: dict[str, tuple[str, dict[str, str]]] = {
    "b.mp4": ("libx264", H264),
    "b.mkv": ("libx264", H264),
    "b.mov": ("libx264", H264),
    "b.ts": ("libx264", H264),
    "b.flv": ("libx264", H264),
    "without_b.mp4": ("libx264", WITHOUT_B),
    "without_b.avi": ("libx264", WITHOUT_B),
    "pyramid.mp4": ("libx264", {"x264_params": "keyint=24:scenecut=0:bframes=6:b-pyramid=strict:b-adapt=2"}),
    "interlaced.mp4": ("libx264", {"x264_params": "interlaced=1:keyint=15:scenecut=0"}),
    "irregular.mkv": ("libx264", {"x264_params": "keyint=60:min-keyint=5:scenecut=100"}),
    "hevc.mp4": ("libx265", {"x265_params": "keyint=15:min-keyint=15:scenecut=0:log-level=none"}),
    "hevc_closed.mkv": ("libx265", {"x265_params": "keyint=15:open-gop=0:radl=2:scenecut=0:log-level=none"}),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "sc_threshold": "1000000000"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "sc_threshold": "1000000000"}),
    "mpeg4_b.mkv": ("mpeg4", {"g": "12", "bf": "2", "sc_threshold": "1000000000"}),
    "vp8.webm": ("libvpx", {"g": "15", "deadline": "realtime"}),
    "vp9.webm": ("libvpx-vp9", {"g": "15", "auto_alt_ref": "6", "lag_in_frames": "16", "cpu_used": "5"}),
    "av1.mp4": ("libsvtav1", {"g": "15", "preset": "12"}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_sought_frames_are_those_of_decoding_everything(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, options = STREAMS[name]
    path = write(tmp_path / name, codec, **options)
    index, count = index_of(path)
    assert count == FRAMES and index.usable
    # The last frame of each half of what is decoded at the beginning, and one near the end: little is decoded.
    wanted = {7, 100}
    assert index.pays(wanted)
    opened = open_source(path)
    with open_stream(opened, "video") as (container, stream):
        source = seeking.packets_in_file(index, opened, container, stream, FRAMES)
        came = [place for place, _ in seeking.sought_frames(index, wanted, stream.codec_context, source)]
    assert came == sorted(set(came)) and wanted <= set(came) and len(came) < 0.6 * 100
    assert_as_without_seeking(path, monkeypatch)


def test_frames_are_those_that_pyav_decodes(tmp_path: Path) -> None:
    path = write(tmp_path / "b.mp4", "libx264", **H264)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for seed in range(4):
        wanted = frame_indices(3, FRAMES, "rand", rng_for(0, 0, seed))
        got = read_video(path.read_bytes(), 3, "rand", rng_for(0, 0, seed))
        assert np.array_equal(got, [frames[place] for place in wanted])


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264_params": "open-gop=1:keyint=15:min-keyint=15:scenecut=0"}),
        ("libx264", {"x264_params": "intra-refresh=1:keyint=15:bframes=0:scenecut=0"}),
        ("mpeg2video", {"g": "12", "bf": "2"}),
        ("mjpeg", {}),
    ],
)
def test_where_decoding_cannot_start_anew_everything_is_decoded(
    codec: str, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames after such a key frame refer to frames before it, or are right only after some more."""
    path = write(tmp_path / "v.mkv", codec, **options)
    index, _ = index_of(path)
    with av.open(str(path)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) >= 6
    assert not index.pays({7, 100})
    assert_as_without_seeking(path, monkeypatch)


def every_key(read: Packets) -> Packets:
    return [(data, pts, dts, True) for data, pts, dts, _ in read]


def stamped_in_order(read: Packets) -> Packets:
    return [(data, dts, dts, key) for data, _, dts, key in read]


def begun_late(read: Packets) -> Packets:
    return read[7:]


def begun_at_second_key(read: Packets) -> Packets:
    return read[[key for *_, key in read].index(True, 1) :]


def early(read: Packets) -> Packets:
    """Frames before time 0, which MP4 cuts off with an edit list."""
    return [(data, pts - read[40][2], dts - read[40][2], key) for data, pts, dts, key in read]


def fewer_keys(read: Packets) -> Packets:
    return [(data, pts, dts, key and number % 2 == 0) for number, (data, pts, dts, key) in enumerate(read)]


@pytest.mark.parametrize(
    "change", [every_key, stamped_in_order, begun_late, begun_at_second_key, early, fewer_keys]
)
@pytest.mark.parametrize("name", ["b.mp4", "hevc.mp4", "mpeg4_b.mkv", "vp8.webm", "vp9.webm"])
def test_odd_files(
    name: str, change: Callable[[Packets], Packets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stamps and marks of key frames that are wrong, and beginnings that are missing, are noticed."""
    codec, options = STREAMS[name]
    path = write(tmp_path / name, codec, **options)
    assert_as_without_seeking(rewritten(path, tmp_path / f"odd_{name}", change), monkeypatch)


@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_parameters_that_change_on_the_way(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = "keyint=15:bframes=0:scenecut=0:repeat-headers=1"
    one = write(tmp_path / f"a.{kind}", "libx264", 60, x264_params=repeated)
    two = write(tmp_path / f"b.{kind}", "libx264", 60, x264_params=f"{repeated}:cabac=0:ref=1:8x8dct=0")
    both = rewritten(one, tmp_path / f"both.{kind}", lambda read: read, two)
    index, count = index_of(both)
    assert count == 120 and not index.usable
    assert_as_without_seeking(both, monkeypatch)


def test_packets_of_vp8_that_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders store pictures for others to refer to; they count as expected frames, and nothing comes of them."""

    def hidden(read: Packets) -> Packets:
        shown = [(data, number % 10 != 6) for number, (data, *_) in enumerate(read)]
        return [
            (data if show else bytes([data[0] & ~16]) + data[1:], *rest)
            for (data, show), (_, *rest) in zip(shown, read, strict=True)
        ]

    whole = write(tmp_path / "v.webm", "libvpx", g="15", deadline="realtime")
    path = rewritten(whole, tmp_path / "hidden.webm", hidden)
    assert index_of(path)[0].pays({7, 80})
    assert_as_without_seeking(path, monkeypatch)


def test_packets_of_mpeg4_without_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def left_out(read: Packets) -> Packets:
        # type P, no second gone, marker, four bits of time, marker, "not coded"
        empty = b"\0\0\1\xb6" + bytes([0b01010000, 0b10111111])
        return [(empty if n % 12 == 5 else data, *rest) for n, (data, *rest) in enumerate(read)]

    path = write(tmp_path / "v.mp4", "mpeg4", g="12")
    odd = rewritten(path, tmp_path / "odd.mp4", left_out)
    assert not index_of(odd)[0].usable
    assert_as_without_seeking(odd, monkeypatch)


def damaged(place: int) -> Callable[[Packets], Packets]:
    return lambda read: [
        (bytes(len(data)) if n == place else data, *rest) for n, (data, *rest) in enumerate(read)
    ]


def test_damage_where_a_frame_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is decoded, as without seeking: the frames after it move up."""
    whole = write(tmp_path / "v.mp4", "libx264", **WITHOUT_B)
    path = rewritten(whole, tmp_path / "damaged.mp4", damaged(93))
    assert index_of(path)[0].pays({7, 100})
    got = {}
    for worth in (0.0, 10.0):
        monkeypatch.setattr(seeking, "_WORTH", worth)
        got[worth] = read_video(path, 40)
    assert np.array_equal(got[0.0], got[10.0])
    assert not np.array_equal(got[0.0][-5:], read_video(whole, 40)[-5:])


def test_damage_where_nothing_is_decoded_is_not_met(tmp_path: Path) -> None:
    """The frame is the one that the time stamps say; decoding everything would count one fewer before it."""
    whole = write(tmp_path / "v.mp4", "libx264", **WITHOUT_B)
    path = rewritten(whole, tmp_path / "damaged.mp4", damaged(25))
    assert index_of(path)[0].pays({59})
    assert np.array_equal(read_video(path, 1), read_video(whole, 1))


def test_cut_off_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "v.mkv", "libx264", **H264).read_bytes()
    for part in (0.3, 0.7, 0.99):
        cut = tmp_path / "cut.mkv"
        cut.write_bytes(data[: int(part * len(data))])
        assert_as_without_seeking(cut, monkeypatch)


def test_limits_hold_where_frames_are_sought(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", "libx264", **H264)
    index, _ = index_of(path)
    assert index.pays(set(frame_indices(2, FRAMES)))
    assert len(read_video(path, 2, limits=Limits(video_pixels=3072, video_packets=FRAMES))) == 2
    with pytest.raises(MediaError, match="the limit is 3071"):
        read_video(path, 2, limits=Limits(video_pixels=3071))
    with pytest.raises(MediaError, match="more than 119 packets"):
        read_video(path, 2, limits=Limits(video_packets=119))


@pytest.mark.shared
def test_nasty_files(monkeypatch: pytest.MonkeyPatch) -> None:
    if not MEDIA.is_dir():
        pytest.skip("the shared media collection is not beside the checkout")
    for path in sorted(MEDIA.iterdir()):
        if path.stat().st_size < 300_000:  # the larger ones are frames of the same kinds, at a greater size
            assert_as_without_seeking(path, monkeypatch)
