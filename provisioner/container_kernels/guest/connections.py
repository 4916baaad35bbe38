"""The supervisor's door: who connects, who has shown the token, and what they ask."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import Any, Callable, List, NamedTuple

from . import wire
from .timers import Timers

STRANGERS = 8  # connections that have not shown the token
INTRODUCTION = 10.0  # seconds for a stranger to show it


class Connection:
    """One host that is connected, known (it has shown the token) or not yet."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.socket = sock
        self.known = False
        self.decoder = wire.Decoder(wire.MAX_STRANGER)
        self.since = time.monotonic()

    def send(self, message: wire.Message) -> None:
        # Our messages are small, and a host that does not read them is no host.
        with contextlib.suppress(OSError):
            self.socket.send(wire.encode(message))


class Request(NamedTuple):
    """A known host's request, which waits for its answer."""

    connection: Connection
    message: wire.Message

    def answer(self, **fields: Any) -> None:
        self.connection.send({"id": self.message.get("id"), **fields})

    def refuse(self, kind: str, message: str) -> None:
        self.answer(error={"kind": kind, "message": message})


class Connections:
    """Everybody who is connected.

    `on_request` gets each request of a known host; `on_claim` is called when one becomes known, and says whether a kernel runs;
    `on_loss` is called when the last known one has gone.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        timers: Timers,
        token_digest: str,
        *,
        on_request: Callable[[Request], None],
        on_claim: Callable[[], bool],
        on_loss: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._timers = timers
        self._token_digest = token_digest
        self._on_request = on_request
        self._on_claim = on_claim
        self._on_loss = on_loss
        self._connections: List[Connection] = []
        self._sockets: List[socket.socket] = []
        self._untold: List[wire.Message] = []

    def listen(self) -> None:
        listener = socket.create_server(("", wire.SUPERVISOR_PORT), backlog=STRANGERS)
        listener.setblocking(False)
        self._sockets.append(listener)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def tell(self, message: wire.Message) -> None:
        """Every known host is sent the message; where there is none at this moment, the next one is."""
        known = [connection for connection in self._connections if connection.known]
        if not known:
            self._untold.append(message)
        for connection in known:
            connection.send(message)

    def forget(self) -> None:
        """In a forked child: nothing of them is held open."""
        for sock in (*self._sockets, *(connection.socket for connection in self._connections)):
            sock.close()

    def dismiss_strangers(self) -> None:
        """Those who had time enough to show the token are gone."""
        now = time.monotonic()
        for connection in self._strangers():
            if now - connection.since >= INTRODUCTION:
                self._drop(connection)
        if self._strangers():
            self._timers.set("strangers", INTRODUCTION)

    def _strangers(self) -> List[Connection]:
        return [connection for connection in self._connections if not connection.known]

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            connection = Connection(sock)
            strangers = self._strangers()
            if len(strangers) >= STRANGERS:
                self._drop(strangers[0])
            self._connections.append(connection)
            self._selector.register(sock, selectors.EVENT_READ, lambda _: self._receive(connection))
            self._timers.set("strangers", INTRODUCTION)
            connection.send({"event": "greeting", "protocol": wire.PROTOCOL})

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            for message in connection.decoder.feed(data):
                if connection.known:
                    self._on_request(Request(connection, message))
                else:
                    self._introduce(connection, message)
        except wire.WireError as error:
            connection.send({"error": {"kind": "protocol", "message": str(error)}})
            self._drop(connection)

    def _introduce(self, connection: Connection, message: wire.Message) -> None:
        if message.get("op") not in ("prove", "hello") or message.get("protocol") != wire.PROTOCOL:
            theirs = message.get("protocol")
            raise wire.WireError(f"this container speaks protocol {wire.PROTOCOL}, and the host {theirs!r}")
        if message["op"] == "prove":
            proof = wire.proof(self._token_digest, str(message.get("nonce")))
            connection.send({"event": "proof", "proof": proof})
            return
        if not wire.opens(message.get("token"), self._token_digest):
            raise wire.WireError("wrong token")
        connection.known = True
        connection.decoder.limit = wire.MAX_MESSAGE
        connection.send({"event": "welcome", "kernel": self._on_claim()})
        untold, self._untold = self._untold, []
        for late in untold:
            connection.send(late)

    def _drop(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.known and not any(other.known for other in self._connections):
            self._on_loss()
