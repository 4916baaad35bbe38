"""run, create, start, stop, kill, delete and exec."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import IO

from . import attached, under, values
from .boot import boot
from .configuration import check_resources, environment, progress, record_of
from .errors import GONE, AppleError, NotPlayed, Several, no_service
from .grammar import Parsed
from .world import Record, World

PAUSE = 0.02  # seconds between two looks
KILLED_WITHIN = 5.0  # seconds that `delete --force` gives


def run(world: World, parsed: Parsed) -> int:
    attached.before()
    record = record_of(world, parsed)
    progress(parsed, "[5/6] Creating container", "[6/6] Starting container")
    _create(world, parsed, record)
    if world.spend("crash_between_create_and_start"):
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        ending = boot(world, record)
    except AppleError:
        # Whoever creates and starts in one takes back what did not start.
        with world.lock():
            world.forget(record["id"])
        raise
    _write_cidfile(parsed, record)
    return _stay_or_go(world, parsed, record, ending, stay=not parsed.flag("--detach"))


def create(world: World, parsed: Parsed) -> int:
    attached.before()
    record = record_of(world, parsed)
    _create(world, parsed, record)
    _write_cidfile(parsed, record)
    print(record["id"])
    return 0


def _create(world: World, parsed: Parsed, record: Record) -> None:
    with world.lock():
        if world.is_destroyed():
            raise NotPlayed(GONE)
        check_resources(world, parsed)
        if world.record(record["id"]):
            taken = AppleError("exists", f"container already exists: {record['id']}")
            raise AppleError("internalError", "failed to create container", taken)
        world.keep(record)
    if world.spend("create_timeout"):
        late = AppleError("timeout", "XPC timeout for request to com.apple.container.apiserver/containerCreate")
        raise AppleError("internalError", "failed to create container", late)


def _write_cidfile(parsed: Parsed, record: Record) -> None:
    if parsed.flag("--cidfile"):
        with open(parsed.one("--cidfile"), "w") as file:
            file.write(record["id"])


def _stay_or_go(world: World, parsed: Parsed, record: Record, ending: IO[str], *, stay: bool) -> int:
    if world.faults().get("dies_in") == parsed.command:
        # The service is started again at once, and does not find the machines that it had.
        world.mend("dies_in")
        world.update(record["id"], ghost=True)
        raise no_service("failed to bootstrap container", "Connection interrupted")
    if not stay:
        print(record["id"])
        return 0
    return attached.follow(world, record, ending)


def start(world: World, parsed: Parsed) -> int:
    attached.before()
    record = _known(world, parsed.words[0])
    stay = parsed.flag("--attach") or parsed.flag("--interactive")
    if record["status"] == "running":
        if stay:
            raise AppleError("invalidArgument", "attach is currently unsupported on already running containers")
        print(record["id"])
        return 0
    if record["status"] == "stopping":
        raise AppleError("invalidState", f"container {record['id']} is stopping")
    return _stay_or_go(world, parsed, record, boot(world, record), stay=stay)


def _known(world: World, name: str) -> Record:
    record = world.record(name)
    if record is None:
        raise AppleError("notFound", f"get failed: container {name} not found")
    return record


def each(world: World, parsed: Parsed, do: Callable[[Record], None]) -> int:
    """The ids of those that it is done to, in no order; what fails is told of at the end."""
    if parsed.flag("--all"):
        raise NotPlayed("--all, which takes in what is not ours")
    errors: list[AppleError] = []
    for name in dict.fromkeys(reversed(parsed.words)):
        record = world.record(name)
        try:
            if record is None:
                raise AppleError("notFound", f"container with ID {name} not found")
            do(record)
        except AppleError as error:
            errors.append(error)
        else:
            print(name, flush=True)
    if errors:
        raise Several(errors)
    return 0


def stop(world: World, parsed: Parsed) -> int:
    patience = int(parsed.one("--time", "5"))

    def one(record: Record) -> None:
        of_image = record["config"]["stopSignal"] if world.release >= (1, 0) else ""
        name = values.signal(parsed.one("--signal") or of_image or "TERM", world.release)
        if record["status"] == "running":
            world.update(record["id"], status="stopping")
            _end(world, record, name, patience)

    return each(world, parsed, one)


def kill(world: World, parsed: Parsed) -> int:
    name = values.signal(parsed.one("--signal", "KILL"), world.release)

    def one(record: Record) -> None:
        if record["status"] == "stopped":
            client = "runtime" if world.release >= (1, 0) else "sandbox"
            raise AppleError("invalidState", f"no {client} client exists: container is stopped")
        under.signal(world, record, name)
        if name == "KILL" and world.release >= (1, 0):
            settle(world, record["id"])

    return each(world, parsed, one)


def delete(world: World, parsed: Parsed) -> int:
    force = parsed.flag("--force")

    def one(record: Record) -> None:
        name = record["id"]
        if record["status"] == "stopping" or (record["status"] == "running" and not force):
            raise AppleError("invalidState", f"container {name} is {record['status']} and can not be deleted")
        if force and world.spend("delete_fails"):
            raise AppleError("internalError", f"deleteProcess: exec of {name} does not exist")
        if record["status"] == "running":
            if world.release < (1, 0) and record["networks"]:
                world.leak_address()
            _end(world, record, "KILL", KILLED_WITHIN)
        with world.lock():
            if world.record(name):
                world.forget(name)
                under.remove(world, record)

    return each(world, parsed, one)


def _end(world: World, record: Record, name: str, patience: float) -> None:
    under.signal(world, record, name)
    if not settle(world, record["id"], patience):
        under.signal(world, record, "KILL")
        settle(world, record["id"])


def settle(world: World, name: str, patience: float = float("inf")) -> bool:
    """Whether the service has taken notice of the container's end, within this time."""
    deadline = time.monotonic() + patience
    while (record := world.record(name)) and record["status"] != "stopped":
        if not (record["runtime"] and os.path.exists(f"/proc/{record['runtime']}")):
            _without_runtime(world, record)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True


def _without_runtime(world: World, record: Record) -> None:
    """The machine is its runtime's: without, there is none."""
    under.signal(world, record, "KILL")
    with world.lock():
        world.update(record["id"], status="stopped", networks=[], runtime=None)
        if record["remove"]:
            world.forget(record["id"])
            under.remove(world, record)


def execute(world: World, parsed: Parsed) -> int:
    attached.before()
    record = _known(world, parsed.words[0])
    if record["status"] != "running":
        raise AppleError("invalidState", f"container {record['id']} is not running")
    with world.lock():
        pass
    options = [option for option in ("--tty", "--interactive") if parsed.flag(option)]
    if parsed.flag("--tty") and parsed.flag("--interactive") and not sys.stdin.isatty():
        raise AppleError("invalidArgument", "standard input is not a terminal")
    # What the first process has in its environment comes first, and the first is what counts.
    has = {item.partition("=")[0] for item in (*record["config"]["image_env"], *record["config"]["env"])}
    for item in environment(parsed):
        if item.partition("=")[0] not in has:
            options += ["--env", item]
    if parsed.flag("--user"):
        options += ["--user", parsed.one("--user")]
    if parsed.flag("--workdir"):
        options += ["--workdir", parsed.one("--workdir")]
    for name in ("--uid", "--gid", "--ulimit"):
        if parsed.flag(name):
            raise NotPlayed(f"exec {name}")
    if parsed.flag("--detach"):
        under.must(world, "exec", "--detach", *options, record["under"], *parsed.words[1:])
        print(record["id"])
        return 0
    argv = ["exec", *options, record["under"], *parsed.words[1:]]
    with contextlib.suppress(BrokenPipeError):
        return attached.run(world, argv, interactive=parsed.flag("--interactive"))
    return 1
