"""Python blocks of README and docs run as they are written, page by page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# transformers' interface needs tokens of the user's own; tests/integration/use/test_use_hub.py runs it
ELSEWHERE = {"docs/checkpoints.md"}


def pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [p.relative_to(ROOT).as_posix() for p in found if "```python" in p.read_text(encoding="utf-8")]
    return [name for name in names if name not in ELSEWHERE]


@pytest.mark.parametrize("page", pages())
def test_blocks_run(
    page: str, checkpoint: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out/tiny/caption/checkpoint_best.pt"
    place.parent.mkdir(parents=True)
    place.symlink_to(checkpoint)
    (tmp_path / "userdata").mkdir()
    (tmp_path / "userdata/world").symlink_to(world)
    downloaded = tmp_path / "weights/unival_caption_stage_1/checkpoint_best_test.pt"
    downloaded.parent.mkdir(parents=True)
    downloaded.symlink_to(checkpoint)
    monkeypatch.setenv("UNIVAL_WEIGHTS", str(tmp_path / "weights"))
    for name, folder in (("photo", "images"), ("a", "images"), ("clip", "videos"), ("sound", "audio")):
        source = sorted((world / folder).iterdir())[0]
        shutil.copy(source, tmp_path / {"clip": "clip.mp4", "sound": "sound.wav"}.get(name, f"{name}.jpg"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
