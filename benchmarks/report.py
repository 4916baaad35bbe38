"""What every benchmark tells in the same way: its options, times by case, targets, and the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from container_kernels.engines.protocol import EngineInfo

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("container-kernels", "jupyter_client", "ipykernel", "pyzmq")

Samples = Mapping[str, Sequence[float]]  # seconds, by case
Statistic = Literal["median", "p95"]


@dataclass(frozen=True)
class Target:
    """The `statistic` of `case` is at most `ratio` times the median of `reference`."""

    case: str
    ratio: float
    reference: str
    statistic: Statistic = "median"

    def verdict(self, samples: Samples) -> Verdict:
        what = f"{self.case}{', p95' if self.statistic == 'p95' else ''} / {self.reference}"
        if not samples.get(self.case) or not samples.get(self.reference):
            return Verdict(what, None, self.ratio)
        value = statistic(samples[self.case], self.statistic) / statistics.median(samples[self.reference])
        return Verdict(what, value, self.ratio)


@dataclass(frozen=True)
class Verdict:
    """What was measured of a target; `value` is None where that was not possible."""

    what: str
    value: float | None
    at_most: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        return self.value is not None and self.value <= self.at_most

    def __str__(self) -> str:
        measured = "not measured" if self.value is None else f"{self.value:.3g}{self.unit}"
        return f"{self.what}: {measured} (target: {self.at_most:.3g}{self.unit})"


def statistic(times: Sequence[float], name: Statistic) -> float:
    if name == "median" or len(times) < 2:
        return statistics.median(times)
    return statistics.quantiles(times, n=20, method="inclusive")[-1]


def parser(description: str, results: str, rounds: int) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    options.add_argument("--engine", help="docker or podman; the first that works, if left out")
    options.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    options.add_argument("--reconnect", type=int, default=10, metavar="MS", help="pause of a refused client (10)")
    options.add_argument(
        "--output", type=Path, default=RESULTS / results, help=f"default: benchmarks/results/{results}"
    )
    return options


def screen() -> Console:
    """Where people read; lines are cut to the width of a terminal only."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def print_verdicts(console: Console, verdicts: Iterable[Verdict]) -> None:
    for verdict in verdicts:
        console.print("[green]kept[/]  " if verdict.kept else "[red]missed[/]", str(verdict))


def no_misses(console: Console, reasons: Sequence[str]) -> Verdict:
    """That every start that was to be warm was; the reasons of those that were not are told."""
    for reason in sorted(set(reasons)):
        console.print(f"{reasons.count(reason)} starts have no figure: {reason}", style="red")
    return Verdict("starts from the pool that have no figure", len(reasons), 0)


def exit_status(arguments: argparse.Namespace, verdicts: Iterable[Verdict]) -> int:
    return 1 if arguments.check and not all(verdict.kept for verdict in verdicts) else 0


def table(title: str, *headings: str) -> Table:
    """The first column is text, the others are numbers."""
    made = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number else "left")
    return made


def milliseconds(times: Sequence[float]) -> list[str]:
    """Median, p95, and from the least to the most."""
    figures = (statistics.median(times), statistic(times, "p95"))
    return [*(f"{1000 * figure:.0f}" for figure in figures), f"{1000 * min(times):.0f}-{1000 * max(times):.0f}"]


def write(
    console: Console,
    arguments: argparse.Namespace,
    info: EngineInfo,
    samples: Samples,
    verdicts: Iterable[Verdict],
    **more: object,
) -> None:
    """All that was measured is in the file that the arguments name."""
    document = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "rounds": arguments.rounds,
        "machine": {"system": platform.platform(), "cpu": processor(), "cpus": os.cpu_count()},
        "engine": {"name": info.engine, "version": info.version, "description": info.description},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "reconnect_ms": arguments.reconnect,
        "targets": [{**asdict(verdict), "kept": verdict.kept} for verdict in verdicts],
        **more,
        "median_s": {case: statistics.median(times) for case, times in samples.items() if times},
        "p95_s": {case: statistic(times, "p95") for case, times in samples.items() if times},
        "samples_s": {case: list(times) for case, times in samples.items()},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"All samples: {arguments.output}")


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def processor() -> str:
    """The model's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        said = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return said.stdout.strip() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
