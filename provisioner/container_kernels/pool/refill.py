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
    """One per process: starts that follow each other closely are filled after together, and the process's end is waited for by nobody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: Callable[[], int | None] | None = None
        self._timer: threading.Timer | None = None
        atexit.register(self._at_exit)

    def soon(self, ledger: Ledger, environ: Mapping[str, str], budget: int | None, log: logging.Logger) -> None:
        """A helper is started when the kernel's first cell runs, unless a keeper is there. Returns at once."""
        with self._lock:
            self._pending = lambda: start_helper(ledger, environ, budget, log)
            if self._timer is None:
                self._timer = threading.Timer(SETTLE, self._start)
                self._timer.daemon = True
                self._timer.start()

    def _take(self) -> Callable[[], int | None] | None:
        with self._lock:
            pending, self._pending, self._timer = self._pending, None, None
        return pending

    def _start(self) -> None:
        pending = self._take()
        if pending is not None and (pid := pending()) is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _at_exit(self) -> None:
        pending = self._take()
        if pending is not None:
            pending()


def start_helper(ledger: Ledger, environ: Mapping[str, str], budget: int | None, log: logging.Logger) -> int | None:
    """Its pid; None where there is a keeper, and where it cannot be started, which the log tells."""
    try:
        with ledger.lock(keeper_lock(environ)) as nobody:
            if not nobody:
                return None
        limit = [] if budget is None else [str(budget)]
        return command.detached([sys.executable, "-m", "container_kernels.pool", *limit], environ)
    except (ContainerKernelError, OSError) as error:
        log.warning("The pool is not filled: %s", error)
        return None


refill = Refill()
