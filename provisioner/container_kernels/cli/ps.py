"""`ps`: the containers of kernels, and what they use."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from typing import Any

from ..engines import ENGINES
from ..engines.protocol import NAME_PREFIX
from ..guest.wire import size_text
from ..inventory import Container, containers
from .output import age, print_json, print_table

NAME = "ps"
HELP = "List the containers of kernels, with what they use."

SHOWN = 12  # characters of a kernel's id: enough for `logs` and `stop`


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Those of this engine; default: of all that work.")
    parser.add_argument("--json", action="store_true", help="Print JSON; memory is in bytes, cpu in percent of a core.")


async def run(arguments: argparse.Namespace) -> int:
    found = await containers(arguments.engine, with_usage=True)
    if arguments.json:
        print_json([as_json(container) for container in found])
    elif not found:
        print("No kernel runs in a container.")
    else:
        columns = ("KERNEL", "ENGINE", "IMAGE", "AGE", "STATUS", "CPU", "MEMORY", "PIDS")
        now = datetime.now(timezone.utc)
        print_table(columns, [as_row(container, now) for container in found], right=("CPU", "PIDS"))
    return 0


def as_json(container: Container) -> dict[str, Any]:
    state, usage = container.state, container.usage
    return {
        "kernel_id": container.kernel_id,
        "warm": container.is_warm,
        "name": state.name,
        "engine": container.engine.name,
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
    return (_kernel(container), container.engine.name, state.image, lived, state.status, *of_usage)


def _kernel(container: Container) -> str:
    """What `logs` and `stop` take; a warm container is no kernel's yet."""
    name = container.name.removeprefix(NAME_PREFIX)
    return f"warm {name}" if container.is_warm else container.kernel_id[:SHOWN] or container.name
