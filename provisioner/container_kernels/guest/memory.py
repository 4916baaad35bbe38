"""The container's memory limit, and how often it has killed: in cgroup v2, cgroup v1, or the kernel of a VM."""

from __future__ import annotations

from typing import Optional

_KILLS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/proc/vmstat",
)
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USAGES = (
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat"),
)
_UNLIMITED = 1 << 60  # cgroup v1 prints a number near 2**63


def kills() -> int:
    """How many processes have been killed for memory so far; 0 where nothing tells."""
    for path in _KILLS:
        for line in _read(path).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdigit():
                return int(value)
    return 0


def limit() -> Optional[int]:
    """In bytes; None where there is none."""
    for path in _LIMITS:
        text = _read(path).strip()
        if text.isdigit():
            return int(text) if int(text) < _UNLIMITED else None
    return None


def usage() -> int:
    """Bytes that the container holds, without the pages of files that can be dropped, as `docker stats` has it; 0 where nothing tells."""
    for current, statistics in _USAGES:
        text = _read(current).strip()
        if text.isdigit():
            fields = dict(line.split(" ", 1) for line in _read(statistics).splitlines() if " " in line)
            return max(0, int(text) - int(fields.get("total_inactive_file", fields.get("inactive_file", "0"))))
    return 0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
