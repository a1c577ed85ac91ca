"""What is imported from which installation: a clone called ``unival``, another checkout's environment, a wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from unival.core import installation

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("models", "tasks", "criterions", "data")
REPORT = "import unival, unival.tasks; print(unival.__file__, unival.tasks.__file__)"


def clone(to: Path) -> Path:
    """Copy what an installation needs."""
    for name in ("unival", *FOLDERS, "configs"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, to / name)
    return to


def unpacked(checkout: Path, kind: str, to: Path) -> Path:
    """Build the checkout's wheel of a kind ("wheel" or "editable") and unpack it as an installer would."""
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(to)!r})"
    to.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True, capture_output=True)
    zipfile.ZipFile(next(to.glob("*.whl"))).extractall(to / "site")
    return to / "site"


def imported(cwd: Path, site: Path | None, code: str = REPORT) -> list[str]:
    """What a script in ``cwd`` prints with nothing installed but ``site``."""
    script = f"import site; site.addsitedir({str(site)!r})\n{code}" if site else code
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def libraries() -> str:
    """Code that makes what is installed here importable behind what is tested, our own package not."""
    yaml = Path(importlib.util.find_spec("yaml").origin).parents[1]  # type: ignore[union-attr,arg-type]
    return f"import sys; sys.path.append({str(yaml)!r})\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with two clones, ``unival`` and ``other``."""
    folder = tmp_path_factory.mktemp("home")
    clone(folder / "unival")
    clone(folder / "other")
    return folder


def test_an_editable_installation_is_found_beside_its_clone(home: Path) -> None:
    site = unpacked(home / "unival", "editable", home / "editable")
    package = str(home / "unival" / "unival" / "__init__.py")
    tasks = str(home / "unival" / "tasks" / "__init__.py")
    for cwd in (home, home / "unival", Path("/")):
        assert imported(cwd, site) == [package, tasks], cwd


def test_a_checkout_imports_its_own_plugin_in_another_ones_environment(home: Path) -> None:
    package, tasks = home / "other" / "unival" / "__init__.py", home / "other" / "tasks" / "__init__.py"
    mapping = {f"unival.{name}": str(home / "unival" / name / "__init__.py") for name in FOLDERS}
    finder = (  # what setuptools makes of a package_dir mapping
        "import sys\n"
        "from importlib.util import spec_from_file_location\n"
        "class Editable:\n"
        f"    places = {mapping!r}\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        place = cls.places.get(name)\n"
        "        return spec_from_file_location(name, place) if place else None\n"
        "sys.meta_path.append(Editable)\n"
    )
    assert imported(home / "other", None, finder + REPORT) == [str(package), str(tasks)]


def test_a_wheel_keeps_to_its_own_folders(home: Path) -> None:
    site = unpacked(home / "unival", "wheel", home / "wheel")
    for name in FOLDERS:  # other people's packages beside it
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("")
    found = imported(
        home, site, REPORT + "; import sys; print([f for f in sys.meta_path if hasattr(f, 'root')])"
    )
    assert found == [
        str(site / "unival" / "__init__.py"),
        str(site / "unival" / "tasks" / "__init__.py"),
        "[]",
    ]
    catalogue = (
        "from unival.checkpoint.catalogue import read_entries; from unival.core.paths import recipes\n"
        "from unival.core.recipe import load_recipe\n"
        "entry = read_entries()['unival_caption_stage_1']\n"
        "print(load_recipe(entry.recipe_path()).choices['task'], recipes())"
    )
    task, folder = imported(home, site, libraries() + catalogue)
    assert task == "caption" and Path(folder) == site / "unival" / "configs", (
        "the recipes come with the wheel"
    )


def test_the_command_for_an_extra_fits_the_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: name)  # with pip
    found = {"pip": str(Path(sys.executable).with_name("pip"))}
    monkeypatch.setattr(installation.shutil, "which", found.get)
    assert installation.install_extra("demo") == "pip install -e '.[demo]'"
    found["pip"] = "/elsewhere/pip"
    own = f"{Path(sys.executable).name} -m pip install -e"
    assert installation.install_extra("demo").endswith(f"{own} '.[demo]'")
    monkeypatch.chdir(tmp_path)
    assert installation.install_extra("demo").endswith(f"{own} '{ROOT}[demo]'")
    monkeypatch.setattr(installation, "checkout", lambda: None)
    assert installation.install_extra("demo").endswith("pip install 'unival[demo]'")
    monkeypatch.setattr(
        installation.importlib.util, "find_spec", lambda name: None
    )  # made by uv, without pip
    assert installation.install_extra("demo").startswith("uv pip install --python ")
