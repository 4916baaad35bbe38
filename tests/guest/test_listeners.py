"""A kernel, and a dead kernel's last words, wait for those who listened before: each client comes back at a moment of its own."""

from __future__ import annotations

import time
from typing import Any

import pytest
import zmq
from ipykernel.iostream import IOPubThread

from container_kernels.guest import kernel, last_words
from container_kernels.guest.running import Mark

SUBSCRIBE, UNSUBSCRIBE = b"\1", b"\0"


class IOPub:
    """The parts of an IOPubThread that are used."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.socket = self
        self.greeted: list[bytes] = []

    def setsockopt(self, option: int, value: int) -> None:
        self.options[option] = value


@pytest.fixture
def iopub(monkeypatch: pytest.MonkeyPatch) -> IOPub:
    monkeypatch.setattr(IOPubThread, "_setup_xpub_listener", lambda self: None)
    monkeypatch.setattr(IOPubThread, "_handle_subscription", lambda self, frames: self.greeted.extend(frames))
    return IOPub()


def hear(iopub: Any, *frames: bytes) -> None:
    thread: Any = IOPubThread
    thread._handle_subscription(iopub, list(frames))


def listeners(mark: Mark, awaited: int) -> Any:
    counted = kernel._Listeners(mark, awaited)
    counted.count_from_now_on()
    return counted


def test_all_are_awaited(iopub: Any) -> None:
    mark = Mark()
    mark.listeners = 5
    heard = listeners(mark, 2).heard
    assert mark.listeners == 0
    thread: Any = IOPubThread
    thread._setup_xpub_listener(iopub)
    assert iopub.options == {zmq.XPUB_VERBOSER: 1}
    hear(iopub, SUBSCRIBE)
    assert not heard.is_set()
    hear(iopub, SUBSCRIBE)
    assert heard.is_set()
    assert mark.listeners == 2


def test_who_leaves_is_not_counted(iopub: Any) -> None:
    mark = Mark()
    heard = listeners(mark, 2).heard
    hear(iopub, SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE)
    assert not heard.is_set()
    assert mark.listeners == 1


def test_the_first_of_each_topic_is_greeted(iopub: Any) -> None:
    """As a kernel does that counts nobody."""
    listeners(Mark(), 1)
    hear(iopub, SUBSCRIBE, SUBSCRIBE, SUBSCRIBE + b"topic", UNSUBSCRIBE)
    assert iopub.greeted == [SUBSCRIBE, SUBSCRIBE + b"topic"]


def test_an_old_ipykernel_hears_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(IOPubThread, "_handle_subscription")
    assert listeners(Mark(), 2).heard.is_set()


def test_the_number_is_known_to_the_template() -> None:
    """In memory that the kernel shares with it, apart from the cell's."""
    mark = Mark()
    mark.listeners = 3
    mark.set([b"a"], {"msg_id": "x"})
    mark.clear()
    assert mark.listeners == 3


class Socket:
    """An iopub socket at which these subscriptions arrive."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = list(frames)

    def poll(self, milliseconds: float) -> bool:
        return bool(self.frames)

    def recv(self) -> bytes:
        return self.frames.pop(0)


@pytest.mark.parametrize(
    ("frames", "listeners", "unread", "anybody"),
    [
        ((), 1, 0, False),
        ((SUBSCRIBE,), 2, 0, True),
        ((SUBSCRIBE, SUBSCRIBE, SUBSCRIBE), 2, 1, True),
        ((SUBSCRIBE, SUBSCRIBE), 0, 1, True),
        ((SUBSCRIBE, UNSUBSCRIBE), 2, 0, False),
    ],
)
def test_last_words_wait_for_all(frames: tuple[bytes, ...], listeners: int, unread: int, anybody: bool) -> None:
    socket = Socket(*frames)
    assert last_words._subscribed(socket, listeners, time.monotonic() + 60) is anybody
    assert len(socket.frames) == unread
