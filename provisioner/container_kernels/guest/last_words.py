"""A dead kernel's last words: the reply that its running cell is waiting for, sent from the kernel's own sockets.

Clients wait for an `execute_reply` that will not come. Most of them raise a bare "Kernel died" some time later
(nbclient: a fixed text); an `error` on the kernel's own channels is what every client shows, and headless runs raise.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict

from .running import RunningCell

PATIENCE = 2.0  # seconds for the clients to come back: ZeroMQ reconnects after 100 to 200 ms
OTHERS = 0.4  # of these, for all of them, once the first is here


def say(connection_file: str, cell: RunningCell, reason: str, listeners: int) -> bool:
    """The running cell's client has been told `reason`; False if it did not come back in time. `listeners` had heard the kernel."""
    import zmq
    from jupyter_client.session import Session

    with open(connection_file) as file:  # imports are time here
        connection = json.load(file)
    session = Session(key=connection["key"].encode(), signature_scheme=connection["signature_scheme"])
    context = zmq.Context()
    shell = _bound(context, zmq.ROUTER, connection, "shell_port")
    shell.router_mandatory = True
    iopub = _bound(context, zmq.XPUB, connection, "iopub_port")
    iopub.xpub_verboser = True
    try:
        deadline = time.monotonic() + PATIENCE
        if not _subscribed(iopub, listeners, deadline):
            return False
        content = {"ename": "KernelDied", "evalue": reason, "traceback": [f"KernelDied: {reason}"]}
        session.send(iopub, "error", content, parent=cell.header, ident=b"error")
        session.send(iopub, "status", {"execution_state": "idle"}, parent=cell.header, ident=b"status")
        reply = {"status": "error", "execution_count": 0, **content}
        while time.monotonic() < deadline:
            try:
                session.send(shell, "execute_reply", reply, parent=cell.header, ident=cell.identities)
                return True
            except zmq.ZMQError:  # the client's socket is not here yet
                shell.poll(20)
        return False
    finally:
        context.destroy(linger=500)


def _subscribed(iopub: Any, listeners: int, deadline: float) -> bool:
    """Whether anybody listens: all who did before, where they come back soon."""
    here = 0
    while here < max(1, listeners) and iopub.poll(1000 * max(0.0, deadline - time.monotonic())):
        if here == 0:
            deadline = min(deadline, time.monotonic() + OTHERS)
        here += 1 if iopub.recv()[:1] == b"\1" else -1
    return here > 0


def _bound(context: Any, kind: int, connection: Dict[str, Any], port: str) -> Any:
    socket = context.socket(kind)
    if "curve_secretkey" in connection:
        socket.curve_secretkey = connection["curve_secretkey"].encode()
        socket.curve_publickey = connection["curve_publickey"].encode()
        socket.curve_server = True
    socket.bind(f"tcp://{connection['ip']}:{connection[port]}")
    return socket
