"""A kernel that is all there but for what a claim sets, and waits for it: the template's end of it, and the kernel's own."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from fnmatch import fnmatchcase
from typing import Any, Dict, List, Optional

from . import wire

# Read when a kernel is initialised, or at the import of what it imports: these come too late for a parked one.
EARLY = ("HOME", "IPYTHON*", "JUPYTER_*", "MPL*", "PYTHON*", "XDG_*")
LEAVING = 2.0  # seconds for one that does not fit to leave its ports


class Parked:
    """The template's end. A parked kernel is used once, or sent away."""

    def __init__(self, orders: socket.socket, curve: str) -> None:
        self._orders = orders
        self._curve = curve
        self.pid = int(orders.recv(32) or 0)

    @property
    def lives(self) -> bool:
        """A parked kernel says nothing: what can be read is its end."""
        return not select.select([self._orders], [], [], 0)[0]

    def fits(self, start: wire.Message) -> bool:
        """Whether nothing that the start asks for comes too late."""
        return (
            not start["extra_arguments"]
            and not start["returning"]
            and start["curve"] == self._curve
            and all(os.environ.get(name) == value for name, value in start["environment"].items() if is_early(name))
        )

    def go(self, start: wire.Message) -> None:
        with contextlib.suppress(OSError):  # its death is seen by PID 1
            self._orders.sendall(wire.encode(start))
        self._orders.close()

    def leave(self) -> None:
        """It is gone, and its ports are free."""
        with contextlib.suppress(OSError):
            self._orders.shutdown(socket.SHUT_WR)
            select.select([self._orders], [], [], LEAVING)
        self._orders.close()

    def forget(self) -> None:
        """In a forked child: it is not the template that goes."""
        self._orders.close()


def is_early(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in EARLY)


class Orders:
    """The kernel's own end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.sendall(str(os.getpid()).encode())

    def wait(self) -> Optional[Dict[str, Any]]:
        """The start that this kernel is for; None when there is none."""
        decoder = wire.Decoder()
        heard: List[wire.Message] = []
        while not heard:
            data = self._socket.recv(1 << 16)
            if not data:
                return None
            heard = decoder.feed(data)
        self._socket.close()
        return heard[0]
