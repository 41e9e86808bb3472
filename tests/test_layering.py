"""Imports go down only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aiscache

PACKAGE = Path(aiscache.__file__).parent

WORDS = {
    "errors",
    "log",
    "settings",
    "keys",
    "checksums",
    "locks",
    "stats",
    "uninterrupted",
    "view",
    "bars",
    "counting",
    "offline",
}
LAYERS = [
    WORDS,
    {"store", "origin", "manifest"},
    {"fill", "cache"},
    {"prefetch"},
    {"warm"},
    {"datasets", "targets", "samplers", "loader", "contexts", "channels", "worker_process", "worker_init"},
    {"cli", "__init__", "__main__"},
]
# Methods that people expect on a class although the work is done above it: imported when they are called.
WHEN_CALLED = {"cache": {"warm"}}
NOT_EACH_OTHER = {"store": {"origin", "manifest"}, "origin": {"store", "manifest"}, "manifest": {"store"}}
APART = {"devserver"}
MAY_IMPORT_TORCH = {"datasets", "targets", "samplers", "loader", "cli", "view"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_name(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imported(path: Path, *, only_at_import: bool = False) -> set[str]:
    """Return the dotted names that a module imports, relative ones resolved."""
    tree = ast.parse(path.read_text())
    nodes = _at_import(tree) if only_at_import else ast.walk(tree)
    package = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1])
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def _at_import(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        found += [child, *_at_import(child)]
    return found


def parts_of_aiscache(names: set[str]) -> set[str]:
    return {
        name.split(".")[1] for name in names if name.startswith("aiscache.") and _is_module(name.split(".")[1])
    }  # fmt: skip


def _is_module(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    name = layer_name(path)
    known = set().union(*LAYERS, APART)
    assert name in known, f"{name} is in no layer: add it to the table above and to docs/design.md"
    used = parts_of_aiscache(imported(path)) - {name}
    if name in APART:
        assert used == set(), "the dev server imports nothing of aiscache"
        return
    own = next(level for level, layer in enumerate(LAYERS) if name in layer)
    if own == len(LAYERS) - 1:
        return
    allowed = set().union(*LAYERS[: own + 1])
    allowed -= NOT_EACH_OTHER.get(name, set())
    later = WHEN_CALLED.get(name, set())
    assert used <= allowed | later, f"{path} imports {used - allowed}"
    assert parts_of_aiscache(imported(path, only_at_import=True)) <= allowed | {name}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_where_it_is_known_only(path: Path) -> None:
    if any(name.split(".")[0] == "torch" for name in imported(path)):
        assert layer_name(path) in MAY_IMPORT_TORCH


def test_importing_the_package_loads_neither_torch_nor_the_sdk() -> None:
    code = "import sys, aiscache; print(sorted({'torch', 'aistore', 'lmdb', 'pycurl'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_store_and_its_words_load_no_torch() -> None:
    code = "import sys, aiscache.store.registry, aiscache.view; print('torch' in sys.modules, 'aistore' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_our_classes_do_without_the_sdk_until_they_list() -> None:
    code = (
        "import sys, aiscache; [getattr(aiscache, name) for name in aiscache.__all__]; print('aistore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_reading_objects_loads_only_what_it_needs() -> None:
    code = (
        "import sys, aiscache, aiscache.worker_init; aiscache.AISMapDataset;"
        "print(sorted({'requests', 'aiscache.datasets.shards'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
