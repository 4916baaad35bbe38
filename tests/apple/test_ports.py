"""Published ports, and the container's own address."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ..conftest import eventually
from .conftest import ECHO, IMAGE, answer, fails, free_port, listed, ok, state
from .stand_in.faults import StandIn

pytestmark = pytest.mark.xdist_group("docker")
OLD_AND_NEW = pytest.mark.parametrize("version", ["0.12.3", "1.2.2"])


def publish(port: int) -> tuple[str, ...]:
    return ("-p", f"127.0.0.1:{port}:8000")


def echoing(stand_in: StandIn, *options: str) -> None:
    ok(stand_in, "run", "-d", "--name", "ab", *options, IMAGE, "python3", "-c", ECHO)
    eventually(lambda: ok(stand_in, "logs", "ab"), lambda log: log == "ready\n")


def attachment(stand_in: StandIn, name: str = "ab") -> dict[str, Any]:
    item = listed(stand_in)[name]
    status = item if isinstance(item["status"], str) else item["status"]
    (network,) = status["networks"]
    return dict(network)


def is_bound(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@OLD_AND_NEW
def test_the_host_reaches_the_container_both_ways(stand_in: StandIn) -> None:
    port = free_port()
    echoing(stand_in, *publish(port))
    assert answer("127.0.0.1", port) == b"hello"
    address = attachment(stand_in)["ipv4Address"].partition("/")[0]
    assert answer(address, 8000) == b"hello"


def test_exactly_the_address_that_was_asked_for(stand_in: StandIn) -> None:
    port = free_port()
    echoing(stand_in, *publish(port))
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", port)) != 0


def test_many_ports_by_a_range(stand_in: StandIn) -> None:
    first = 21000 + free_port() % 1000 * 10
    echoing(stand_in, "-p", f"127.0.0.1:{first}-{first + 2}:7999-8001")
    assert answer("127.0.0.1", first + 1) == b"hello"
    assert answer("127.0.0.1", first) == b""
    (published,) = listed(stand_in)["ab"]["configuration"]["publishedPorts"]
    assert published == {
        "hostAddress": "127.0.0.1",
        "hostPort": first,
        "containerPort": 7999,
        "proto": "tcp",
        "count": 3,
    }


def test_it_accepts_before_anybody_listens(stand_in: StandIn) -> None:
    """And ends the connection, without a word."""
    port = free_port()
    ok(stand_in, "run", "-d", "--name", "ab", *publish(port), IMAGE, "sleep", "1000")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        assert client.recv(1) == b""


def test_it_is_there_while_the_container_runs(stand_in: StandIn) -> None:
    """Bound when it starts, not when it is made."""
    port = free_port()
    ok(stand_in, "create", "--name", "ab", *publish(port), IMAGE, "sleep", "1000")
    assert not is_bound(port)
    ok(stand_in, "start", "ab")
    assert is_bound(port)
    ok(stand_in, "stop", "-t", "0", "ab")
    assert not is_bound(port)


@OLD_AND_NEW
def test_a_port_that_is_taken(stand_in: StandIn) -> None:
    """`start` leaves the container, stopped; `run` takes its own back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ok(stand_in, "create", "--name", "ab", *publish(port), IMAGE, "sleep", "1000")
        for words in (("start", "ab"), ("run", "-d", "--name", "cd", *publish(port), IMAGE, "true")):
            said = fails(stand_in, *words)
            assert said.startswith("failed to bootstrap container (cause: ")
            assert "Address already in use (errno: 48)" in said
        assert {name: state(item) for name, item in listed(stand_in, "-a").items()} == {"ab": "stopped"}
        assert stand_in.underneath() == []
    ok(stand_in, "start", "ab")
    assert is_bound(port)


def test_a_port_of_another_container_is_taken_when_that_runs(stand_in: StandIn) -> None:
    port = free_port()
    for name in ("ab", "cd"):
        ok(stand_in, "create", "--name", name, *publish(port), IMAGE, "sleep", "1000")
    ok(stand_in, "start", "ab")
    assert "Address already in use" in fails(stand_in, "start", "cd")
    ok(stand_in, "stop", "-t", "0", "ab")
    ok(stand_in, "start", "cd")


def test_without_a_network_ports_are_nothing(stand_in: StandIn) -> None:
    port = free_port()
    ok(stand_in, "run", "-d", "--name", "ab", "--network", "none", *publish(port), IMAGE, "sleep", "1000")
    assert not is_bound(port)
    assert listed(stand_in)["ab"]["status"]["networks"] == []


def test_low_ports_are_roots(stand_in: StandIn) -> None:
    said = fails(stand_in, "run", "-d", "-p", "127.0.0.1:80:80", IMAGE, "true")
    assert "Permission denied while binding to host port 80." in said
    said = fails(stand_in, "run", "-d", "-p", "[::1]:8080:80", IMAGE, "true")
    assert "unknown IPv6 address" in said


def test_the_end_of_one_side_is_the_end_of_both(stand_in: StandIn) -> None:
    """Nothing comes back to who has said that it says no more."""
    port = free_port()
    slow = "import socket, time\nserver = socket.create_server(('', 8000))\nprint('ready', flush=True)\nclient, _ = server.accept()\nwhile client.recv(100): pass\ntime.sleep(1)\nclient.sendall(b'late')\n"
    ok(stand_in, "run", "-d", "--name", "ab", *publish(port), IMAGE, "python3", "-c", slow)
    eventually(lambda: ok(stand_in, "logs", "ab"), lambda log: log == "ready\n")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


def test_an_address_is_for_one_run(stand_in: StandIn) -> None:
    ok(stand_in, "create", "--name", "ab", IMAGE, "sleep", "1000")
    assert listed(stand_in, "-a")["ab"]["status"]["networks"] == []
    ok(stand_in, "start", "ab")
    assert attachment(stand_in)["hostname"] == "ab"
    ok(stand_in, "stop", "-t", "0", "ab")
    assert listed(stand_in, "-a")["ab"]["status"]["networks"] == []
