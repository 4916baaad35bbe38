"""The template as PID 1 sees it: a child that is sent commands, and whose reports are read."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import Callable, List, Optional

from . import template, wire

OWN_DIRECTORY = os.path.dirname(os.path.dirname(__file__))


class TemplateProcess:
    """A running template; `reports` is readable when it has something to say, or has ended."""

    def __init__(self, pid: int, commands: socket.socket, reports: int) -> None:
        self.pid = pid
        self.reports = reports
        self._commands = commands
        self._decoder = wire.Decoder()

    def command(self, name: str, **fields: object) -> None:
        with contextlib.suppress(OSError):  # its death is seen elsewhere
            self._commands.sendall(wire.encode({"command": name, **fields}))

    def read(self) -> List[wire.Message]:
        """What it has reported since; a child of it may hold the pipe open when it has ended, so this does not wait."""
        try:
            data = os.read(self.reports, 1 << 16)
        except BlockingIOError:
            return []
        return self._decoder.feed(data)

    def close(self) -> None:
        self._commands.close()
        os.close(self.reports)


class Fork:
    """What a fork gave: in the parent the template, in the child what it is to do."""

    def __init__(self, parent: Optional[TemplateProcess], child: Optional[template.Main]) -> None:
        self.parent = parent
        self.child = child


def fork(preload: List[str], left_out: List[str], private: str, forget: Callable[[], None]) -> Fork:
    """A new template, in a child that has called `forget` to let go of what is PID 1's alone."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        for end in (reading, writing):
            os.close(end)
        for side in (ours, theirs):
            side.close()
        raise
    if pid:
        theirs.close()
        os.close(writing)
        os.set_blocking(reading, False)
        return Fork(TemplateProcess(pid, ours, reading), None)
    ours.close()
    os.close(reading)
    forget()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    sys.path[:] = [entry for entry in sys.path if entry != OWN_DIRECTORY]
    return Fork(None, lambda: template.main(theirs, template.Reports(writing), preload, left_out, private)())
