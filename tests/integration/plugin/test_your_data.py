"""Every page of docs/your-data, followed word for word on 20 generated samples."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "docs/your-data").glob("*.md"))
ANSWER = {
    "caption": "caption", "video_caption": "caption", "audio_caption": "caption", "vqa": "answer",
    "video_vqa_gen": "answer", "grounding": "box", "entailment": "label",
    "matching": "label",
}  # fmt: skip
# what makes a run of some minutes one of seconds
SMALL = shlex.split(
    "--max-update 3 --validate-interval-updates 3 --save-interval-updates 0 --encoder-layers 1 --decoder-layers 1 "
    "--patch-image-size 32 --patch-frame-size 32 --num-frames 2 --max-audio-len 16000 --num-workers 0 --batch-size 8"
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def medium(path: Path, rng: np.random.Generator) -> None:
    if path.suffix == ".jpg":
        from PIL import Image

        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    elif path.suffix == ".wav":
        import soundfile

        soundfile.write(path, rng.uniform(-0.5, 0.5, 12000).astype(np.float32), 16000)
    else:
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=5, options={"crf": "30"})
            stream.width = stream.height = 48
            stream.pix_fmt = "yuv420p"
            for _ in range(6):
                frame = av.VideoFrame.from_ndarray(
                    rng.integers(0, 255, (48, 48, 3), dtype=np.uint8), format="rgb24"
                )
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def prepare(page: Path, folder: Path) -> None:
    """Make the page's example with 20 samples: the rows it shows, with the numbers in file names counted up."""
    (example,) = blocks(page, "csv")
    head, *rows = list(csv.reader(example.splitlines()))
    name = re.search(r"and `(\S+\.csv)`:", page.read_text(encoding="utf-8"))
    assert name is not None, "the page says where its table lies"
    table = folder / name[1]
    table.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for number in range(20):
            row = list(rows[number % len(rows)])
            row[0] = re.sub(r"\d+", str(number), row[0], count=1)
            medium(table.parent / row[0], rng)
            writer.writerow(row)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_works_as_written(page: Path, runner, tmp_path: Path) -> None:
    prepare(page, tmp_path)
    (commands,) = blocks(page, "bash")
    lines = [shlex.split(line) for line in commands.splitlines()]
    verbs = ["data", "plan", "train", "evaluate", "report", "predict"]
    assert [line[:2] for line in lines] == [["unival", verb] for verb in verbs]
    env = {"UNIVAL_DATA": str(tmp_path / "userdata"), "UNIVAL_OUT": str(tmp_path / "out")}
    said = {}
    for line in lines:
        words = line[1:] + (SMALL if line[1] in ("plan", "train") else [])
        done = runner.start(words, tmp_path, env, cwd=tmp_path, program="unival.cli").finish()
        assert done.code == 0, done.text
        said[line[1]] = done.out
    assert "recipe; next" in said["data"] and "chosen: " in said["data"] and "time: about" in said["plan"]
    assert "validation at update 3" in said["train"] and "baselines, " in said["evaluate"]
    assert "95 % interval" in said["report"]
    task = lines[0][lines[0].index("--task") + 1]
    out = lines[-1][lines[-1].index("--out") + 1]
    found = [json.loads(line) for line in (tmp_path / out).read_text(encoding="utf-8").splitlines()]
    whole = not any(word.endswith(".jsonl") for word in lines[-1][2:4])
    assert len(found) == (20 if whole else 2)
    assert all(ANSWER[task] in line for line in found), found[:2]


def test_pages_name_what_exists() -> None:
    assert len(PAGES) == 9
    for page in [*PAGES, ROOT / "docs/own-data.md"]:
        for name in re.findall(r"`(configs/\S+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
