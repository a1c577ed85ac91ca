"""Counts of the source tree: loose modules, folders, upward imports, cycles, lengths, comments.

Usage: python scripts/structure.py [CHECKOUT]
Prints one line per measure. Imports inside functions count like those at the top of a file; those under
``if TYPE_CHECKING:`` are for the type checker alone and are left out.
"""

from __future__ import annotations

import ast
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

# each folder imports only folders before it
ORDER = (
    "errors",
    "core",
    "launch",
    "vocabulary",
    "media",
    "tables",
    "modeling",
    "generate",
    "losses",
    "metrics",
    "imagegen",
    "batching",
    "specs",
    "checkpoint",
    "predict",
    "rewards",
    "evaluate",
    "merge",
    "data",
    "models",
    "tasks",
    "criterions",
    "plugin",
    "train",
    "datatools",
    "report",
    "serve",
    "demo",
    "hub",
    "cli",
)
RANK = {name: level for level, name in enumerate(ORDER)}
PLUGIN = ("models", "tasks", "criterions", "data")
ROOT_FILES = {"__init__", "__main__", "_checkout", "errors", "plugin", "train"}


def sources(checkout: Path) -> dict[str, Path]:
    """Module name -> file, of the library and the plugin."""
    modules = {}
    for path in sorted((checkout / "unival").rglob("*.py")):
        modules[_name(("unival", *path.relative_to(checkout / "unival").parts))] = path
    for folder in PLUGIN:
        for path in sorted((checkout / folder).rglob("*.py")):
            modules[_name(("unival", folder, *path.relative_to(checkout / folder).parts))] = path
    return modules


def _name(parts: tuple[str, ...]) -> str:
    return ".".join((*parts[:-1], parts[-1].removesuffix(".py"))).removesuffix(".__init__")


def imports(path: Path, modules: dict[str, Path]) -> Iterator[tuple[str, int, bool]]:
    """Yield (module of this project, line, inside a function) for every import that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in submodules]
        for name in dict.fromkeys(names):
            if name.split(".")[0] == "unival":
                yield name, node.lineno, id(node) in lazy


def folder_of(module: str) -> str:
    """The part of the order that a module belongs to; the package itself is below everything."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def upward(checkout: Path) -> list[str]:
    """Every import of a folder that is written later in ``ORDER``, as "file:line imports module"."""
    modules = sources(checkout)
    lines = []
    for module, path in modules.items():
        own = folder_of(module)
        for name, line, _ in imports(path, modules):
            other = folder_of(name)
            if own == other or "" in (own, other) or "__main__" in (own, other):
                continue
            if RANK.get(other, -1) >= RANK.get(own, len(ORDER)):
                lines.append(f"{path.relative_to(checkout).as_posix()}:{line} imports {name}")
    return lines


def cycles(checkout: Path, lazy: bool) -> list[list[str]]:
    """Groups of folders (files of the root count by themselves) that import each other."""
    modules = sources(checkout)
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        for name, _, inside in imports(path, modules):
            if (lazy or not inside) and folder_of(name) not in ("", folder_of(module)) and folder_of(module):
                graph.setdefault(folder_of(module), set()).add(folder_of(name))
    reach = {start: _reachable(graph, start) for start in graph}
    groups: list[list[str]] = []
    for start in sorted(graph):
        group = sorted(other for other in reach[start] if start in reach.get(other, set()))
        if len(group) > 1 and group not in groups:
            groups.append(group)
    return groups


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph.get(name, ())
    return seen


def measures(checkout: Path) -> Iterator[tuple[str, object]]:
    """Yield (what, value)."""
    modules = sources(checkout)
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules.values()}
    loose = [p for p in (checkout / "unival").glob("*.py") if p.stem not in ROOT_FILES]
    yield "loose modules in the package's root", len(loose)
    yield "folders of the library", len({p.parent for p in (checkout / "unival").rglob("*.py")})
    yield "files", len(lengths)
    yield "lines", sum(lengths.values())
    yield "median length of a file", int(statistics.median(lengths.values()))
    longest = max(lengths, key=lambda path: lengths[path])
    yield "longest file", f"{lengths[longest]} ({longest.relative_to(checkout).as_posix()})"
    functions = []
    comments = 0
    for path in modules.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.relative_to(checkout).as_posix()}:{node.name}"
                functions.append(((node.end_lineno or node.lineno) - node.lineno + 1, name))
        with open(path, "rb") as file:
            comments += sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(file.readline))
    length, name = max(functions)
    yield "longest function", f"{length} ({name})"
    yield "comments per 1,000 lines", round(1000 * comments / sum(lengths.values()), 1)
    inner = sum(inside for path in modules.values() for _, _, inside in imports(path, modules))
    yield "imports inside functions", inner
    yield "groups of folders that import each other", len(cycles(checkout, lazy=False))
    groups = cycles(checkout, lazy=True)
    yield "the same with imports inside functions", f"{len(groups)} ({sum(map(len, groups))} members)"
    yield "upward imports", len(upward(checkout))


def main() -> None:
    """Print the counts and every upward import."""
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]).resolve()
    for what, value in measures(checkout):
        print(f"{what:<42} {value}")
    for line in upward(checkout):
        print(f"  upward: {line}")


if __name__ == "__main__":
    main()
