"""`ps`: the containers of kernels, and what they use."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..engines import ENGINES
from ..engines.protocol import NAME_PREFIX
from ..guest.wire import size_text
from ..inventory import Container, containers, measured, why_weaker
from .output import age, console, print_json, table

if TYPE_CHECKING:
    from rich.table import Table

NAME = "ps"
HELP = "List the containers of kernels, with what they use."

SHOWN = 12  # characters of a kernel's id: enough for `logs` and `stop`
COLUMNS = ("KERNEL", "ENGINE", "ISOLATION", "IMAGE", "AGE", "STATUS", "CPU", "MEMORY", "PIDS")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Those of this engine; default: of all that work.")
    parser.add_argument("--no-usage", action="store_true", help="Do not measure what they use, which takes seconds.")
    parser.add_argument("--json", action="store_true", help="Print JSON; memory is in bytes, cpu in percent of a core.")


async def run(arguments: argparse.Namespace) -> int:
    found = await containers(arguments.engine)
    looks = _unmeasured(found) if arguments.no_usage or not found else measured(found)
    _, weaker = await asyncio.gather(_tell(found, looks, as_json=arguments.json), why_weaker(found))
    if weaker:
        print(f"No kernel here has a virtual machine of its own: {weaker}", file=sys.stderr)
    return 0


async def _unmeasured(found: list[Container]) -> AsyncIterator[list[Container]]:
    yield found


async def _tell(found: list[Container], looks: AsyncIterator[list[Container]], *, as_json: bool) -> None:
    """A terminal shows all that is known at once, and the rest when it is known."""
    screen = console()
    if screen.is_terminal and found and not as_json:
        from rich.live import Live

        with Live(_table(found), console=screen, auto_refresh=False) as live:
            async for found in looks:
                live.update(_table(found), refresh=True)
        return
    *_, found = [each async for each in looks]
    if as_json:
        print_json([container_as_json(container) for container in found])
    elif found:
        screen.print(_table(found))
    else:
        print("No kernel runs in a container.")


def _table(found: Sequence[Container]) -> Table:
    now = datetime.now(timezone.utc)
    return table(COLUMNS, [as_row(container, now) for container in found], right=("CPU", "PIDS"))


def container_as_json(container: Container) -> dict[str, Any]:
    state, usage = container.state, container.usage
    return {
        "kernel_id": container.kernel_id,
        "warm": container.is_warm,
        "name": state.name,
        "engine": container.engine.name,
        "isolation": container.engine.isolation,
        "image": state.image,
        "created": state.created.isoformat(),
        "running": state.running,
        "status": state.status,
        "cpu_percent": usage and usage.cpu_percent,
        "memory": usage and usage.memory,
        "memory_limit": usage and usage.memory_limit,
        "pids": usage and usage.pids,
    }


def as_row(container: Container, now: datetime) -> tuple[str, ...]:
    state, usage = container.state, container.usage
    of_usage = ("", "", "")
    if usage is not None:
        memory = f"{size_text(usage.memory)} of {size_text(usage.memory_limit)}"
        of_usage = (f"{usage.cpu_percent:.0f} %", memory, str(usage.pids))
    lived = age((now - state.created).total_seconds())
    engine = container.engine
    return (_kernel(container), engine.name, engine.isolation, state.image, lived, state.status, *of_usage)


def _kernel(container: Container) -> str:
    """What `logs` and `stop` take; a warm container is no kernel's yet."""
    name = container.name.removeprefix(NAME_PREFIX)
    return f"warm {name}" if container.is_warm else container.kernel_id[:SHOWN] or container.name
