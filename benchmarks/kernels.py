"""Kernels that a kernel manager starts, by whichever provisioner their kernelspec names.

Imports nothing of ours: the same code measures other provisioners in environments of their own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clients import CELL, Connection, first_reply
from jupyter_client.manager import KernelManager

# Waits until the container's other processes have used no cpu for longer than the template waits with its rehearsal:
# a person restarts a kernel that has settled.
SETTLE = """
import os, time
from pathlib import Path
def ticks():
    pids = [p.name for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != os.getpid()]
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sorted(pids), sum(int(stat[11]) + int(stat[12]) for stat in stats)
quiet, last, deadline = time.monotonic(), None, time.monotonic() + 15
while time.monotonic() < min(quiet + 2.5, deadline):
    try:
        now = ticks()
    except OSError:
        now = None
    if now is None or now != last:
        quiet, last = time.monotonic(), now
    time.sleep(0.1)
"""

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass
class Measured:
    """A kernel manager's kernel; each method that measures returns the seconds from the call to the first reply."""

    manager: KernelManager
    reconnect: int

    def start(self, cell: str = CELL) -> float:
        return self._timed(lambda: self.manager.start_kernel(**QUIET), cell)

    def restart(self) -> float:
        return self._timed(self.manager.restart_kernel)

    def restart_now(self) -> float:
        return self._timed(lambda: self.manager.restart_kernel(now=True))

    def run(self, cell: str) -> float:
        """Of a kernel that runs."""
        return self._timed(lambda: None, cell)

    def settle(self) -> None:
        first_reply(self._connection, self.reconnect, SETTLE)

    @property
    def is_warm(self) -> bool:
        """Whether the kernel runs in a container of the pool."""
        return bool(getattr(self.manager.provisioner, "is_warm", False))

    @property
    def _connection(self) -> Connection:
        return self.manager.get_connection_info()

    def _timed(self, do: Callable[[], object], cell: str = CELL) -> float:
        begin = time.perf_counter()
        do()
        first_reply(self._connection, self.reconnect, cell)
        return time.perf_counter() - begin


@contextmanager
def managed(kernel_name: str, reconnect: int, *, now: bool = True) -> Iterator[Measured]:
    """A kernel of that kernelspec, not started yet. It ends with the context: at once, or when it has heard that it should."""
    manager = KernelManager(kernel_name=kernel_name)
    try:
        yield Measured(manager, reconnect)
    finally:
        if manager.has_kernel:
            manager.shutdown_kernel(now=now)
        manager.cleanup_resources()
