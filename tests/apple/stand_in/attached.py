"""A command in the foreground: streams of the container's process are ours, and its exit status too.

From 1.0.0 to 1.2.2 no signal reaches the container: the service reads a word where the command sends a number. In every release the
third INT or TERM ends the command, and leaves the container as it is.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO

from . import under
from .boot import exit_status
from .errors import AppleError
from .world import Record, World

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
DRAINING = 3.0  # seconds for what was printed last
PATIENCE = 3  # signals
NOT_STARTED = (
    b"OCI runtime exec failed",
    b"Error: OCI runtime",
    b"Error: crun",
    b"Error: runc",
)  # what the engine says of an exec


def before() -> None:
    """As long as nothing runs, INT and TERM end the command, which then says so by its own exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))


class Signals:
    """What is done with those that come while a process is attached."""

    def __init__(self, world: World, forward: Callable[[str], None]) -> None:
        self.world = world
        self.forward = forward
        self.asked = 0
        for number in FORWARDED:
            signal.signal(number, self._come)

    def _come(self, number: int, frame: object) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self.asked += 1
            if self.asked >= PATIENCE:
                os.write(2, b"Warning: received 3 signals, exiting without waiting for the container\n")
                os._exit(1)
        name = signal.Signals(number).name
        if self.world.release >= (1, 0):
            error = AppleError("invalidArgument", "missing signal in xpc message")
            os.write(2, f"failed to send signal {number}: {error.full()}\n".encode())
        else:
            self.forward(name)


def follow(world: World, record: Record, ending: IO[str]) -> int:
    """All that the container prints, until it has ended: its status."""
    Signals(world, lambda name: _pass_on(world, record, name))
    logs = subprocess.Popen(
        [world.engine, "logs", "--follow", *since(record), record["under"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    typing = _type(world, record) if record["config"]["interactive"] else None
    status = _pump(logs, ending)
    for child in (logs, typing):
        if child is not None:
            child.kill()
            child.wait()
    return status


def _pass_on(world: World, record: Record, name: str) -> None:
    under.signal(world, record, name)


def _type(world: World, record: Record) -> subprocess.Popen[bytes]:
    """Our standard input is the container's."""
    return subprocess.Popen(
        [world.engine, "attach", "--sig-proxy=false", record["under"]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip


def _pump(child: subprocess.Popen[bytes], ending: IO[str]) -> int:
    """By way of us, and not straight to our own streams: whoever kills us sees them end."""
    assert child.stdout is not None
    assert child.stderr is not None
    status: int | None = None
    deadline = float("inf")
    with selectors.DefaultSelector() as selector:
        for source, target in ((child.stdout, 1), (child.stderr, 2)):
            selector.register(source, selectors.EVENT_READ, target)
        selector.register(ending, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < deadline:
            pause = None if deadline == float("inf") else max(0, deadline - time.monotonic())
            for key, _ in selector.select(pause):
                if key.data is None:
                    status = exit_status(ending.readline())
                    deadline = time.monotonic() + DRAINING
                    selector.unregister(ending)
                elif data := os.read(key.fd, 1 << 16):
                    write(key.data, data)
                else:
                    selector.unregister(key.fileobj)
    return 255 if status is None else status


def write(descriptor: int, data: bytes) -> None:
    """All of it, if anybody reads."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


def since(record: Record) -> Sequence[str]:
    """Each start begins a new log."""
    return ("--since", f"{record['log_from']:.6f}") if record.get("log_from") else ()


def run(world: World, argv: Sequence[str], *, interactive: bool) -> int:
    """Another process in a container, by a command of the engine's."""
    Signals(world, _not_passed_on)
    child = subprocess.Popen(
        [world.engine, *argv], stdin=None if interactive else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:
        for source, target in ((child.stdout, 1), (child.stderr, 2)):
            selector.register(source, selectors.EVENT_READ, target)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif data.startswith(NOT_STARTED):
                    raise AppleError("internalError", f"failed to start process: {data.decode().strip()}")
                else:
                    write(key.data, data)
    return child.wait()


def _not_passed_on(name: str) -> None:
    os.write(2, f"the stand-in does not play this: {name} for a process of exec\n".encode())
    os._exit(70)
