"""The one client of all measurements: it connects, sends a cell at once, and waits for the kernel's reply."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zmq
from jupyter_client.session import Session

PATIENCE = 60.0  # seconds for a first reply
CELL = "1 + 1"

Connection = Mapping[str, Any]


def first_reply(connection: Connection, reconnect: int, code: str = CELL, expression: str = "None") -> str:
    """The kernel has executed `code` for a client that connected just now; returned is the `expression`, in Python's notation.

    A refused connection is tried again after `reconnect` milliseconds. ZeroMQ's own 100 would round up whatever starts in less.
    """
    session = Session(key=as_bytes(connection["key"]), signature_scheme=connection["signature_scheme"])
    with _connected(connection, reconnect) as shell:
        request = session.send(shell, "execute_request", _cell(code, expression)) or {}
        content = _reply(session, shell, request["msg_id"])
    if content["status"] != "ok":
        raise RuntimeError(f"the cell failed: {content.get('ename')}: {content.get('evalue')}")
    return str(content["user_expressions"]["it"]["data"]["text/plain"])


def _reply(session: Session, shell: zmq.Socket[bytes], request: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while shell.poll(max(0, int(1000 * (deadline - time.monotonic())))):
        reply = session.recv(shell)[1] or {}
        if reply["parent_header"].get("msg_id") == request:
            return dict(reply["content"])
    raise TimeoutError(f"no reply within {PATIENCE:g} seconds")


@contextmanager
def _connected(connection: Connection, reconnect: int) -> Iterator[zmq.Socket[bytes]]:
    """The shell socket. A subscribed iopub socket stands beside it, as every client has one; CurveZMQ where the kernel speaks it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = []
    try:
        for kind, port in ((zmq.DEALER, "shell_port"), (zmq.SUB, "iopub_port")):
            socket = context.socket(kind)
            sockets.append(socket)
            socket.reconnect_ivl = reconnect
            if kind == zmq.SUB:
                socket.subscribe(b"")
            _encrypt(socket, connection)
            socket.connect(f"tcp://{connection['ip']}:{connection[port]}")
        yield sockets[0]
    finally:
        context.destroy(linger=0)


def _encrypt(socket: zmq.Socket[bytes], connection: Connection) -> None:
    if server_key := connection.get("curve_publickey"):
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = as_bytes(server_key)


def _cell(code: str, expression: str) -> dict[str, Any]:
    expressions = {"it": expression}
    return {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": expressions,
        "allow_stdin": False,
    }


def as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
