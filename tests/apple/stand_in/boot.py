"""Starting a container, as the command does it: ask for the boot, then stay or go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import IO, Any

from .errors import AppleError, Failed, no_service
from .world import Record, World

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def boot(world: World, record: Record) -> IO[str]:
    """The container runs; what is returned tells when it has ended. Nothing but the boot itself minds whether we live."""
    arguments = [world.version, world.engine, str(world.directory.resolve()), record["id"]]
    with open(world.directory / "runtime.log", "a") as log:
        process = subprocess.Popen(
            [sys.executable, "-S", "-m", "tests.apple.stand_in.runtime", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log, start_new_session=True, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    # It is the service's, which nobody here waits for.
    process.returncode = 0
    told = _next(process.stdout)
    if told is None:
        raise no_service("failed to bootstrap container", "Connection interrupted")
    if "broken" in told:
        raise Failed(f"the stand-in itself is broken: {told['broken']}", 70)
    if "error" in told:
        raise AppleError("internalError", "failed to bootstrap container", AppleError(*told["error"]))
    record["log_from"] = told["log_from"]
    return process.stdout


def exit_status(line: str) -> int:
    """What the runtime's last line says; 255 if it has none, for it was killed."""
    return int(json.loads(line)["exit"]) if line.strip() else 255


def _next(stream: IO[str]) -> dict[str, Any] | None:
    line = stream.readline()
    return dict(json.loads(line)) if line else None
