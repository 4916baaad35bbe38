"""The host's end of the connection, against a supervisor of the test's own that says exactly what it is told to."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from container_kernels import control
from container_kernels.control import Address, Control, outcome
from container_kernels.errors import GuestError, KernelStartError
from container_kernels.guest import wire

from ..conftest import eventually

TOKEN = "the token"
PATIENCE = 20.0  # seconds until a test gives up
GREETING: wire.Message = {"event": "greeting", "protocol": wire.PROTOCOL}


class Visit:
    """One connection of the host's."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.socket = sock
        self.decoder = wire.Decoder()
        self.inbox: list[wire.Message] = []

    def say(self, *messages: wire.Message) -> None:
        """In one piece."""
        self.socket.sendall(b"".join(map(wire.encode, messages)))

    def hear(self) -> wire.Message | None:
        """The next message; None at the end."""
        while not self.inbox:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.inbox += self.decoder.feed(data)
        return self.inbox.pop(0)

    def welcome(self, *, kernel: bool = False) -> None:
        """The whole introduction, to the letter."""
        self.say(GREETING)
        self.say(self.answer_hello(kernel=kernel))

    def answer_hello(self, *, kernel: bool = False) -> wire.Message:
        """What is to be said to the host's hello, which has come."""
        question = self.hear() or {}
        nonce = question.pop("nonce")
        assert question == {"op": "prove", "protocol": wire.PROTOCOL}
        self.say({"event": "proof", "proof": wire.proof(wire.digest(TOKEN), nonce)})
        assert self.hear() == {"op": "hello", "protocol": wire.PROTOCOL, "token": TOKEN}
        return {"event": "welcome", "kernel": kernel}

    def close(self) -> None:
        self.socket.close()


class Supervisor:
    """Listens on a port of the loopback."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(PATIENCE)
        self.port: int = self.listener.getsockname()[1]
        self.visits: list[Visit] = []

    def visit(self) -> Visit:
        self.visits.append(Visit(self.listener.accept()[0]))
        return self.visits[-1]

    def close(self) -> None:
        for visit in self.visits:
            visit.close()
        self.listener.close()


class Host:
    """A `Control`, and all that it has told."""

    def __init__(self, port: int, log: logging.Logger) -> None:
        self.events: queue.Queue[wire.Message] = queue.Queue()
        self.losses: queue.Queue[None] = queue.Queue()
        self.control = Control(
            Address("127.0.0.1", port, TOKEN), on_event=self.events.put, on_lost=lambda: self.losses.put(None), log=log
        )

    def open(self, seconds: float = PATIENCE) -> Future[bool]:
        return self.control.open(time.monotonic() + seconds)

    def is_lost(self) -> bool:
        """Once, and not again."""
        self.losses.get(timeout=PATIENCE)
        eventually(self._threads, lambda threads: not threads, timeout=PATIENCE)
        return self.losses.empty()

    @staticmethod
    def _threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "container-kernels control"]


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.close()


@pytest.fixture
def host(supervisor: Supervisor) -> Iterator[Host]:
    made = Host(supervisor.port, logging.getLogger("test"))
    yield made
    made.control.close()
    supervisor.close()
    assert eventually(made._threads, lambda threads: not threads, timeout=PATIENCE) == []


@pytest.fixture
def introduced(supervisor: Supervisor, host: Host) -> Visit:
    welcome = host.open()
    visit = supervisor.visit()
    visit.welcome()
    assert welcome.result(PATIENCE) is False
    return visit


# -- The introduction


def test_the_token_is_shown_to_one_that_greets(supervisor: Supervisor, host: Host) -> None:
    welcome = host.open()
    visit = supervisor.visit()
    assert not welcome.done()
    visit.welcome(kernel=True)
    assert welcome.result(PATIENCE) is True


def test_the_token_is_not_shown_before_the_greeting(supervisor: Supervisor, host: Host) -> None:
    host.open()
    visit = supervisor.visit()
    visit.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        visit.socket.recv(1)


def test_a_supervisor_that_listens_late(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, attempts = socket.create_connection, threading.Semaphore(0)

    def counted(*arguments: Any) -> socket.socket:
        attempts.release()
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", counted)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
    host = Host(port, logging.getLogger("test"))
    welcome = host.open()
    # Some attempts are refused; that is all that happens.
    assert all(attempts.acquire(timeout=PATIENCE) for _ in range(3))
    assert not welcome.done()
    supervisor = Supervisor(port)
    try:
        supervisor.visit().welcome()
        assert welcome.result(PATIENCE) is False
    finally:
        host.control.close()
        supervisor.close()
    assert host.is_lost()


def test_a_greeting_that_comes_late_and_in_pieces(
    supervisor: Supervisor, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CONNECTING", 0.2)
    welcome = host.open()
    silent = supervisor.visit()  # a proxy that accepts for a container that does not listen
    assert silent.hear() is None  # the host has given up on this connection, and tries another
    visit = supervisor.visit()
    data = wire.encode(GREETING)
    visit.socket.sendall(data[:7])
    visit.socket.sendall(data[7:])
    visit.say(visit.answer_hello())
    assert welcome.result(PATIENCE) is False


def test_a_proxy_that_accepts_and_closes_at_first(supervisor: Supervisor, host: Host) -> None:
    welcome = host.open()
    for _ in range(5):
        supervisor.visit().close()
    supervisor.visit().welcome()
    assert welcome.result(PATIENCE) is False


@pytest.mark.parametrize("protocol", [0, 2, None, "1", [1]])
def test_another_protocol_is_refused_and_the_token_not_shown(supervisor: Supervisor, host: Host, protocol: Any) -> None:
    welcome = host.open()
    visit = supervisor.visit()
    visit.say({"event": "greeting", "protocol": protocol})
    with pytest.raises(GuestError, match=f"it speaks protocol .*, and the host {wire.PROTOCOL}") as raised:
        welcome.result(PATIENCE)
    assert "another release" in raised.value.hint
    assert visit.hear() is None
    assert host.is_lost()


@pytest.mark.parametrize(
    "proof", [None, 1, "", "x", "ü", wire.proof(wire.digest("another"), "nonce"), wire.digest(TOKEN)]
)
def test_who_cannot_prove_to_be_the_container_is_told_nothing(supervisor: Supervisor, host: Host, proof: Any) -> None:
    """A program that has got hold of the port of a container that is gone, and knows the protocol."""
    welcome = host.open()
    visit = supervisor.visit()
    visit.say(GREETING)
    visit.hear()
    visit.say({"event": "proof", "proof": proof})
    with pytest.raises(GuestError, match="it is not the container that was made for us"):
        welcome.result(PATIENCE)
    assert visit.hear() is None


def test_a_token_that_is_not_taken(supervisor: Supervisor, host: Host) -> None:
    welcome = host.open()
    visit = supervisor.visit()
    visit.say(GREETING)
    visit.answer_hello()
    visit.say({"error": {"kind": "protocol", "message": "wrong token"}})
    with pytest.raises(GuestError, match="wrong token"):
        welcome.result(PATIENCE)
    assert host.is_lost()


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", b"x" * (wire.MAX_MESSAGE + 2)]
)
def test_another_service_on_the_port(supervisor: Supervisor, host: Host, data: bytes) -> None:
    welcome = host.open()
    visit = supervisor.visit()
    with contextlib.suppress(OSError):  # it may have heard enough
        visit.socket.sendall(data)
    with pytest.raises(GuestError, match="not to be understood"):
        welcome.result(PATIENCE)
    assert host.is_lost()


def test_one_that_never_greets(supervisor: Supervisor, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CONNECTING", 0.1)
    welcome = host.open(0.3)
    with pytest.raises(GuestError, match="did not greet in time"):
        welcome.result(PATIENCE)
    assert host.is_lost()


def test_closed_before_it_is_welcome(supervisor: Supervisor, host: Host) -> None:
    welcome = host.open()
    visit = supervisor.visit()
    host.control.close()
    visit.close()
    with pytest.raises(GuestError):
        welcome.result(PATIENCE)
    assert host.is_lost()


# -- Requests and events


def test_requests_are_answered_in_any_order(introduced: Visit, host: Host) -> None:
    first, second = host.control.request("start", cwd="/x"), host.control.request("kill")
    asked = [introduced.hear(), introduced.hear()]
    assert asked == [{"op": "start", "id": 1, "cwd": "/x"}, {"op": "kill", "id": 2}]
    introduced.say({"id": 2}, {"event": "ended", "exit_code": 0}, {"id": 1, "pid": 7})
    assert second.result(PATIENCE) == {"id": 2}
    assert first.result(PATIENCE) == {"id": 1, "pid": 7}
    assert host.events.get(timeout=PATIENCE) == {"event": "ended", "exit_code": 0}


def test_a_request_that_is_refused(introduced: Visit, host: Host) -> None:
    future = host.control.request("start")
    introduced.hear()
    introduced.say({"id": 1, "error": {"kind": "no-ipykernel", "message": "There is no ipykernel."}})
    with pytest.raises(KernelStartError, match="There is no ipykernel") as raised:
        future.result(PATIENCE)
    assert raised.value.kind == "no-ipykernel"


async def test_requests_from_several_threads_and_loops(introduced: Visit, host: Host) -> None:
    def answer() -> None:
        for _ in range(20):
            asked = introduced.hear()
            assert asked is not None
            introduced.say({"id": asked["id"], "echo": asked["n"]})

    answering = threading.Thread(target=answer)
    answering.start()
    results: list[int] = []

    def ask(n: int) -> None:
        results.append(host.control.request("x", n=n).result(PATIENCE)["echo"])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(19)]
    for thread in threads:
        thread.start()
    assert (await outcome(host.control.request("x", n=19), PATIENCE))["echo"] == 19
    for thread in (*threads, answering):
        thread.join(PATIENCE)
    assert sorted(results) == list(range(19))


@pytest.mark.parametrize(
    "odd", [{}, {"id": 99}, {"id": None}, {"id": []}, {"id": {}}, {"id": "1"}, {"error": 5, "id": 98}]
)
def test_answers_that_nobody_waits_for(introduced: Visit, host: Host, odd: wire.Message) -> None:
    future = host.control.request("kill")
    introduced.say(odd, {"id": 1})
    assert future.result(PATIENCE) == {"id": 1}


def test_what_comes_together_with_the_welcome_is_heard(supervisor: Supervisor, host: Host) -> None:
    welcome = host.open()
    visit = supervisor.visit()
    visit.say(GREETING)
    visit.say(visit.answer_hello(kernel=True), {"event": "ended", "signal": 9})
    assert welcome.result(PATIENCE) is True
    assert host.events.get(timeout=PATIENCE) == {"event": "ended", "signal": 9}


# -- Loss


def test_a_lost_connection_comes_back(supervisor: Supervisor, introduced: Visit, host: Host) -> None:
    waiting = host.control.request("start")
    introduced.hear()
    introduced.close()
    with pytest.raises(GuestError, match="ended before it answered"):
        waiting.result(PATIENCE)
    again = supervisor.visit()
    again.welcome(kernel=True)
    # It is ours to ask again as soon as the welcome has been read.
    future = eventually(lambda: host.control.request("kill"), lambda future: not future.done(), timeout=PATIENCE)
    asked = again.hear()
    assert asked is not None
    again.say({"id": asked["id"]})
    assert future.result(PATIENCE) == {"id": asked["id"]}
    assert host.losses.empty()


def test_gone_for_good_is_told_once(
    supervisor: Supervisor, introduced: Visit, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "RECOVERY", 3600)  # refusals are believed long before
    waiting = host.control.request("start")
    supervisor.close()
    with pytest.raises(GuestError):
        waiting.result(PATIENCE)
    assert host.is_lost()
    with pytest.raises(GuestError, match="does not answer any more"):
        host.control.request("kill").result(PATIENCE)


def test_a_proxy_that_stays_when_the_container_is_gone(
    supervisor: Supervisor, introduced: Visit, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "RECOVERY", 0.3)
    over = threading.Event()

    def accept_and_close() -> None:
        supervisor.listener.settimeout(0.05)
        while not over.is_set():
            try:
                supervisor.listener.accept()[0].close()
            except TimeoutError:
                continue

    proxy = threading.Thread(target=accept_and_close)
    proxy.start()
    introduced.close()
    try:
        assert host.is_lost()
    finally:
        over.set()
        proxy.join(PATIENCE)


@pytest.mark.parametrize("data", [b"garbage\n", b"x" * (wire.MAX_MESSAGE + 2), b'{"event": "ended", "signal": "x"}\n'])
def test_garbage_ends_the_connection_for_good(
    supervisor: Supervisor, introduced: Visit, host: Host, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    if data.startswith(b"{"):
        host.control._on_event = check_ending
    waiting = host.control.request("start")
    with contextlib.suppress(OSError):
        introduced.socket.sendall(data)
    with pytest.raises(GuestError):
        waiting.result(PATIENCE)
    assert host.is_lost()
    assert "not to be understood" in caplog.text


def check_ending(message: wire.Message) -> None:
    wire.Ending.from_message(message)


def test_another_release_that_comes_back_is_lost(
    supervisor: Supervisor, introduced: Visit, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    introduced.close()
    supervisor.visit().say({"event": "greeting", "protocol": wire.PROTOCOL + 1})
    assert host.is_lost()
    assert "it speaks protocol" in caplog.text


def test_closing_gives_the_lease_up(introduced: Visit, host: Host) -> None:
    host.control.close()
    assert introduced.hear() is None
    assert host.is_lost()
    host.control.close()


def test_closing_from_an_event_does_not_deadlock(introduced: Visit, host: Host) -> None:
    host.control._on_event = lambda _: host.control.close()
    introduced.say({"event": "ended"})
    assert host.is_lost()


async def test_an_outcome_has_a_time_limit(introduced: Visit, host: Host) -> None:
    future = host.control.request("start")
    with pytest.raises(TimeoutError):
        await outcome(future, 0.05)
    assert not future.cancelled()  # it is another's to cancel: nobody's
    introduced.hear()
    introduced.say({"id": 1})
    assert future.result(PATIENCE) == {"id": 1}
