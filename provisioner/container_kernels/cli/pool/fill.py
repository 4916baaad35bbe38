"""`pool fill`: what is wanted is made now, while a person waits."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines import ENGINES
from ...errors import ContainerKernelError, EngineUnavailable, SpecError, WorkdirError
from ..output import print_json
from .status import JSON_HELP, as_json, look

if TYPE_CHECKING:
    from ...kernelspecs import Kernelspec
    from ...pool.asking import Report
    from ...pool.ledger import Wanted

NAME = "fill"
HELP = "Make now what is wanted and not warm."

Asked = list[tuple["Wanted", "int | None"]]  # each with the memory budget that counts for it


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP} That is what kernels have asked for lately, or with --kernel, what such a kernel would take. "
        "The exit status is 0 when all of it is warm."
    )
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="For kernels of this kernelspec; may be repeated. Default: for those that were started lately.",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="With --kernel: for kernels that start in this directory, without a server; default: the current one.",
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), help="In this engine; default: as the kernels choose.")
    parser.add_argument("--json", action="store_true", help=f"Tell what was asked for, as `status` does. {JSON_HELP}")


async def run(arguments: argparse.Namespace) -> int:
    """All that was asked for is tried; then the first error is told."""
    from ...config import host_environment
    from ...pool.asking import fill_now
    from ...pool.ledger import Ledger

    ledger, log, errors = Ledger.of_this_user(), logging.getLogger(__name__), []
    asked = await _asked(arguments)
    with _progress([wanted for wanted, _ in asked], on_stderr=arguments.json) as report_of:
        for wanted, budget in asked:
            try:
                await fill_now(ledger, wanted, host_environment(), budget, log, report_of(wanted))
            except ContainerKernelError as error:
                errors.append(error)
    await _tell({wanted.key for wanted, _ in asked}, json=arguments.json)
    if errors:
        raise errors[0]
    return 0


# -- What is asked for


async def _asked(arguments: argparse.Namespace) -> Asked:
    from ...config import host_environment, read_spec
    from ...pool.asking import remembered
    from ...pool.ledger import Ledger

    if arguments.kernel:
        kernelspecs = [_kernelspec(name) for name in dict.fromkeys(arguments.kernel)]
        directory = _directory(arguments.directory)
        return [await _wish(each, directory, arguments.engine) for each in kernelspecs]
    if arguments.directory is not None:
        raise SpecError("--directory says where a kernel starts, and no kernel is named.", hint="Add --kernel NAME.")
    budget = read_spec({}, {}).pool_memory_budget
    return [(each, budget) for each in remembered(Ledger.of_this_user(), host_environment(), arguments.engine)]


def _kernelspec(name: str) -> Kernelspec:
    from ... import kernelspecs

    for each in kernelspecs.installed():
        if each.name == name.lower():
            return each
    raise SpecError(
        f"Jupyter has no kernelspec {name!r} of container-kernels.",
        hint="`jupyter kernelspec list` shows all that it has.",
    )


def _directory(given: Path | None) -> str:
    try:
        return os.path.abspath(given or Path.cwd())
    except FileNotFoundError:
        raise WorkdirError("The working directory does not exist any more.", hint="Change to another.") from None


async def _wish(kernelspec: Kernelspec, directory: str, engine: str | None) -> tuple[Wanted, int | None]:
    from ...config import read_spec
    from ...pool.asking import encrypts, wish
    from ...pool.ledger import Ledger

    traits = await _engine_trait(kernelspec, engine)
    spec, ledger = read_spec(kernelspec.config, traits), Ledger.of_this_user()
    wanted = await wish(ledger, kernelspec.config, traits, cwd=directory, root=None, encrypts=encrypts())
    if wanted is None:
        raise SpecError(
            f"pool_size is 0 for {kernelspec.name!r}: no container of it is kept warm.",
            hint=f'Set "pool_size": 1 in {kernelspec.directory / "kernel.json"}, or CONTAINER_KERNELS_POOL_SIZE=1 for all kernels.',
        )
    return wanted, spec.pool_memory_budget


async def _engine_trait(kernelspec: Kernelspec, engine: str | None) -> dict[str, str]:
    """What --engine adds to the settings: nothing where such a kernel takes that engine anyway, since it will not ask for it by name."""
    from ...config import read_spec
    from ...engines import choose

    if engine is None:
        return {}
    spec = read_spec(kernelspec.config, {})
    try:
        chosen, _ = await choose(spec.engine, require_vm=spec.require_vm)
        if chosen.name == engine:
            return {}
    except EngineUnavailable:
        pass
    if read_spec(kernelspec.config, {"engine": engine}).engine != engine:
        raise SpecError(
            f"The variable CONTAINER_KERNELS_ENGINE is stronger than --engine {engine}.", hint="Change it, or unset it."
        )
    return {"engine": engine}


# -- What is told


@contextmanager
def _progress(some: Sequence[Wanted], *, on_stderr: bool) -> Iterator[Callable[[Wanted], Report]]:
    """Gives the report for what is wanted; a terminal shows a bar for each."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=on_stderr)
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[doing]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {}
        for each in some:
            what = escape(f"{each.recipe.engine} {each.recipe.request.image}")
            tasks[each.key] = progress.add_task(what, total=each.size, doing="", start=False)

        def report_of(wanted: Wanted) -> Report:
            task = tasks[wanted.key]
            progress.start_task(task)
            return lambda warm, doing: progress.update(task, completed=warm, doing=doing)

        yield report_of


async def _tell(keys: set[str], *, json: bool) -> None:
    found = [each for each in (await look()).recipes if each.key in keys]
    if json:
        print_json([as_json(each, time.time()) for each in found])
        return
    for each in found:
        where = f" for {', '.join(each.directories)}" if each.directories else ""
        print(f"{each.engine} {each.image}{where}: {len(each.warm)} of {each.size} warm.")
    if not keys:
        print("Nothing is wanted: no kernel with pool_size was started yet. Name one by --kernel.")
