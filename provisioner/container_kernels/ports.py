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
ARRIVAL = 0.1  # seconds: on loopback it takes some microseconds


@dataclass(frozen=True)
class Ports:
    """The published ports of one container, on the host's loopback. They are the kernel's for as long as its manager lives."""

    kernel: Mapping[str, int]
    supervisor: int

    @classmethod
    def choose(cls, wanted: Mapping[str, int] = {}) -> Ports:  # never changed
        """Free at this moment; those that are `wanted` by name (and not 0) are taken as they are."""
        number = len(wire.KERNEL_PORTS) + 1
        with contextlib.ExitStack() as held:
            free = []
            for attempt in range(2 * number):
                sock = held.enter_context(socket.socket())
                sock.bind((HOST, 0))
                if _leads_here(sock) or attempt >= number:
                    free.append(sock.getsockname()[1])
        supervisor, *others = free[:number]
        return cls(
            {name: wanted.get(name) or port for name, port in zip(wire.KERNEL_PORTS, others, strict=True)}, supervisor
        )

    @property
    def published(self) -> tuple[Port, ...]:
        kernel = [Port(self.kernel[name], guest) for name, guest in wire.KERNEL_PORTS.items()]
        return (*kernel, Port(self.supervisor, wire.SUPERVISOR_PORT))


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
