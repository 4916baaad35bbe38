"""The ports of a container are free, and lead to it."""

from __future__ import annotations

import socket

import pytest

from container_kernels import ports


def test_they_can_be_bound_at_once() -> None:
    """By a program that does not ask for SO_REUSEADDR: nothing of the choice is left on them."""
    chosen = ports.Ports.choose()
    numbers = [*chosen.kernel.values(), chosen.supervisor]
    assert len(set(numbers)) == 6
    for number in numbers:
        with socket.socket() as sock:
            sock.bind((ports.HOST, number))


def test_what_is_wanted_is_taken() -> None:
    assert ports.Ports.choose({"shell_port": 5, "iopub_port": 0}).kernel["shell_port"] == 5


def test_a_port_that_leads_elsewhere_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere: list[int] = []

    def look(listener: socket.socket) -> bool:
        if len(elsewhere) < 3:
            elsewhere.append(listener.getsockname()[1])
            return False
        return True

    monkeypatch.setattr(ports, "_leads_here", look)
    chosen = ports.Ports.choose()
    assert set(elsewhere).isdisjoint({*chosen.kernel.values(), chosen.supervisor})


def test_where_nothing_arrives_they_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_leads_here", lambda listener: False)
    assert len(set(ports.Ports.choose().kernel.values())) == 5


def test_a_connection_that_does_not_arrive() -> None:
    """As with a rule that sends it to another listener: here, the port is another's from the start."""
    with socket.socket() as listener, socket.socket() as other:
        other.bind((ports.HOST, 0))
        other.listen()
        listener.bind((ports.HOST, 0))

        class Diverted:
            listen, settimeout, accept = listener.listen, listener.settimeout, listener.accept
            getsockname = other.getsockname

        assert not ports._leads_here(Diverted())  # type: ignore[arg-type]
