"""The host's ports of a container: explicit, on loopback, chosen by us."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from .engines.protocol import Port
from .guest import wire

HOST = "127.0.0.1"
NUMBER = len(wire.KERNEL_PORTS) + 1  # of a container's ports
ROWS = 5  # tries at finding so many in a row
ARRIVAL = 0.1  # seconds: on loopback it takes some microseconds


@dataclass(frozen=True)
class Ports:
    """The published ports of one container, on the host's loopback. They are the kernel's for as long as its manager lives."""

    kernel: Mapping[str, int]
    supervisor: int

    @classmethod
    def choose(cls, wanted: Mapping[str, int] = {}) -> Ports:  # never changed
        """Free at this moment, and neighbours, if there are such; those that are `wanted` by name (and not 0) are taken as they are."""
        *others, supervisor = _free_neighbours(NUMBER) or _free(NUMBER)
        return cls(
            {name: wanted.get(name) or port for name, port in zip(wire.KERNEL_PORTS, others, strict=True)}, supervisor
        )

    @property
    def published(self) -> tuple[Port, ...]:
        kernel = [Port(self.kernel[name], guest) for name, guest in wire.KERNEL_PORTS.items()]
        return (*kernel, Port(self.supervisor, wire.SUPERVISOR_PORT))


def _free_neighbours(number: int) -> list[int]:
    """Ports in a row, which an engine may take as one range; empty where chance does not give any."""
    for _ in range(ROWS):
        with contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind((HOST, 0))
            row = [first]
            with contextlib.suppress(OSError, OverflowError):
                for port in range(first.getsockname()[1] + 1, first.getsockname()[1] + number):
                    row.append(held.enter_context(socket.socket()))
                    row[-1].bind((HOST, port))
                if all(map(_leads_here, row)):
                    return [sock.getsockname()[1] for sock in row]
    return []


def _free(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        free = []
        for attempt in range(2 * number):
            sock = held.enter_context(socket.socket())
            sock.bind((HOST, 0))
            if _leads_here(sock) or attempt >= number:
                free.append(sock.getsockname()[1])
    return free[:number]


def _leads_here(listener: socket.socket) -> bool:
    """Whether a connection to the port arrives: a rule for a container that is gone may still send it elsewhere, into the void (seen
    with Podman 4.3, which leaves rules behind when many containers start and end at once). Nothing of the attempt stays."""
    listener.listen(1)
    listener.settimeout(ARRIVAL)
    with socket.socket() as caller:
        caller.settimeout(ARRIVAL)
        caller.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # a reset: no TIME_WAIT holds the port
        try:
            caller.connect(listener.getsockname())
            arrived, address = listener.accept()
        except OSError:
            return False
        here = bool(address == caller.getsockname())
    arrived.close()
    return here
