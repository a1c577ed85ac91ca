"""Every unusual or broken file of the shared collection ends as its manifest says."""

from __future__ import annotations

import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
import pytest

ROOT = Path(__file__).resolve().parents[3]
MEDIA = ROOT.parent / "shared" / "media"

# One process takes a share of the files and reports each; when it hangs or dies, the file it was at is
# known and the rest goes to a fresh process.
WORKER = """
import sys
from pathlib import Path
from unival.media import Limits, MediaError, read_audio, read_image, read_video
media, as_bytes = Path(sys.argv[1]), sys.argv[2] == "bytes"
limits = Limits(video_packets=1500)
for line in sys.stdin:
    name = line.rstrip("\\n")
    print("start", name, sep="\\t", flush=True)
    path = media / name
    source = path.read_bytes() if as_bytes else str(path)
    try:
        if name.startswith("images/"):
            image = read_image(source, limits=limits, name=name)
            result = f"decoded {image.mode} {image.width}x{image.height}"
        elif name.startswith("videos/"):
            clip = read_video(source, 4, limits=limits, name=name)
            result = f"decoded {clip.dtype} {'x'.join(map(str, clip.shape))}"
        else:
            wave = read_audio(source, 48000, limits=limits, name=name)
            result = f"decoded {wave.dtype} {len(wave)}"
    except MediaError as error:
        result = f"refused {error}"
    except BaseException as error:
        result = f"raised {error!r}"
    print("end", name, result.replace("\\n", " ").replace("\\t", " "), sep="\\t", flush=True)
"""


def run_share(names: list[str], how: str) -> dict[str, str]:
    results: dict[str, str] = {}
    while names:
        command = [sys.executable, "-c", WORKER, str(MEDIA), how]
        try:
            done = subprocess.run(
                command,
                input="".join(f"{n}\n" for n in names),
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=120,
            )
            out, end = done.stdout, f"died with status {done.returncode}"
        except subprocess.TimeoutExpired as error:
            text = error.stdout or b""
            out, end = text.decode() if isinstance(text, bytes) else text, "hung"
        for line in out.splitlines():
            kind, name, *result = line.split("\t")
            results[name] = result[0] if kind == "end" else end
        if not out:
            raise RuntimeError(f"the worker did not start: {end}")
        names = [n for n in names if n not in results]
    return results


# uncompressed YCbCr; the web page's library holds Pillow below 13
UNREADABLE_BY_PILLOW_12 = ("images/image__ycbcr_lzw_bt709.tif",)


@pytest.mark.shared
@pytest.mark.parametrize("how", ["path", "bytes"])
def test_every_file_ends_as_the_manifest_says(how: str) -> None:
    if not (MEDIA / "MANIFEST.tsv").is_file():
        pytest.skip("the shared media collection is not beside the checkout")
    with open(MEDIA / "MANIFEST.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = [row["file"] for row in rows]
    with ThreadPoolExecutor(2) as pool:
        shares = list(pool.map(run_share, (names[::2], names[1::2]), (how, how)))
    results = shares[0] | shares[1]
    wrong = []
    for row in rows:
        result = results[row["file"]]
        if row["file"] in UNREADABLE_BY_PILLOW_12 and PIL.__version__.startswith("12."):
            continue
        # "partial" files are decoded: what is there is used, see read_video and read_audio.
        if row["should_decode"] in ("yes", "partial"):
            good = result.startswith(_decoded(row))
        else:
            good = result.startswith(f"refused {row['file']}: ") and len(result) > len(row["file"]) + 20
        if not good:
            wrong.append(f"{row['file']} ({row['should_decode']}): {result}")
    assert len(results) == len(rows) > 100
    assert not wrong, "\n".join(wrong)


def _decoded(row: dict[str, str]) -> str:
    width, height = row["width"], row["height"]
    if row["kind"] == "images":
        # The listed size is before the rotation, except for TIFF files, which Pillow turns by itself.
        if row["exif_orientation"] in ("5", "6", "7", "8") and not row["file"].endswith((".tif", ".tiff")):
            width, height = height, width
        return f"decoded RGB {width}x{height}"
    if row["kind"] == "videos":
        turned = row["rotation"] and int(row["rotation"]) in (90, -90, 270, -270)
        return f"decoded uint8 4x{width}x{height}x3" if turned else f"decoded uint8 4x{height}x{width}x3"
    wanted = -(-int(row["samples"]) * 48000 // int(row["sample_rate"]))
    return f"decoded float32 {wanted}"
