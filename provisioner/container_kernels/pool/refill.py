"""After a start, somebody fills the pool: the keeper that runs, or else a helper that outlives this process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping

from .. import command
from ..errors import ContainerKernelError
from .decision import SETTLE
from .keeping import keeper_lock
from .ledger import Ledger


class Refill:
    """One per process: after starts that follow each other closely the pool is filled once; nobody waits for it, not the process's end."""

    def __init__(self) -> None:
        self._forget()
        atexit.register(self.now)
        os.register_at_fork(after_in_child=self._forget)  # a timer's thread is not forked

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._wants: list[Callable[[], bool]] = []
        self._start: Callable[[], int | None] | None = None
        self._timer: threading.Timer | None = None

    def soon(self, want: Callable[[], bool], start: Callable[[], int | None]) -> None:
        """When the kernel's first cell is running, it is noted what is wanted, and a helper is started if that gives it something to do.
        Returns at once."""
        with self._lock:
            self._wants.append(want)
            self._start = start
            if self._timer is None:
                timer = threading.Timer(SETTLE, self._when_settled)
                timer.daemon = True
                with contextlib.suppress(RuntimeError):  # no thread is left, or Python ends: then at the process's end
                    timer.start()
                    self._timer = timer

    def _when_settled(self) -> None:
        pid = self.now()
        if pid is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def now(self) -> int | None:
        """The helper's pid, if one was started for what is pending."""
        with self._lock:
            wants, start = self._wants, self._start
            self._wants, self._start, self._timer = [], None, None
        changed = [want() for want in wants]
        return start() if start is not None and any(changed) else None


def start_helper(ledger: Ledger, environ: Mapping[str, str], budget: int | None, log: logging.Logger) -> int | None:
    """Its pid; None where there is a keeper, and where it cannot be started, which the log tells."""
    try:
        if ledger.is_locked(keeper_lock(environ)):
            return None
        limit = [] if budget is None else [str(budget)]
        return command.detached([sys.executable, "-m", "container_kernels.pool", *limit], environ)
    except (ContainerKernelError, OSError, TypeError, ValueError) as error:  # a Python may not know its own path
        log.warning("The pool is not filled: %s", error)
        return None


refill = Refill()
