"""Whose process a container belongs to. Process ids are used again, so a start time goes with them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from . import command


async def this_process() -> str:
    """The label's value for a container of this process."""
    return f"{os.getpid()}:{await started(os.getpid())}:{platform.node()}"


async def is_gone(label: str) -> bool:
    """True when the label names a process of this host that runs no more; False when in doubt."""
    pid, _, rest = label.partition(":")
    start, _, host = rest.rpartition(":")
    if not pid.isdigit() or host != platform.node():
        return False
    return await started(int(pid)) != start


async def started(pid: int) -> str:
    """When the process started, in the system's own words (Linux: ticks since boot, proc(5) field 22; else `ps`); empty when it does not run."""
    if Path("/proc/self/stat").exists():
        try:
            # The second field is a name in parentheses, which may hold anything.
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        except OSError:
            return ""
    output = await command.run(["ps", "-o", "lstart=", "-p", str(pid)], timeout=5)
    return "-".join(output.stdout.split()).replace(":", ".")
