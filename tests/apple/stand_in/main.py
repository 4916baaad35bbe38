"""The command line: recorded, refused, broken as asked for, or played."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .errors import GONE, Failed, NotPlayed, no_service
from .grammar import Parsed, check_values, parse
from .service import line, need
from .world import World, append, from_environment

# Where each command is played: a call reads no more modules than it needs.
PLAYED = {
    "run": "lifecycle.run",
    "create": "lifecycle.create",
    "start": "lifecycle.start",
    "stop": "lifecycle.stop",
    "kill": "lifecycle.kill",
    "delete": "lifecycle.delete",
    "exec": "lifecycle.execute",
    "list": "showing.list_containers",
    "inspect": "showing.inspect",
    "logs": "showing.logs",
    "stats": "showing.stats",
    "image pull": "image_commands.pull",
    "image inspect": "image_commands.inspect",
    "image list": "image_commands.list_images",
    "image tag": "image_commands.tag",
    "image delete": "image_commands.delete",
    "image load": "image_commands.load",
    "build": "building.build",
    "builder start": "building.start",
    "builder stop": "building.stop",
    "builder status": "building.status",
    "system status": "system.status",
    "system start": "system.start",
    "system version": "system.version",
    "system kernel set": "system.set_kernel",
    "network list": "system.networks",
    "network inspect": "system.inspect_network",
}
WITHOUT_SERVICE = frozenset({"system status", "system start", "system version"})


def main(argv: list[str]) -> int:
    world = from_environment()
    if world.is_destroyed():
        print(f"Error: {NotPlayed(GONE).text}", file=sys.stderr)
        return 70
    if record := os.environ.get("STAND_IN_RECORD"):
        append(Path(record), {"version": world.version, "argv": argv})
    try:
        return _play(world, argv)
    except Failed as error:
        sys.stdout.flush()
        print(f"Error: {error.text}", file=sys.stderr)
        return error.status
    except Exception:
        traceback.print_exc()  # which must not look like an answer
        return 70


def _play(world: World, argv: list[str]) -> int:
    if argv in (["--version"], ["--help"], ["-h"], []):
        print(line(world) if argv == ["--version"] else "OVERVIEW: A container platform for macOS")
        return 0
    parsed = parse(world.version, argv)
    if parsed.flag("--help"):
        print(f"USAGE: container {parsed.command}")
        return 0
    _hang(world, parsed.command, "hang")
    check_values(world.version, parsed)
    if parsed.command not in WITHOUT_SERVICE:
        need(world)
        if parsed.command not in ("run", "start") and world.faults().get("dies_in") == parsed.command:
            world.mend("dies_in")
            raise no_service(f"failed to {parsed.command}", "Connection interrupted")
    status = _player(parsed.command)(world, parsed)
    _hang(world, parsed.command, "hang_after")
    return status


def _player(command: str) -> Callable[[World, Parsed], int]:
    if command not in PLAYED:
        raise NotPlayed(command)
    module, _, name = PLAYED[command].partition(".")
    player: Callable[[World, Parsed], int] = getattr(importlib.import_module(f".{module}", __package__), name)
    return player


def _hang(world: World, command: str, fault: str) -> None:
    """For ever. It can be ended by a signal, as long as nothing is attached, and then says so by its exit status."""
    faults = world.faults()
    if command not in faults.get(fault, ()):
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        deaf = command in faults.get("deaf", ())
        signal.signal(number, signal.SIG_IGN if deaf else lambda number, frame: os._exit(128 + number))
    sys.stdout.flush()
    while True:
        time.sleep(3600)
