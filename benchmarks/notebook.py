"""A notebook of one cell through nbclient, from end to end: ours warm, and a plain local kernel; and what of it nbclient itself waits.

    python benchmarks/notebook.py [--rounds 20] [--engine docker]

The clients have waits of fixed length, which no kernel can shorten. They are measured where they happen, in this process:

- `wait_for_ready` (jupyter_client) ends with 0.2 s in which nothing more comes from the kernel;
- the shutdown (jupyter_client) looks ten times a second whether the kernel has ended, so a kernel that needs a moment costs 0.1 s.

Writes all samples to benchmarks/results/notebook.json.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty
from typing import Any, ClassVar

import nbformat
from clients import CELL
from containers import wait_until_removed
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.utils import run_sync
from kernels import QUIET
from nbclient import NotebookClient
from pools import Miss, Pool, pool
from report import Target, exit_status, no_misses, parser, print_verdicts, screen, table, write
from rich.console import Console
from rich.progress import track
from traitlets import default

from container_kernels import engines

LOCAL, WARM = "local ipykernel", "container, warm"
TOTAL = "the whole run"
START = "start_kernel"
READY = "wait_for_ready"
READY_FIXED = "  of it waits of 0.2 s for silence"
CELL_TIME = "the cell"
SHUTDOWN = "shutdown_kernel"
SHUTDOWN_FIXED = "  of it looks 0.1 s apart"
CLEANUP = "cleanup_resources, stop_channels"
REST = "the rest"
PARTS = (START, READY, READY_FIXED, CELL_TIME, SHUTDOWN, SHUTDOWN_FIXED, CLEANUP, REST)
FIXED = (READY_FIXED, SHUTDOWN_FIXED)

Times = dict[str, float]  # seconds, by part
_times: Times = defaultdict(float)  # of the run that is being measured: nbclient makes its objects itself


@contextmanager
def timed(part: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        _times[part] += time.perf_counter() - begin


class Iopub(AsyncZMQSocketChannel):
    """Tells how long it was waited for a message that did not come."""

    async def get_msg(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        begin = time.perf_counter()
        try:
            return await super().get_msg(*args, **kwargs)
        except Empty:
            _times[READY_FIXED] += time.perf_counter() - begin
            raise


class Client(AsyncKernelClient):
    """Tells how long its calls take."""

    iopub_channel_class = Iopub

    async def wait_for_ready(self, *args: Any, **kwargs: Any) -> None:
        with timed(READY):
            await super().wait_for_ready(*args, **kwargs)

    def stop_channels(self) -> None:
        with timed(CLEANUP):
            super().stop_channels()


class Manager(AsyncKernelManager):
    """Tells how long its calls take, and what it was that ran."""

    last: ClassVar[Manager]  # the one of the latest run
    was_warm = False
    container: str | None = None

    @default("client_factory")
    def _timed_client(self) -> type[Client]:
        return Client

    async def start_kernel(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        Manager.last = self
        with timed(START):
            await super().start_kernel(*args, **kwargs)
        assert self.provisioner is not None
        self.was_warm = bool(getattr(self.provisioner, "is_warm", False))
        self.container = (await self.provisioner.get_provisioner_info()).get("container", {}).get("name")

    async def shutdown_kernel(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        with timed(SHUTDOWN):
            await super().shutdown_kernel(*args, **kwargs)

    async def _async_wait(self, *args: Any, **kwargs: Any) -> None:
        with timed(SHUTDOWN_FIXED):
            await super()._async_wait(*args, **kwargs)

    async def cleanup_resources(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        with timed(CLEANUP):
            await super().cleanup_resources(*args, **kwargs)


class Runner(NotebookClient):
    """Tells how long the cell takes."""

    async def async_execute_cell(self, *args: Any, **kwargs: Any) -> Any:
        with timed(CELL_TIME):
            return await super().async_execute_cell(*args, **kwargs)

    execute_cell = run_sync(async_execute_cell)


def run(kernel_name: str) -> Times:
    """A notebook has been executed; the seconds of each part, and of the whole."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    _times.clear()
    with timed(TOTAL):
        Runner(notebook, kernel_name=kernel_name, kernel_manager_class=Manager, timeout=60).execute(**QUIET)
    known = sum(seconds for part, seconds in _times.items() if part not in (TOTAL, *FIXED))
    return {**_times, REST: _times[TOTAL] - known}


def run_local() -> Times:
    return run("python3")


def run_warm(source: Pool, engine: str) -> Times:
    with source.at_rest():
        times = run(source.kernel_name)
        if Manager.last.container is not None:
            wait_until_removed(engine, f"name={Manager.last.container}")
    source.check(Manager.last.was_warm)
    return times


def by_part(runs: Sequence[Times]) -> dict[str, float]:
    """The median of each part."""
    return {part: statistics.median(times.get(part, 0.0) for times in runs) for part in (*PARTS, TOTAL)}


def print_results(console: Console, runs: dict[str, list[Times]]) -> None:
    medians = {case: by_part(some) for case, some in runs.items()}
    rounds = len(runs[LOCAL])
    columns = [heading for case in runs for heading in (f"{case}, ms", "share")]
    printed = table(f"A notebook of one cell through nbclient, medians of {rounds} rounds", "", *columns)
    for part in (*PARTS, TOTAL):
        cells = [(1000 * some[part], some[part] / some[TOTAL]) for some in medians.values()]
        printed.add_row(part, *(text for value, share in cells for text in (f"{value:.0f}", f"{share:.0%}")))
    console.print(printed)
    for case, some in medians.items():
        fixed = sum(some[part] for part in FIXED)
        console.print(
            f"{case}: waits of fixed length {1000 * fixed:.0f} ms, all else {1000 * (some[TOTAL] - fixed):.0f} ms"
        )


def main() -> int:
    arguments = parser("Time of a notebook of one cell through nbclient.", "notebook.json", 20).parse_args()
    engine, info = asyncio.run(engines.choose(arguments.engine))
    os.environ["CONTAINER_KERNELS_ENGINE"] = engine.name
    console = screen()
    runs: dict[str, list[Times]] = {LOCAL: [], WARM: []}
    misses: list[str] = []
    with pool("container-python", 1) as source:
        measure: dict[str, Callable[[], Times]] = {LOCAL: run_local, WARM: lambda: run_warm(source, engine.name)}
        for number in track(range(arguments.rounds + 1), "Measuring", console=console, transient=True):
            cases = list(measure)
            random.Random(number).shuffle(cases)  # noqa: S311 # no secret
            for case in cases:
                try:
                    times = measure[case]()
                except Miss as miss:
                    misses.append(str(miss))
                else:
                    runs[case] += [times] if number else []  # the first round does not count
    print_results(console, runs)
    samples = {case: [times[TOTAL] for times in some] for case, some in runs.items()}
    judged = [Target(WARM, 1, LOCAL).verdict(samples), no_misses(console, misses)]
    print_verdicts(console, judged)
    parts = {case: by_part(some) for case, some in runs.items()}
    write(console, arguments, info, samples, judged, median_s_by_part=parts, runs_s=runs, misses=misses)
    return exit_status(arguments, judged)


if __name__ == "__main__":
    sys.exit(main())
