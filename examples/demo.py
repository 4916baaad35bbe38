"""What `make demo` runs: a notebook in a container of its own, and a table that says what that means. Every line of it is checked.

    python examples/demo.py [NOTEBOOK]

The executed notebook and its HTML lie in `results`, beside the notebook. The exit status is 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from container_kernels import engines, inventory, owner
from container_kernels.engines.protocol import Engine, EngineInfo
from container_kernels.errors import ContainerKernelError

HELLO = Path(__file__).parent / "hello.ipynb"
REMOVAL = 10.0  # seconds in which the engine removes a container that has ended

ISOLATION = {
    "container": "a container: its own file system, processes and limits, this machine's (or the engine's) Linux kernel",
    "vm": "a virtual machine of its own",
}


@dataclass(frozen=True)
class Run:
    """What an executed notebook has left."""

    here: dict[str, Any]  # as the notebook saw it
    first_reply: float  # seconds
    written: list[Path]
    notebook: Path
    page: Path


def execute(source: Path, results: Path) -> Run:
    """The notebook has run in its folder, as nbclient runs any notebook."""
    notebook = nbformat.read(source, as_version=4)
    replies: list[float] = []
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(source.parent)}},
        on_cell_executed=lambda **_: replies.append(time.perf_counter()),
    )
    begin, began = time.perf_counter(), time.time()
    client.execute()
    # Before our own files join them. A file system may round its times down.
    written = [path for path in sorted(results.iterdir()) if path.stat().st_mtime >= began - 1]
    executed, page = results / source.name, results / f"{source.stem}.html"
    nbformat.write(notebook, executed)
    page.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    here = json.loads((results / "where.json").read_text())
    return Run(here, replies[0] - begin, written, executed, page)


async def left_over(engine: Engine) -> list[str]:
    """Containers of this process that the engine still has after a while."""
    us, deadline = await owner.this_process(), time.monotonic() + REMOVAL
    while True:
        names = [container.name for container in await inventory.containers(engine.name) if container.owner == us]
        if not names or time.monotonic() > deadline:
            return names
        await asyncio.sleep(0.05)


def our_pid_namespace() -> str:
    """Empty on a system that has none."""
    link = Path("/proc/self/ns/pid")
    return os.readlink(link) if link.is_symlink() else ""


def troubles(run: Run, left: list[str]) -> Iterator[str]:
    if run.here["host name"] == socket.gethostname():
        yield "the host name inside is ours"
    if run.here["pid namespace"] == our_pid_namespace():
        yield "the pid namespace inside is ours"
    if not run.written:
        yield "the notebook has written no file"
    for path in run.written:
        if path.stat().st_uid != os.getuid():
            yield f"{path} belongs to uid {path.stat().st_uid}, and we are {os.getuid()}"
    if left:
        yield f"still there: {', '.join(left)}"


def report(info: EngineInfo, run: Run) -> Table:
    here = run.here
    memory = f"{int(here['memory']) / (1 << 30):g} GiB" if here["memory"].isdigit() else here["memory"]
    files = [f"{path.name} (uid {path.stat().st_uid})" for path in run.written]
    table = Table(title="A notebook in a container of its own", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("engine", f"{info.engine} {info.version}, {info.description}")
    table.add_row("isolation", ISOLATION[info.isolation])
    table.add_row("host name", f"{here['host name']}; ours is {socket.gethostname()}")
    table.add_row("pid namespace", f"{here['pid namespace']}; ours is {our_pid_namespace() or 'none'}")
    table.add_row("user id", f"{here['user id']}; ours is {os.getuid()}")
    table.add_row("limits inside", f"{here['cpus']} cpus, {memory} of memory, {here['pids']} processes and threads")
    table.add_row("first reply", f"{run.first_reply:.2f} s after the start, as nbclient sees it")
    table.add_row("files written", ", ".join(files))
    table.add_row("notebook", str(run.notebook))
    table.add_row("as a web page", str(run.page))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a notebook in a container of its own, and tell about it.")
    parser.add_argument("notebook", nargs="?", type=Path, default=HELLO)
    source = parser.parse_args().notebook.resolve()
    results = source.parent / "results"
    console = Console(highlight=False)
    try:
        engine, info = asyncio.run(engines.choose(os.environ.get("CONTAINER_KERNELS_ENGINE") or None))
        console.print(f"Running {escape(source.name)} …")
        results.mkdir(exist_ok=True)
        run = execute(source, results)
        left = asyncio.run(left_over(engine))
    except ContainerKernelError as error:
        console.print(f"[red]{escape(str(error))}[/]")
        return 1
    console.print(report(info, run))
    wrong = list(troubles(run, left))
    for trouble in wrong:
        console.print(f"[red]wrong:[/] {escape(trouble)}")
    if not wrong:
        console.print(
            "[green]As it should be:[/] another host, other processes, your files, and this kernel's container is gone."
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
