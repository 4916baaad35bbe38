"""The guest runs on the image's Python, with nothing but the standard library: from 3.9 on, and understood at its first lines before."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_kernels.guest import wire

GUEST = Path(wire.__file__).parent
MODULES = sorted(GUEST.glob("*.py"))
IN_FUNCTIONS = {"ipykernel", "zmq", "jupyter_client"}  # what an image for kernels has
OLDEST = (3, 9)


def imported(tree: ast.Module, *, everywhere: bool) -> Iterator[str]:
    """Names of the top packages that a module imports: at its own level, or everywhere. Its own package is '.'."""
    for node in ast.walk(tree) if everywhere else unconditional(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level or str(node.module).partition(".")[0]


def unconditional(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run when the module is imported: no function's body, nothing for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from unconditional(node)


def in_annotations(tree: ast.Module) -> set[ast.AST]:
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            annotation = getattr(node, name, None)
            if annotation is not None:
                found.update(ast.walk(annotation))
    return found


def interpreter(version: tuple[int, int]) -> str | None:
    """A Python of that version, where this machine has one."""
    name = "python{}.{}".format(*version)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob("{}.{}.*/bin/python".format(*version)))
    return str(found[-1]) if found else shutil.which(name)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_its_grammar(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=OLDEST)
    assert not [node for node in ast.walk(tree) if type(node).__name__ in ("Match", "TryStar", "TypeAlias")]
    # `X | Y` between types is an error before 3.10 wherever it is evaluated.
    lazy = in_annotations(tree)
    unions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.BitOr)
        and any(isinstance(side, ast.Constant) and side.value is None for side in (node.left, node.right))
    ]
    assert all(node in lazy for node in unions)


def test_its_first_lines_are_read_by_every_python_3() -> None:
    tree = ast.parse((GUEST / "boot.py").read_text(), feature_version=(3, 7))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign))]
    assert set(imported(tree, everywhere=False)) <= {"gc", "signal", "sys", "traceback"}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_it_imports_the_standard_library_and_itself(module: Path) -> None:
    tree = ast.parse(module.read_text())
    assert set(imported(tree, everywhere=False)) <= {*sys.stdlib_module_names, "."}
    assert set(imported(tree, everywhere=True)) <= {*sys.stdlib_module_names, ".", *IN_FUNCTIONS}


VERSIONS = [(3, 9), (3, 10), (3, 11), (3, 12), (3, 13), (3, 14)]


@pytest.mark.parametrize("version", [version for version in VERSIONS if interpreter(version)], ids=str)
def test_every_module_is_imported_by(version: tuple[int, int], tmp_path: Path) -> None:
    """By every Python that this machine has; the oldest grammar is tested above."""
    python = interpreter(version)
    assert python is not None
    (tmp_path / "container_kernels_guest").symlink_to(GUEST)
    names = ", ".join(f"container_kernels_guest.{module.stem}" for module in MODULES if module.stem != "__init__")
    # -S: without the site's packages, which an image need not have.
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {names}; print(sys.version_info[:2])"
    done = subprocess.run(
        [python, "-I", "-S", "-B", "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(version)


def test_pid_1_stays_small(tmp_path: Path) -> None:
    """Each of these takes half a megabyte or more, in each container. The template has them of its own."""
    (tmp_path / "container_kernels_guest").symlink_to(GUEST)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import container_kernels_guest.supervisor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"asyncio", "inspect", "logging", "pathlib", "subprocess", "traceback"} & set(done.stdout.split())


def test_an_older_python_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "container_kernels_guest").symlink_to(GUEST)
    older = "sys.version_info, sys.version = (3, 8, 20), '3.8.20'"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import container_kernels_guest.boot as b; b.KEPT = 0.01; {older}; b.main()"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert (
        "container-kernels: cannot start: RuntimeError('Python 3.9 or newer is needed, and the image has 3.8"
        in done.stderr
    )
