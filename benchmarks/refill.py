"""Whether a pool that refills disturbs the kernel that was just taken from it: its first cell, with and without.

    python benchmarks/refill.py [--rounds 10] [--engine docker] [--seconds 2 6] [--check]

The cell is a loop of fixed work that takes so many seconds when nothing else runs. A refill begins two seconds after a start: so the
shorter loop shows what most people's first cell meets, and the longer one a refill from its begin to its end. How long the loop and the
making of a container overlapped is measured, not assumed. Without a refill: another process seems to keep the pool, and does nothing.
Writes all samples to benchmarks/results/refill.json.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from containers import contained
from kernels import QUIET
from pools import Miss, Pool, pool
from report import Target, exit_status, milliseconds, no_misses, parser, print_verdicts, screen, table, write
from rich.console import Console
from rich.progress import track

from container_kernels import engines

LOOP = "x = 0\nfor i in range({count}): x += i * i % 7"
PROBE = 2_000_000  # iterations whose time says how many make up a second
GLANCE = 0.05  # seconds between looks at whether a container is being made


class Bench:
    """`samples` and `overlaps` are in seconds, by case."""

    def __init__(self, engine: str, reconnect: int) -> None:
        self.engine = engine
        self.reconnect = reconnect
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.overlaps: dict[str, list[float]] = defaultdict(list)
        self.misses: list[str] = []

    def iterations(self, source: Pool) -> float:
        """What the loop does in a second, in a kernel that has nothing else to do."""
        with source.at_rest(), contained(source.kernel_name, self.engine, self.reconnect) as kernel:
            kernel.start()
            kernel.settle()
            return PROBE / min(kernel.run(LOOP.format(count=PROBE)) for _ in range(5))

    def measure(self, case: str, source: Pool, count: int) -> None:
        try:
            with source.at_rest(), contained(source.kernel_name, self.engine, self.reconnect) as kernel:
                kernel.manager.start_kernel(**QUIET)
                source.check(kernel.is_warm)
                with watched(source) as looks:
                    seconds = kernel.run(LOOP.format(count=count))
        except Miss as miss:
            self.misses.append(str(miss))
        else:
            self.samples[case].append(seconds)
            self.overlaps[case].append(GLANCE * sum(looks))


@contextmanager
def watched(source: Pool) -> Iterator[list[bool]]:
    """Whether a container is being made for the pool, every GLANCE seconds."""
    looks: list[bool] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(GLANCE):
            looks.append(source.is_being_filled())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()


def without(seconds: float) -> str:
    return f"{seconds:g} s loop, no refill"


def refilling(seconds: float) -> str:
    return f"{seconds:g} s loop, refill"


def print_results(console: Console, bench: Bench, loops: list[float], rounds: int) -> None:
    title = f"The first cell of a kernel that was just claimed, {rounds} rounds"
    printed = table(title, "", "median ms", "p95", "from-to", "x no refill", "overlap, median s", "overlapped")
    for seconds in loops:
        reference = statistics.median(bench.samples[without(seconds)] or [float("nan")])
        for case in (without(seconds), refilling(seconds)):
            if times := bench.samples[case]:
                overlaps = bench.overlaps[case]
                ratio = f"{statistics.median(times) / reference:.2f}"
                some = f"{sum(overlap > 0 for overlap in overlaps)} of {len(overlaps)}"
                printed.add_row(case, *milliseconds(times), ratio, f"{statistics.median(overlaps):.1f}", some)
    console.print(printed)


def main() -> int:
    options = parser("The first cell of a kernel, while the pool refills and while it does not.", "refill.json", 10)
    options.add_argument("--seconds", type=float, nargs="+", default=[2.0, 6.0], help="what the loops take (2 6)")
    arguments = options.parse_args()
    engine, info = asyncio.run(engines.choose(arguments.engine))
    os.environ["CONTAINER_KERNELS_ENGINE"] = engine.name
    console = screen()
    bench = Bench(engine.name, arguments.reconnect)
    with pool("container-python", 1) as still, pool("container-python", 1, refills=True) as busy:
        speed = bench.iterations(still)
        for number in track(range(arguments.rounds), "Measuring", console=console, transient=True):
            cases = [
                (name(seconds), source, seconds)
                for seconds in arguments.seconds
                for name, source in ((without, still), (refilling, busy))
            ]
            random.Random(number).shuffle(cases)  # noqa: S311 # no secret
            for case, source, seconds in cases:
                bench.measure(case, source, round(speed * seconds))
    print_results(console, bench, arguments.seconds, arguments.rounds)
    judged = [Target(refilling(seconds), 1.1, without(seconds)).verdict(bench.samples) for seconds in arguments.seconds]
    judged.append(no_misses(console, bench.misses))
    print_verdicts(console, judged)
    write(
        console,
        arguments,
        info,
        bench.samples,
        judged,
        overlaps_s=bench.overlaps,
        misses=bench.misses,
        iterations_per_second=speed,
    )
    return exit_status(arguments, judged)


if __name__ == "__main__":
    sys.exit(main())
