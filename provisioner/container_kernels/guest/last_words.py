"""A dead kernel's last words: the reply that its running cell is waiting for, sent from the kernel's own sockets.

Clients wait for an `execute_reply` that will not come. Most of them raise a bare "Kernel died" some time later
(nbclient: a fixed text); an `error` on the kernel's own channels is what every client shows, and headless runs raise.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict

from .running import RunningCell

PATIENCE = 1.2  # seconds for the clients to come back: ZeroMQ reconnects after 100 ms


def say(connection_file: str, cell: RunningCell, reason: str) -> bool:
    """The running cell's client has been told `reason`; False if it did not come back in time."""
    import zmq
    from jupyter_client.session import Session

    with open(connection_file) as file:  # imports are time here
        connection = json.load(file)
    session = Session(key=connection["key"].encode(), signature_scheme=connection["signature_scheme"])
    context = zmq.Context()
    shell = _bound(context, zmq.ROUTER, connection, "shell_port")
    shell.router_mandatory = True
    iopub = _bound(context, zmq.XPUB, connection, "iopub_port")
    try:
        deadline = time.monotonic() + PATIENCE
        if not iopub.poll(1000 * PATIENCE):  # the first subscription
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


def _bound(context: Any, kind: int, connection: Dict[str, Any], port: str) -> Any:
    socket = context.socket(kind)
    if "curve_secretkey" in connection:
        socket.curve_secretkey = connection["curve_secretkey"].encode()
        socket.curve_publickey = connection["curve_publickey"].encode()
        socket.curve_server = True
    socket.bind(f"tcp://{connection['ip']}:{connection[port]}")
    return socket
