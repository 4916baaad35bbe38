"""The kernel as PID 1 sees it: a process of this moment, who waits for it, and how it ended."""

from __future__ import annotations

import os
import signal
from typing import Any, Dict, List, Optional

from . import memory, wire
from .connections import Request


class KernelProcess:
    """One that runs, or is about to."""

    def __init__(self, connection_file: str, request: Request) -> None:
        self.connection_file = connection_file
        self.request: Optional[Request] = request  # until its sockets are bound
        self.pid: Optional[int] = None
        self.kills = [memory.kills()] * 2  # at the last two samples: a kill is counted before its process is gone
        self.end_expected = False
        self.ending: Optional[wire.Ending] = None
        self.ends: List[Request] = []  # who waits for its end
        self.ports: List[int] = []  # of a foreign kernel, until they are bound
        self.fork: Dict[str, Any] = {}  # what the template is asked, until it has forked
        self.deaths = 0  # of templates that were asked
        self.complaint = ""

    def end_by(self, status: int) -> None:
        """Its ending, from the status of `waitpid`."""
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self.ending = wire.Ending(
            exit_code=None if killed else os.WEXITSTATUS(status),
            signal=killed,
            out_of_memory=killed == signal.SIGKILL and not self.end_expected and memory.kills() > self.kills[0],
            memory_limit=memory.limit(),
        )
