"""The wire: what is a message, what is too much, and how an ending reads."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from container_kernels.guest import wire
from container_kernels.guest.wire import Decoder, Ending, WireError


def test_messages_survive() -> None:
    messages: list[wire.Message] = [
        {"op": "x", "n": 1},
        {},
        {"text": "two\nlines, ü, \ud800", "list": [None, True, 1.5]},
    ]
    data = b"".join(map(wire.encode, messages))
    assert data.count(b"\n") == len(messages)
    assert data.isascii()
    assert Decoder().feed(data) == messages


def test_messages_come_in_pieces() -> None:
    decoder = Decoder()
    data = wire.encode({"a": 1}) + wire.encode({"b": 2})
    assert [message for n in range(len(data)) for message in decoder.feed(data[n : n + 1])] == [{"a": 1}, {"b": 2}]
    assert decoder.feed(b"") == []


def test_many_small_pieces_take_no_more_time_than_few() -> None:
    message = {"text": "x" * (2 << 20)}
    data, decoder, messages = wire.encode(message), Decoder(), []
    begun = time.process_time()
    for n in range(0, len(data), 16):
        messages += decoder.feed(data[n : n + 16])
        assert time.process_time() - begun < 10
    assert messages == [message]


def test_as_long_as_allowed() -> None:
    line = b'{"a":"' + b"x" * 91 + b'"}'
    assert Decoder(limit=len(line)).feed(line + b"\n") == [{"a": "x" * 91}]


@pytest.mark.parametrize(
    "data", [b"x" * 101, b"{}\n" + b"x" * 101, b"x" * 101 + b"\n", b'{"a":"' + b"x" * 100 + b'"}\n{}\n']
)
def test_a_line_that_is_too_long(data: bytes) -> None:
    with pytest.raises(WireError, match="longer than 100 bytes"):
        Decoder(limit=100).feed(data)


def test_a_long_line_is_refused_before_it_ends() -> None:
    decoder = Decoder(limit=100)
    for _ in range(10):
        assert decoder.feed(b"x" * 10) == []
    with pytest.raises(WireError):
        decoder.feed(b"x")


def test_a_stranger_may_say_less_than_a_host() -> None:
    assert wire.MAX_STRANGER < wire.MAX_MESSAGE
    hello = wire.encode({"op": "hello", "protocol": wire.PROTOCOL, "token": "x" * 100})
    assert len(hello) < wire.MAX_STRANGER


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"{", b"\xff\xfe", b"{'a': 1}", b"[" * 100_000, b"GET / HTTP/1.1\r", b"9" * 10_000]
)
def test_what_is_no_json(line: bytes) -> None:
    with pytest.raises(WireError, match="a message is not"):
        Decoder().feed(line + b"\n")


@pytest.mark.parametrize("line", [b"[]", b"1", b'"text"', b"null", b"true", b"NaN"])
def test_what_is_no_object(line: bytes) -> None:
    with pytest.raises(WireError, match="a message is not an object"):
        Decoder().feed(line + b"\n")


def test_a_token_opens_what_was_made_for_it() -> None:
    digest = wire.digest("secret")
    assert "secret" not in digest
    assert wire.opens("secret", digest)


@pytest.mark.parametrize(
    "token", ["", "Secret", "secret ", None, 1, True, ["secret"], {}, "\ud800", "secret\0", "x" * 100_000]
)
def test_nothing_else_opens_it(token: object) -> None:
    assert not wire.opens(token, wire.digest("secret"))


def test_ports_are_above_the_ephemeral_range() -> None:
    ports = [*wire.KERNEL_PORTS.values(), wire.SUPERVISOR_PORT]
    assert len(set(ports)) == 6
    assert all(60999 < port < 65536 for port in ports)


# -- Endings


@pytest.mark.parametrize(
    ("ending", "code", "reason"),
    [
        (Ending(exit_code=0), 0, "The kernel exited with code 0."),
        (Ending(exit_code=3), 3, "The kernel exited with code 3."),
        (Ending(signal=9), -9, "The kernel was killed by SIGKILL."),
        (Ending(signal=11), -11, "The kernel was killed by SIGSEGV."),
        (Ending(signal=63), -63, "The kernel was killed by signal 63."),
        (Ending(signal=9, out_of_memory=True, memory_limit=2 << 30), -9, "The kernel ran out of memory: it was killed at the container's limit of 2 GiB."),
        (Ending(signal=9, out_of_memory=True), -9, "The kernel ran out of memory: it was killed at the container's limit."),
        (Ending(signal=9, memory_limit=2 << 30), -9, "The kernel was killed by SIGKILL."),
        (Ending(), 0, "The kernel exited with code 0."),
    ],
)  # fmt: skip
def test_endings_are_sentences(ending: Ending, code: int, reason: str) -> None:
    assert (ending.code, ending.reason) == (code, reason)


def test_endings_survive() -> None:
    for ending in (Ending(exit_code=3), Ending(signal=int(signal.SIGKILL), out_of_memory=True, memory_limit=1 << 40)):
        (message,) = Decoder().feed(wire.encode({"event": "ended", **ending._asdict()}))
        assert Ending.from_message(message) == ending


@pytest.mark.parametrize("fields", [{"exit_code": "3"}, {"signal": []}, {"memory_limit": {}}, {"exit_code": 1.5}])
def test_endings_of_the_wrong_kind(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="an ending is no number"):
        Ending.from_message(fields)


def test_an_ending_with_an_odd_verdict_is_no_verdict() -> None:
    assert not Ending.from_message({"signal": 9, "out_of_memory": "yes"}).out_of_memory
    assert Ending.from_message(json.loads('{"event": "ended"}')) == Ending()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (512, "512 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        (2 << 30, "2 GiB"),
        (3 << 29, "1.5 GiB"),
    ],
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert wire.size_text(size) == text
