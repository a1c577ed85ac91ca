"""The notebooks run from top to bottom, on tiny checkpoints in the places of the quickstart's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluate_models import make_checkpoint
from unival import build_model
from unival.checkpoint import save_folder
from unival.core.recipe import load_recipe
from unival.modeling.config import option_fields
from unival.vocabulary import Vocabulary

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[3]
BOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes of a file
QUICK = {
    r"UPDATES, CODEBOOK_UPDATES = .*": "UPDATES, CODEBOOK_UPDATES = 2, 2",
    r"UPDATES = \d+": "UPDATES = 2",
    r"LAMBDAS = .*": "LAMBDAS = (0.0, 1.0)",
    r"count=60": "count=4",
    r"range\(240\)": "range(40)",
}
TASKS = {  # folder of the quickstart -> task
    "caption": "caption",
    "vqa": "vqa",
    "grounding": "grounding",
    "video_caption": "caption",
    "video_vqa": "vqa",
    "audio_caption": "caption",
}


@pytest.fixture(scope="module")
def places(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment with the roots of a quickstart that tiny models and a small world stand in for."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "data").mkdir()
    (folder / "data/world").symlink_to(world)
    for name, task in TASKS.items():
        made = make_checkpoint(folder / "made", world, task)
        place = folder / "out/tiny" / name / "checkpoint_best.pt"
        place.parent.mkdir(parents=True)
        made.rename(place)
    vocabulary = Vocabulary.load(world / "vocabulary")
    recipe = load_recipe(ROOT / "configs/tiny/finetune.yaml")
    start = folder / "out/tiny/stage2/checkpoint_last.pt"
    names = {field.name for field in option_fields()}
    sizes = {name: value for name, value in recipe.options.items() if name in names}
    model = build_model("unival_tiny", vocab_size=len(vocabulary), **sizes)
    save_folder(start, model, vocabulary)
    return {"UNIVAL_OUT": str(folder / "out"), "UNIVAL_DATA": str(folder / "data")}


@pytest.fixture(scope="module")
def kernel(places: dict[str, str]) -> Iterator[Any]:
    """One kernel for all notebooks: each would import torch again."""
    from jupyter_client.manager import start_new_kernel

    environment = {**os.environ, **places, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    manager, client = start_new_kernel(env=environment, cwd=str(ROOT / "docs/notebooks"))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, kernel: Any) -> None:
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        for old, new in QUICK.items():
            cell.source = re.sub(old, new, cell.source)
    manager, client = kernel
    client.execute_interactive("%reset -f", timeout=60, output_hook=lambda message: None)
    runner = nbclient.NotebookClient(book, km=manager, timeout=300)
    runner.kc = client
    runner.execute(reset_kc=False, cleanup_kc=False)
    printed = "".join(o.get("text", "") for c in book.cells for o in c.get("outputs", []))
    assert "error:" not in printed, printed


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_with_its_outputs(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in book.cells) == 1
    assert "PUBLISHED = False" in book.cells[1].source, (
        "the cell that switches to a published model comes first"
    )
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    kinds = {output.get("name", output["output_type"]) for output in outputs}
    assert not kinds & {"error", "stderr"}
    assert not re.search(r"/(root|home|tmp|work)/", path.read_text(encoding="utf-8")), "a path of one machine"


def test_every_notebook_is_listed() -> None:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    assert len(BOOKS) == 8 and all(f"notebooks/{path.name}" in page for path in BOOKS)
