"""Whose process a container belongs to. Process ids are used again, so a start time goes with them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from . import command
from .errors import CommandTimeout

PROC = Path("/proc")

_labels: dict[int, str] = {}  # by pid: a fork is another process


async def this_process() -> str:
    """The label's value for a container of this process."""
    pid = os.getpid()
    if pid not in _labels:
        _labels[pid] = f"{pid}:{await started(pid)}:{platform.node()}"
    return _labels[pid]


async def is_gone(label: str) -> bool:
    """True when the label names a process of this host that runs no more; False when in doubt."""
    pid, _, rest = label.partition(":")
    start, _, host = rest.rpartition(":")
    if not pid.isdecimal() or host != platform.node():
        return False
    now = await started(int(pid))
    if now and start:
        return now != start
    return not _exists(int(pid))


async def started(pid: int) -> str:
    """When the process started, in the system's own words (Linux: ticks since boot, proc(5) field 22; else `ps`); empty when it does not
    run, and when that is not told."""
    if (PROC / "self" / "stat").exists():
        try:
            # The second field is a name in parentheses, which may hold anything.
            return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
        except OSError:
            return ""
    # Without the settings, two processes of one person would read two different times.
    argv = ["env", "LC_ALL=C", "TZ=UTC0", "ps", "-o", "lstart=", "-p", str(pid)]
    try:
        output = await command.run(argv, timeout=5)
    except CommandTimeout:
        return ""
    return "-".join(output.stdout.split()).replace(":", ".")


def _exists(pid: int) -> bool:
    """True when in doubt: with hidepid (proc(5)), /proc does not show what runs as another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
