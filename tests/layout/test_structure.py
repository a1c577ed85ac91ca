"""The order of folders: imports go down, those inside functions included; nothing loose in the root; public names."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("structure", ROOT / "scripts/structure.py")
assert _spec is not None and _spec.loader is not None
structure = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(structure)

PUBLIC = {
    "unival": ("load", "build_model", "__version__"),
    "unival.merge": (),
    "unival.media": ("MediaError", "MediaLoader", "read_image", "read_video", "read_audio", "Limits"),
    "unival.metrics": ("accuracy",),
    "unival.metrics.io": ("write_results",),
    "unival.specs": ("SPECS", "Field", "SpecOptions", "TaskSpec", "get_spec", "register"),
    "unival.specs.base": ("bad_value", "compose", "row_id", "text_of"),
    "unival.specs.answers": ("AnswerSpec", "encode_answer"),
    "unival.specs.inputs": ("load_media", "media_field"),
    "unival.serve": ("create_app",),
    "unival.errors": ("UnivalError", "ConfigError", "DataError", "CheckpointError"),
    "unival.rewards": ("BoxReward",),
    "unival.vocabulary": ("Vocabulary",),
    "unival.checkpoint": ("load_checkpoint", "load_folder", "save_folder", "read_header", "read_fairseq"),
    "unival.launch": ("Node", "main", "run"),
    "unival.evaluate": ("Evaluation",),
    "unival.hub": (),
    "unival.tables": ("open_table",),
}
WITH_ENGINE = (
    "unival.plugin",
    "unival.train",
    "unival.models",
    "unival.tasks",
    "unival.criterions",
    "unival.data",
)


def test_every_folder_has_a_place_in_the_order():
    folders = {structure.folder_of(module) for module in structure.sources(ROOT)} - {
        "",
        "__main__",
        "_checkout",
    }
    assert folders == set(structure.ORDER)


def test_imports_go_down():
    upward = structure.upward(ROOT)
    assert not upward, "\n".join(upward)


def test_folders_do_not_import_each_other():
    assert structure.cycles(ROOT, lazy=True) == []


def test_nothing_is_loose_in_the_root():
    assert {path.stem for path in (ROOT / "unival").glob("*.py")} == structure.ROOT_FILES


def test_names_that_users_have_in_their_scripts():
    code = "import importlib\n"
    for module, names in PUBLIC.items():
        code += f"found = importlib.import_module({module!r})\n"
        code += "".join(f"assert hasattr(found, {name!r}), ({module!r}, {name!r})\n" for name in names)
    code += "import sys; assert 'fairseq' not in sys.modules\n"
    code += "".join(f"import {module}\n" for module in WITH_ENGINE)
    code += "assert not {'sklearn', 'pandas', 'wandb'} & set(sys.modules), 'the engine starts without them'\n"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_module_entries_exist():
    for name in ("unival/__main__.py", "unival/train.py", "unival/launch/__main__.py"):
        assert 'if __name__ == "__main__":' in (ROOT / name).read_text(encoding="utf-8"), name
