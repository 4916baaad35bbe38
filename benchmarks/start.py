"""How long a kernel takes, from the start to its first reply: ours, warm and cold, a plain local one, a bare `docker run`, and others'.

    python benchmarks/start.py [--rounds 20] [--engine docker] [--check]

Every round measures every case once, in an order of its own, so that whatever else the machine does hits all alike; a first round does
not count. A warm start that found no warm container is counted as a miss, and is no sample. Prints medians and 95th percentiles with
their ratios, and writes all samples to benchmarks/results/start.json. With --check, the exit status is 1 if a target is missed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from clients import CELL
from containers import bare_run, contained
from jupyter_client.kernelspec import KernelSpecManager
from kernels import managed
from peers import PEERS, Peer, Unavailable, Worker, version, worker
from pools import Miss, Pool, PoolFailed, pool
from report import Samples, Target, Verdict, exit_status, milliseconds, parser, print_verdicts, screen, table, write
from rich.console import Console
from rich.progress import track

from container_kernels import engines
from container_kernels.config import read_spec
from container_kernels.engines.protocol import EngineInfo
from container_kernels.user import choose as choose_user

LOCAL = "local ipykernel"
LOCAL_RESTART = "local, restart"
LOCAL_RESTART_NOW = "local, restart now"
BARE = "bare {engine} run"
WARM = "container, warm"
COLD = "container, cold"
FIRST = "container, cold, first start of a process"
RESTART = "container, restart"
RESTART_NOW = "container, restart now"
CASES = (LOCAL, LOCAL_RESTART, LOCAL_RESTART_NOW, BARE, WARM, COLD, FIRST, RESTART, RESTART_NOW)

DATA_MODULES = ("numpy", "pandas", "matplotlib")
DATA_CELL = "import numpy, pandas, matplotlib.pyplot"
DATA_LOCAL = "local ipykernel, data"
DATA_WARM = "container-data, warm"
DATA_COLD = "container-data, cold"
DATA_CASES = (DATA_LOCAL, DATA_WARM, DATA_COLD)

TARGETS = (
    Target(WARM, 1 / 6, LOCAL),
    Target(WARM, 1 / 3, LOCAL, "p95"),
    Target(DATA_WARM, 1 / 10, DATA_LOCAL),
    Target(COLD, 1.15, BARE),
    Target(RESTART, 0.5, LOCAL),
    Target(RESTART_NOW, 0.5, LOCAL),
)


class Bench:
    """Measures one round after the other. `missing` tells why a case could not be measured, `failures` what went wrong on the way."""

    def __init__(self, engine: str, info: EngineInfo, reconnect: int) -> None:
        stanza = KernelSpecManager().get_kernel_spec("container-python").metadata["kernel_provisioner"]["config"]
        self.engine = engine
        self.spec = read_spec(stanza, {})
        self.user = choose_user(self.spec, info).uid_gid
        self.reconnect = reconnect
        self.bare = BARE.format(engine=engine)
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.missing: dict[str, str] = {}
        self.failures: dict[str, list[str]] = defaultdict(list)
        self.peers: dict[str, str] = {}
        self._held = ExitStack()
        self._steps: dict[str, Callable[[], None]] = {}

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Pools and peers are there, and every case has been started once."""
        with self._held:
            python, data = (self._held.enter_context(pool(f"container-{name}", 1)) for name in ("python", "data"))
            nothing = self._held.enter_context(pool("container-python", 0))
            self._steps = {
                LOCAL: self._local,
                self.bare: self._bare,
                COLD: lambda: self._cold(nothing),
                FIRST: lambda: self._first_of_process(nothing),
                WARM: lambda: self._warm(WARM, python, CELL),
                DATA_COLD: lambda: self._cold_data(nothing),
                DATA_WARM: lambda: self._warm(DATA_WARM, data, DATA_CELL),
            }
            self._prepare_local_data()
            for peer in PEERS:
                self._prepare_peer(peer)
            for case in list(self._steps):
                try:
                    self._steps[case]()
                except (Unavailable, PoolFailed, Miss) as error:
                    self._leave_out(case, str(error))
            self.samples.clear()
            yield

    def round(self, number: int) -> None:
        """Each case once, in an order of this round's own: what runs before may still have an effect."""
        cases = list(self._steps)
        random.Random(number).shuffle(cases)  # noqa: S311 # no secret
        for case in cases:
            try:
                self._steps[case]()
            except (Unavailable, PoolFailed, Miss) as error:
                self.failures[case].append(str(error))

    def _leave_out(self, case: str, reason: str) -> None:
        self.missing[case] = reason
        self._steps.pop(case, None)

    def _prepare_local_data(self) -> None:
        if lacking := [name for name in DATA_MODULES if importlib.util.find_spec(name) is None]:
            self._leave_out(DATA_LOCAL, f"this environment lacks {', '.join(lacking)}: `pip install --group bench`")
        else:
            self._steps[DATA_LOCAL] = self._local_data

    def _prepare_peer(self, peer: Peer) -> None:
        if self.engine != "docker":
            self.missing[peer.name] = "it knows no other engine than Docker"
            return
        try:
            started = self._held.enter_context(worker(peer, self.spec.image, self.reconnect))
            self.peers[peer.name] = version(peer)
        except Unavailable as error:
            self.missing[peer.name] = str(error)
        else:
            self._steps[peer.name] = lambda: self._peer(started)

    # -- The cases

    def _local(self) -> None:
        with managed("python3", self.reconnect) as kernel:
            self.samples[LOCAL].append(kernel.start())
            self.samples[LOCAL_RESTART].append(kernel.restart())
            self.samples[LOCAL_RESTART_NOW].append(kernel.restart_now())

    def _local_data(self) -> None:
        with managed("python3", self.reconnect) as kernel:
            self.samples[DATA_LOCAL].append(kernel.start(DATA_CELL))

    def _bare(self) -> None:
        self.samples[self.bare].append(bare_run(self.engine, self.spec, self.user, self.reconnect))

    def _cold(self, nothing: Pool) -> None:
        with nothing.in_use(), contained("container-python", self.engine, self.reconnect) as kernel:
            self.samples[COLD].append(kernel.start())
            kernel.settle()
            self.samples[RESTART].append(kernel.restart())
            kernel.settle()
            self.samples[RESTART_NOW].append(kernel.restart_now())

    def _first_of_process(self, nothing: Pool) -> None:
        """A process asks the engine what it is before its first kernel."""
        engines.forget()
        with nothing.in_use(), contained("container-python", self.engine, self.reconnect) as kernel:
            self.samples[FIRST].append(kernel.start())

    def _cold_data(self, nothing: Pool) -> None:
        with nothing.in_use(), contained("container-data", self.engine, self.reconnect) as kernel:
            self.samples[DATA_COLD].append(kernel.start(DATA_CELL))

    def _warm(self, case: str, source: Pool, cell: str) -> None:
        with source.at_rest(), contained(source.kernel_name, self.engine, self.reconnect) as kernel:
            seconds = kernel.start(cell)
            source.check(kernel.is_warm)
            self.samples[case].append(seconds)

    def _peer(self, started: Worker) -> None:
        self.samples[started.peer.name].append(started.start())


def print_results(console: Console, bench: Bench, rounds: int) -> None:
    cases = (*(bench.bare if case == BARE else case for case in CASES), *(peer.name for peer in PEERS))
    _print_table(console, f"Start to first reply, {rounds} rounds", bench, cases, (LOCAL, bench.bare))
    _print_table(console, f"The same, where the first cell is `{DATA_CELL}`", bench, DATA_CASES, (DATA_LOCAL,))
    for case, reason in bench.missing.items():
        console.print(f"Not measured: {case}: {reason}", style="yellow")
    for case, reasons in bench.failures.items():
        for reason in sorted(set(reasons)):
            console.print(f"{reasons.count(reason)} of {rounds} without a figure: {case}: {reason}", style="red")


def _print_table(
    console: Console, title: str, bench: Bench, cases: tuple[str, ...], references: tuple[str, ...]
) -> None:
    printed = table(title, "kernel", "median ms", "p95", "from-to", *(f"x {reference}" for reference in references))
    for case in cases:
        if times := bench.samples.get(case):
            printed.add_row(case, *milliseconds(times), *(_ratio(bench.samples, case, each) for each in references))
        elif case in bench.missing:
            printed.add_row(case, "not measured")
    console.print(printed)


def _ratio(samples: Samples, case: str, reference: str) -> str:
    if not samples.get(reference):
        return ""
    return f"{statistics.median(samples[case]) / statistics.median(samples[reference]):.2f}"


def verdicts(bench: Bench) -> list[Verdict]:
    """What became of the targets; a warm start that was not warm misses one of its own."""
    judged = []
    for target in TARGETS:
        reference = bench.bare if target.reference == BARE else target.reference
        judged.append(Target(target.case, target.ratio, reference, target.statistic).verdict(bench.samples))
    misses = sum(len(bench.failures.get(case, ())) for case in (WARM, DATA_WARM))
    return [*judged, Verdict("starts from the pool that have no figure", misses, 0)]


def main() -> int:
    arguments = parser("Time from the start of a kernel to its first reply.", "start.json", 20).parse_args()
    engine, info = asyncio.run(engines.choose(arguments.engine))
    os.environ["CONTAINER_KERNELS_ENGINE"] = engine.name
    console = screen()
    bench = Bench(engine.name, info, arguments.reconnect)
    measure(console, bench, arguments.rounds)
    judged = verdicts(bench)
    print_results(console, bench, arguments.rounds)
    print_verdicts(console, judged)
    more = {"peers": bench.peers, "missing": bench.missing, "failures": bench.failures}
    write(console, arguments, info, bench.samples, judged, **more)
    return exit_status(arguments, judged)


def measure(console: Console, bench: Bench, rounds: int) -> None:
    with ExitStack() as stack:
        with console.status("Making pools and environments, and a first round"):
            stack.enter_context(bench.prepared())
        for number in track(range(rounds), "Measuring", console=console, transient=True):
            bench.round(number)


if __name__ == "__main__":
    sys.exit(main())
