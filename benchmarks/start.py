"""How long a kernel takes, from the start to its first reply: ours, a plain local one, and a bare `docker run`.

    python benchmarks/start.py [--rounds 10] [--engine docker] [--check]

Every round measures every case once, so that whatever else the machine does hits all alike. Prints medians with their ratios, and
writes all samples to benchmarks/results/start.json. With --check, the exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from kernels import bare_run, managed, wait_until_removed
from rich.console import Console
from rich.progress import track
from rich.table import Table

from container_kernels import engines
from container_kernels.config import read_spec
from container_kernels.engines.protocol import EngineInfo
from container_kernels.spec import Spec
from container_kernels.user import choose as choose_user

RESULTS = Path(__file__).parent / "results" / "start.json"

LOCAL = "local ipykernel"
LOCAL_RESTART = "local, restart"
LOCAL_RESTART_NOW = "local, restart now"
BARE = "bare {engine} run"
COLD = "container, cold"
FIRST = "container, first start"
RESTART = "container, restart"
RESTART_NOW = "container, restart now"
CASES = (LOCAL, LOCAL_RESTART, LOCAL_RESTART_NOW, BARE, COLD, FIRST, RESTART, RESTART_NOW)

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Target:
    """`case` takes at most `ratio` times what `reference` takes, by their medians."""

    case: str
    ratio: float
    reference: str


TARGETS = (Target(COLD, 1.15, BARE), Target(RESTART, 0.5, LOCAL), Target(RESTART_NOW, 0.5, LOCAL))


class Bench:
    """Measures one round after the other."""

    def __init__(self, engine: str, spec: Spec, user: str | None, reconnect: int) -> None:
        self.engine = engine
        self.spec = spec
        self.user = user
        self.reconnect = reconnect
        self.samples: Samples = defaultdict(list)

    def round(self, number: int) -> None:
        """Each case once, in an order of this round's own: what runs before may still have an effect."""
        steps: list[Callable[[], None]] = [self._local, self._bare, self._container, self._first_of_process]
        random.Random(number).shuffle(steps)  # noqa: S311 # no secret
        for step in steps:
            step()
            wait_until_removed(self.engine)

    def _local(self) -> None:
        with managed("python3", self.reconnect) as kernel:
            self.samples[LOCAL].append(kernel.start())
            self.samples[LOCAL_RESTART].append(kernel.restart())
            self.samples[LOCAL_RESTART_NOW].append(kernel.restart_now())

    def _bare(self) -> None:
        self.samples[BARE].append(bare_run(self.engine, self.spec, self.user, self.reconnect))

    def _container(self) -> None:
        with managed("container-python", self.reconnect) as kernel:
            self.samples[COLD].append(kernel.start())
            kernel.settle()
            self.samples[RESTART].append(kernel.restart())
            kernel.settle()
            self.samples[RESTART_NOW].append(kernel.restart_now())

    def _first_of_process(self) -> None:
        """A process asks the engine what it is before its first kernel."""
        engines.forget()
        with managed("container-python", self.reconnect) as kernel:
            self.samples[FIRST].append(kernel.start())


def verdict(samples: Mapping[str, list[float]], target: Target) -> tuple[float, bool]:
    ratio = statistics.median(samples[target.case]) / statistics.median(samples[target.reference])
    return ratio, ratio <= target.ratio


def print_results(console: Console, engine: str, samples: Mapping[str, list[float]]) -> None:
    local, bare = (statistics.median(samples[case]) for case in (LOCAL, BARE))
    rounds = len(samples[LOCAL])
    table = Table(title=f"Start to first reply, {rounds} rounds", title_justify="left")
    table.add_column("kernel")
    for heading in ("median ms", "from-to", "x local", f"x {engine} run"):
        table.add_column(heading, justify="right")
    for case in CASES:
        times = samples[case]
        median = statistics.median(times)
        cells = [f"{1000 * median:.0f}", f"{1000 * min(times):.0f}-{1000 * max(times):.0f}"]
        table.add_row(case.format(engine=engine), *cells, f"{median / local:.2f}", f"{median / bare:.2f}")
    console.print(table)
    for target in TARGETS:
        ratio, kept = verdict(samples, target)
        word = "[green]kept[/]  " if kept else "[red]missed[/]"
        console.print(
            f"{word} {target.case}: {ratio:.2f} x {target.reference.format(engine=engine)} (target: {target.ratio:g})"
        )


def document(info: EngineInfo, reconnect: int, samples: Mapping[str, list[float]]) -> dict[str, Any]:
    return {
        "machine": {"system": platform.platform(), "cpu": processor(), "cpus": os.cpu_count()},
        "engine": {"name": info.engine, "version": info.version, "description": info.description},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("container-kernels", "jupyter_client", "ipykernel", "pyzmq")},
        },
        "reconnect_ms": reconnect,
        "targets": [
            {
                "case": target.case,
                "reference": target.reference.format(engine=info.engine),
                "at_most": target.ratio,
                "ratio": round(verdict(samples, target)[0], 3),
            }
            for target in TARGETS
        ],
        "median_s": {case.format(engine=info.engine): statistics.median(samples[case]) for case in CASES},
        "samples_s": {case.format(engine=info.engine): samples[case] for case in CASES},
    }


def processor() -> str:
    """The model's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        said = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return said.stdout.strip() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> int:
    parser = argparse.ArgumentParser(description="Time from the start of a kernel to its first reply.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--engine", help="docker or podman; the first that works, if left out")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--reconnect", type=int, default=10, metavar="MS", help="pause of a refused client (10)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    engine, info = asyncio.run(engines.choose(arguments.engine))
    os.environ["CONTAINER_KERNELS_ENGINE"] = engine.name
    stanza = KernelSpecManager().get_kernel_spec("container-python").metadata["kernel_provisioner"]["config"]
    spec = read_spec(stanza, {})
    bench = Bench(engine.name, spec, choose_user(spec, info).uid_gid, arguments.reconnect)
    console = Console()
    for number in track(range(arguments.rounds), "Measuring", console=console, transient=True):
        bench.round(number)
    print_results(console, engine.name, bench.samples)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document(info, arguments.reconnect, bench.samples), indent=1) + "\n")
    console.print(f"All samples: {arguments.output}")
    missed = [target for target in TARGETS if not verdict(bench.samples, target)[1]]
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
