"""Thirty kernels at once, ten of them warm, against thirty plain local ones; and what a warm container takes of the memory.

    python benchmarks/burst.py [--rounds 3] [--engine docker] [--kernels 30] [--warm 10] [--check]

A burst ends with the last kernel's first reply. Each kernel tells the name of its host, so that two in one container are found.
Memory is what the engine says of the containers that wait in the pool. Writes all samples to benchmarks/results/burst.json.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from clients import CELL, first_reply
from containers import wait_until_removed
from jupyter_client.manager import AsyncKernelManager
from kernels import QUIET
from pools import Pool, pool
from report import Target, Verdict, exit_status, parser, print_verdicts, screen, table, write
from rich.console import Console
from rich.progress import track

from container_kernels import engines
from container_kernels.engines.protocol import Engine

LOCAL, POOLED = "local ipykernels", "kernels in containers"
HOST = "__import__('socket').gethostname()"
MIB = 1 << 20
MOST = {"container-python": 60 * MIB, "container-data": 120 * MIB}
DATA_CONTAINERS = 3  # measured; the burst is of the plain ones


@dataclass(frozen=True)
class Answer:
    """What came of one kernel: seconds since all were asked for, whether it was warm, and where it ran. `error` says why there is none."""

    seconds: float = 0.0
    warm: bool = False
    host: str = ""
    error: str = ""


@dataclass(frozen=True)
class Burst:
    """Kernels that were asked for at once."""

    answers: Sequence[Answer]

    @property
    def failed(self) -> list[str]:
        return [answer.error for answer in self.answers if answer.error]

    @property
    def seconds(self) -> float:
        """Until the last one answered."""
        return max(answer.seconds for answer in self.answers)

    @property
    def first(self) -> float:
        return min((answer.seconds for answer in self.answers if not answer.error), default=0.0)

    @property
    def warm(self) -> int:
        return sum(answer.warm for answer in self.answers)

    @property
    def shared(self) -> int:
        """Kernels that were not alone in their container."""
        hosts = [answer.host for answer in self.answers if not answer.error]
        return sum(hosts.count(host) > 1 for host in hosts)


async def burst(kernel_name: str, count: int, reconnect: int, engine: str) -> Burst:
    """All have answered, or failed, and are gone."""
    managers = [AsyncKernelManager(kernel_name=kernel_name) for _ in range(count)]
    threads = ThreadPoolExecutor(max_workers=count)
    begin = time.perf_counter()

    async def answer(manager: AsyncKernelManager) -> Answer:
        try:
            await manager.start_kernel(**QUIET)
            ask = asyncio.get_running_loop().run_in_executor
            host = await ask(threads, first_reply, manager.get_connection_info(), reconnect, CELL, HOST)
        except Exception as error:
            return Answer(error=f"{type(error).__name__}: {error}")
        return Answer(time.perf_counter() - begin, bool(getattr(manager.provisioner, "is_warm", False)), host)

    try:
        return Burst(await asyncio.gather(*(answer(manager) for manager in managers)))
    finally:
        threads.shutdown()
        names = await asyncio.gather(*(end(manager) for manager in managers))
        await asyncio.to_thread(wait_until_removed, engine, *(f"name={name}" for name in names if name))


async def end(manager: AsyncKernelManager) -> str | None:
    """The kernel is gone; the name of the container that it had."""
    name = None
    if manager.provisioner is not None:
        name = (await manager.provisioner.get_provisioner_info()).get("container", {}).get("name")
    if manager.has_kernel:
        await manager.shutdown_kernel(now=True)
    await manager.cleanup_resources()
    return name


def memory_of_each(engine: Engine, source: Pool) -> list[int]:
    """Bytes of each container of the pool, which is full then. The image's files are in memory before: who reads them first pays for
    them, as control groups count, for as long as they stay there."""
    source.fill()
    source.drain()
    source.fill()
    return asyncio.run(memory(engine, source.slots()))


async def memory(engine: Engine, names: Iterable[str]) -> list[int]:
    """Bytes of each of the containers, as the engine counts them."""
    used = {usage.name: usage.memory for usage in await engine.usage()}
    return [used[name] for name in names if name in used]


def measure(
    console: Console, rounds: int, count: int, source: Pool, reconnect: int, engine: Engine
) -> dict[str, list[Burst]]:
    """Bursts of both kinds, in turn; a smaller one of each comes first, and does not count."""
    bursts: dict[str, list[Burst]] = {LOCAL: [], POOLED: []}
    for number in track(range(rounds + 1), "Measuring", console=console, transient=True):
        kinds = list(bursts)
        random.Random(number).shuffle(kinds)  # noqa: S311 # no secret
        for kind in kinds:
            size = count if number else 2
            if kind == LOCAL:
                made = asyncio.run(burst("python3", size, reconnect, engine.name))
            else:
                with source.at_rest():
                    made = asyncio.run(burst(source.kernel_name, size, reconnect, engine.name))
            bursts[kind] += [made] if number else []
    return bursts


def print_bursts(console: Console, bursts: dict[str, list[Burst]], count: int) -> None:
    columns = ("last answer, s", "from-to", "first answer, s", "failed", "warm", "not alone")
    printed = table(f"{count} kernels at once, {len(bursts[LOCAL])} rounds", "", *columns)
    for kind, some in bursts.items():
        times = [each.seconds for each in some]
        alone = "" if kind == LOCAL else str(sum(each.shared for each in some))
        printed.add_row(
            kind,
            f"{statistics.median(times):.1f}",
            f"{min(times):.1f}-{max(times):.1f}",
            f"{statistics.median(each.first for each in some):.2f}",
            str(sum(len(each.failed) for each in some)),
            "" if kind == LOCAL else "-".join(str(f([each.warm for each in some])) for f in (min, max)),
            alone,
        )
    console.print(printed)
    for error in sorted({error for some in bursts.values() for each in some for error in each.failed}):
        console.print(f"Failed: {error}", style="red")


def print_memory(console: Console, used: dict[str, list[int]]) -> None:
    printed = table("Memory of a warm container, MiB", "kernelspec", "containers", "median", "most", "target")
    for name, some in used.items():
        figures = (statistics.median(some), max(some), MOST[name])
        printed.add_row(name, str(len(some)), *(f"{figure / MIB:.0f}" for figure in figures))
    console.print(printed)


def main() -> int:
    options = parser("Thirty kernels at once, and the memory of warm containers.", "burst.json", 3)
    options.add_argument("--kernels", type=int, default=30)
    options.add_argument("--warm", type=int, default=10)
    arguments = options.parse_args()
    engine, info = asyncio.run(engines.choose(arguments.engine))
    os.environ["CONTAINER_KERNELS_ENGINE"] = engine.name
    console = screen()
    used: dict[str, list[int]] = {}
    with pool("container-data", DATA_CONTAINERS) as data:
        used[data.kernel_name] = memory_of_each(engine, data)
    with pool("container-python", arguments.warm, refills=True) as python:
        used[python.kernel_name] = memory_of_each(engine, python)
        bursts = measure(console, arguments.rounds, arguments.kernels, python, arguments.reconnect, engine)
    print_bursts(console, bursts, arguments.kernels)
    print_memory(console, used)
    samples = {kind: [each.seconds for each in some] for kind, some in bursts.items()}
    ours = bursts[POOLED]
    judged = [
        Target(POOLED, 1.5, LOCAL).verdict(samples),
        Verdict("kernels that did not answer", sum(len(each.failed) for each in ours), 0),
        Verdict("kernels that were not alone in their container", sum(each.shared for each in ours), 0),
        *(
            Verdict(f"memory of a warm {name}", max(some) / MIB, MOST[name] / MIB, " MiB")
            for name, some in used.items()
        ),
    ]
    print_verdicts(console, judged)
    answers = {kind: [[vars(answer) for answer in each.answers] for each in some] for kind, some in bursts.items()}
    write(console, arguments, info, samples, judged, memory=used, answers=answers)
    return exit_status(arguments, judged)


if __name__ == "__main__":
    sys.exit(main())
