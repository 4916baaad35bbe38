"""A stand-in of a test's own, of which nothing is left afterwards."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .stand_in.faults import StandIn

IMAGE = "container-kernels/python"
# PID 1 of the tests: says that it is there, and minds TERM.
OBEDIENT = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nprint('ready', flush=True)\nwhile True: signal.pause()\n"
ECHO = (
    "import socket\nserver = socket.create_server(('', 8000))\nprint('ready', flush=True)\n"
    "while True:\n    client, _ = server.accept()\n    client.sendall(client.recv(100))\n    client.close()\n"
)


@pytest.fixture
def version() -> str:
    return "1.2.2"


@pytest.fixture
def make_stand_in(tmp_path: Path) -> Iterator[Callable[..., StandIn]]:
    made: list[StandIn] = []

    def make(**settings: Any) -> StandIn:
        made.append(StandIn(tmp_path / f"mac-{len(made)}", **settings))
        return made[-1]

    yield make
    for stand_in in made:
        stand_in.destroy()


@pytest.fixture
def stand_in(make_stand_in: Callable[..., StandIn], version: str) -> StandIn:
    return make_stand_in(version=version)


def quiet(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The same, without a word on its progress."""
    words = 2 if arguments[0] == "image" else 1
    fetches = arguments[:words] in (("run",), ("image", "pull"))
    return (*arguments[:words], "--progress", "none", *arguments[words:]) if fetches else arguments


def ok(stand_in: StandIn, *arguments: str, **more: Any) -> str:
    """What the command prints, which must succeed."""
    done = stand_in.run(*quiet(arguments), **more)
    assert done.returncode == 0, (arguments, done)
    return done.stdout


def fails(stand_in: StandIn, *arguments: str, status: int = 1, **more: Any) -> str:
    """What it says on stderr, which must be all that it says."""
    done = stand_in.run(*quiet(arguments), **more)
    assert (done.returncode, done.stdout) == (status, ""), (arguments, done)
    assert done.stderr.startswith("Error: "), done.stderr
    return done.stderr.removeprefix("Error: ").removesuffix("\n")


def obedient(stand_in: StandIn, name: str, *options: str) -> None:
    """A container that runs until it is told not to."""
    ok(stand_in, "run", "-d", "--name", name, *options, IMAGE, "python3", "-c", OBEDIENT)


def listed(stand_in: StandIn, *options: str) -> dict[str, dict[str, Any]]:
    """What `list` shows, by id."""
    shown = json.loads(ok(stand_in, "list", "--format", "json", *options))
    return {item["configuration"]["id"]: item for item in shown}


def state(item: dict[str, Any]) -> str:
    status = item["status"]
    return str(status if isinstance(status, str) else status["state"])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answer(address: str, port: int, said: bytes = b"hello") -> bytes:
    """What comes back, until the other side ends the connection."""
    with socket.create_connection((address, port), timeout=20) as client:
        client.sendall(said)
        return client.recv(100)
