"""Run notebooks without a browser, each kernel in a container of its own.

    python examples/headless.py one.ipynb two.ipynb [--kernel container-data] [--output results]

Each executed copy is written, also when a cell has failed: it shows how far the notebook came. Where two notebooks have the same name,
the later one's copy gets a number. The exit status is the number of notebooks that failed, and 125 if there are more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from rich.console import Console
from rich.markup import escape

from container_kernels.errors import ContainerKernelError

MOST = 125  # of an exit status that shells leave to programs

console = Console(soft_wrap=True, highlight=False)


def named(sources: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each notebook, with a name for its copy that no other has, also where capitals do not count."""
    taken: set[str] = set()
    for source in sources:
        numbered = (f"{source.stem}-{number}{source.suffix}" for number in count(2))
        name = next(name for name in chain([source.name], numbered) if name.lower() not in taken)
        taken.add(name.lower())
        yield source, name


def execute(source: Path, copy: Path, kernel: str | None) -> str:
    """The executed copy is written. Returns what went wrong; an empty text is success."""
    notebook = nbformat.read(source, as_version=4)
    settings: dict[str, Any] = {"kernel_name": kernel} if kernel else {}
    progress = Progress()
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(source.parent)}},  # where the kernel starts
        on_cell_execute=progress,
        **settings,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        # A kernel that died while a cell ran says why in the same way: ename is then KernelDied.
        return f"{progress}: {error.ename}: {error.evalue}"
    except DeadKernelError as error:
        return f"{progress}: {error}; the log says why"
    except ContainerKernelError as error:
        return f"the kernel did not start: {error}"
    finally:
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, copy)
    return ""


class Progress:
    """Which cell runs."""

    def __init__(self) -> None:
        self.cell = 0

    def __call__(self, *, cell: nbformat.NotebookNode, cell_index: int) -> None:
        self.cell = cell_index + 1

    def __str__(self) -> str:
        return f"cell {self.cell}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run notebooks, each kernel in a container of its own.")
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--kernel", help="a kernelspec's name, in place of the one in the notebook")
    parser.add_argument("--output", type=Path, default=Path("results"), help="where the executed copies go (results)")
    arguments = parser.parse_args()

    failed = 0
    for source, name in named(arguments.notebooks):
        trouble = execute(source, arguments.output / name, arguments.kernel)
        failed += bool(trouble)
        told = escape(f"{source} (copy: {name})" if name != source.name else str(source))
        console.print(f"[red]failed[/]  {told}\n        {escape(trouble)}" if trouble else f"[green]ok[/]      {told}")
    return min(failed, MOST)


if __name__ == "__main__":
    sys.exit(main())
