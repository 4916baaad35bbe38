"""The connection to a container's supervisor, kept by one plain thread.

Jupyter calls a provisioner from several event loops and threads: so requests may come from any of them, answers are
`concurrent.futures.Future`s, and no asyncio object is kept. While the connection stands, the container's lease holds.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import GuestError, KernelStartError
from .guest import wire

CONNECTING = 2.0  # seconds for one attempt
RETRY = 0.01  # seconds between attempts: the supervisor is there within some tens of milliseconds
RECOVERY = 2.0  # seconds in which a lost connection may come back; the supervisor's grace is longer
REFUSED = 0.3  # seconds of refusals that are believed: the engine listens no more

Event = Callable[[wire.Message], None]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Address:
    """Where a supervisor is reached, and what it asks for."""

    host: str
    port: int
    token: str


class Control:
    """An authenticated connection, made anew when it breaks, for as long as the container answers.

    `on_event` gets the supervisor's events, and `on_lost` is called once, when it cannot be reached any more; both in the thread.
    """

    def __init__(self, address: Address, *, on_event: Event, on_lost: Callable[[], None], log: logging.Logger) -> None:
        self.address = address
        self._on_event = on_event
        self._on_lost = on_lost
        self._log = log
        self._leaving = threading.Event()
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._decoder = wire.Decoder()
        self._heard: list[wire.Message] = []  # of this connection, and not yet looked at
        self._ids = itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future[wire.Message]] = {}
        self.welcome: concurrent.futures.Future[bool] = unending()
        self._listens = False

    def open(self, deadline: float, *, listens: bool = False) -> concurrent.futures.Future[bool]:
        """Starts the thread; one that `listens` already is not waited for. The future is done when the supervisor has greeted and taken the token, and says whether a kernel runs;
        it fails with GuestError when it speaks otherwise, or has not greeted before `deadline` (of `time.monotonic`)."""
        self._listens = listens
        threading.Thread(target=self._keep, args=(deadline,), name="container-kernels control", daemon=True).start()
        return self.welcome

    def request(self, op: str, **fields: object) -> concurrent.futures.Future[wire.Message]:
        """The future holds the supervisor's answer; it fails with KernelStartError where the supervisor refuses, and with GuestError
        when the connection is lost first."""
        future: concurrent.futures.Future[wire.Message] = unending()
        with self._sending:
            if self._socket is None:
                future.set_exception(GuestError("The container does not answer any more."))
                return future
            number = next(self._ids)
            self._waiting[number] = future
            try:
                self._socket.sendall(wire.encode({"op": op, "id": number, **fields}))
            except OSError as error:
                del self._waiting[number]
                future.set_exception(GuestError(f"The container does not answer any more: {error}."))
        return future

    def ask_to_end(self) -> concurrent.futures.Future[wire.Message]:
        """The container is asked to end: its connection's end is then believed at once."""
        self._leaving.set()
        return self.request("end")

    def close(self) -> None:
        """The lease is given up: the container ends itself after its grace, unless it was asked to end before."""
        self._leaving.set()
        with self._sending:
            if self._socket is not None:
                # Wakes the thread, which closes it.
                self._shut(self._socket)

    @staticmethod
    def _shut(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    # -- The thread

    def _keep(self, deadline: float) -> None:
        try:
            while not self._leaving.is_set() and self._connect(deadline):
                self._read()
                deadline = time.monotonic() + RECOVERY
        finally:
            self._fail_waiting()
            if not self.welcome.done():
                self.welcome.set_exception(
                    GuestError("The container's supervisor did not greet in time.", hint=GREETING_HINT)
                )
            self._on_lost()

    def _connect(self, deadline: float) -> bool:
        """True when connected and welcome; False when it is not to be had."""
        refused_since: float | None = None
        while not self._leaving.is_set() and time.monotonic() < deadline:
            try:
                if self._introduce(deadline):
                    return True
                refused_since = None
            except wire.WireError as error:
                self._refuse(
                    GuestError(f"The container's supervisor is not to be understood: {error}.", hint=RESTART_HINT)
                )
                return False
            except ConnectionRefusedError:
                now = time.monotonic()
                refused_since = refused_since or now
                if self._listens and now - refused_since > REFUSED:
                    return False
            except OSError:
                pass
            self._leaving.wait(RETRY)
        return False

    def _refuse(self, error: GuestError) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(error)
        else:
            self._log.error("%s", error)

    def _introduce(self, deadline: float) -> bool:
        """False when the other end closed before it greeted: a port proxy whose container does not listen yet."""
        sock = socket.create_connection((self.address.host, self.address.port), CONNECTING)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._decoder, self._heard = wire.Decoder(wire.MAX_STRANGER), []
            greeting = self._next(sock, deadline)
            if greeting is None:
                sock.close()
                return False
            if greeting.get("protocol") != wire.PROTOCOL:
                raise wire.WireError(f"it speaks protocol {greeting.get('protocol')!r}, and the host {wire.PROTOCOL}")
            # The container may have gone, and its port be another program's, which would like to be told a token and a kernel's key.
            nonce = secrets.token_hex(16)
            sock.sendall(wire.encode({"op": "prove", "protocol": wire.PROTOCOL, "nonce": nonce}))
            answer = self._next(sock, deadline) or {}
            if not wire.proves(answer.get("proof"), self.address.token, nonce):
                raise wire.WireError("it is not the container that was made for us")
            sock.sendall(wire.encode({"op": "hello", "protocol": wire.PROTOCOL, "token": self.address.token}))
            answer = self._next(sock, deadline) or {}
            if answer.get("event") != "welcome":
                raise wire.WireError(f"it does not let us in: {answer.get('error')}")
        except BaseException:
            sock.close()
            raise
        self._decoder.limit = wire.MAX_MESSAGE
        sock.settimeout(None)
        with self._sending:
            if self._leaving.is_set():
                sock.close()
                return False
            self._socket = sock
        self._listens = True
        if not self.welcome.done():
            self.welcome.set_result(answer.get("kernel") is True)
        return True

    def _next(self, sock: socket.socket, deadline: float | None = None) -> wire.Message | None:
        """None when the other end has closed. Raises TimeoutError when the deadline passes, however slowly it goes on talking."""
        while not self._heard:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or self._leaving.is_set():
                    raise TimeoutError
                sock.settimeout(min(left, CONNECTING))
            data = sock.recv(1 << 16)
            if not data:
                return None
            self._heard = self._decoder.feed(data)
        return self._heard.pop(0)

    def _read(self) -> None:
        """Until the connection ends."""
        assert self._socket is not None
        sock = self._socket
        try:
            while (message := self._next(sock)) is not None:
                self._receive(message)
        except OSError:
            pass
        except wire.WireError as error:
            self._log.error("The container's supervisor is not to be understood: %s.", error)
            self._leaving.set()
        finally:
            with self._sending:
                self._socket = None
            sock.close()
            self._fail_waiting()

    def _receive(self, message: wire.Message) -> None:
        if "event" in message:
            self._on_event(message)
            return
        number = message.get("id")
        future = self._waiting.pop(number, None) if isinstance(number, int) else None
        if future is None:
            return
        error = message.get("error")
        if isinstance(error, dict):
            future.set_exception(KernelStartError(str(error.get("message")), kind=str(error.get("kind"))))
        else:
            future.set_result(message)

    def _fail_waiting(self) -> None:
        while self._waiting:
            _, future = self._waiting.popitem()
            future.set_exception(GuestError("The container ended before it answered."))


def unending() -> concurrent.futures.Future[Any]:
    """A future that nobody who waits for it can cancel."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    return future


async def outcome(future: concurrent.futures.Future[Answer], timeout: float) -> Answer:
    """The future's result, in whatever event loop this is. Raises TimeoutError (of asyncio) after `timeout` seconds."""
    return await asyncio.wait_for(asyncio.wrap_future(future), timeout)


GREETING_HINT = (
    "Raise startup_timeout, or give the container more cpu. A remote engine must publish its ports on this machine."
)
RESTART_HINT = "It belongs to another release of container-kernels: shut the kernel down and start it again."
