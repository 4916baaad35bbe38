"""What a test makes go wrong, and the stand-in as a test has it.

| fault | what happens |
|---|---|
| `hang=["delete"]` | these commands never answer; INT and TERM end them with 128+n |
| `hang_after=["run"]` | the same, after the thing is done |
| `deaf=["delete"]` | a command that hangs is ended by SIGKILL only |
| `service="down"` | nothing works until `system start`; `"mute"` is registered and silent, `"broken"` never comes up |
| `dies_in="run"` | the service is lost during the next such call; its containers run on, and are shown as stopped |
| `ghost=True`, or `["name"]` | containers run, and are shown as stopped: only `delete` ends them |
| `ports="reset"` | published ports accept, and reset; the container's own address works |
| `crash_between_create_and_start=1` | so many times, `run` is killed when the container is there, and has not started |
| `create_timeout=1` | so many times, `create` and `run` say that it took too long, and the container is there |
| `delete_fails=1` | so many times, `delete --force` fails for no good reason |
| `addresses="full"`, `pool=3` | no address is left; the network has so many |
| `kernel="missing"` | no container can be made until a kernel is installed |
| `virtualization="unavailable"` | nothing boots |
| `network_list_timeout=2` | so many times, the list of networks comes too late |
| `foreign=["image"]` | the image is for the other architecture: it runs, and never listens |
| `registry="503 Service Unavailable"` | what the registry answers when it has not what is asked for |
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import under
from .world import Record, World

COMMAND = Path(__file__).parent.parent / "container"
PATIENCE = 60.0  # seconds, for a boot that is under way when all is to end


class StandIn:
    """One Mac of a test's own."""

    def __init__(self, directory: Path, version: str = "1.2.2", engine: str = "docker", boot: float = 0) -> None:
        self.directory = directory.resolve()
        self.version = version
        self.engine = engine
        self.boot = boot
        self.world = World(self.directory, version, engine)
        self.started: list[subprocess.Popen[str]] = []

    def environment(self) -> dict[str, str]:
        """What a process needs so that its `container` is this one."""
        return {
            "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}",
            "STAND_IN_PYTHON": sys.executable,
            "STAND_IN_VERSION": self.version,
            "STAND_IN_ENGINE": self.engine,
            "STAND_IN_STATE": str(self.directory),
            "STAND_IN_BOOT": str(self.boot),
            "STAND_IN_RECORD": str(self.directory / "calls.jsonl"),
        }

    def run(
        self, *arguments: str, timeout: float = 60, extra: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """The command, to its end; `extra` is more of its environment, and the rest is for `subprocess.run`."""
        given: dict[str, Any] = {"env": {**os.environ, **self.environment(), **(extra or {})}, "timeout": timeout}
        if "input" not in more:
            given["stdin"] = subprocess.DEVNULL
        return subprocess.run([str(COMMAND), *arguments], capture_output=True, text=True, check=False, **given, **more)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """The command, while it still runs; in a session of its own."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = os.environ | self.environment()
        process: subprocess.Popen[str] = subprocess.Popen(
            [str(COMMAND), *arguments], env=environment, start_new_session=True, **(pipes | more)
        )
        self.started.append(process)
        return process

    def fault(self, **faults: Any) -> None:
        self.world.change("faults.json", lambda content: content | faults)

    def clear(self) -> None:
        self.world.write("faults.json", {})

    def registry(self, reference: str, local: str) -> None:
        """A pull of the reference finds what the engine underneath has as `local`."""
        self.world.change("registry.json", lambda content: content | {reference: local})

    def containers(self) -> dict[str, Record]:
        return {record["id"]: record for record in self.world.records()}

    def running(self, name: str) -> bool:
        """Whether the container really runs, whatever is shown."""
        record = self.world.record(name)
        return record is not None and under.runs(self.world, record)

    def underneath(self) -> list[str]:
        """The engine's own names of all that was made here, and not removed."""
        label = f"label={under.LABEL}={self.world.digest}"
        return under.must(self.world, "ps", "--all", "--format", "{{.Names}}", "--filter", label).split()

    def recorded(self) -> list[list[str]]:
        return [line["argv"] for line in self._lines("calls.jsonl")]

    @property
    def log(self) -> list[tuple[str, float, float]]:
        """Each boot: the container, when it began and when it ended; one that is under way has not ended."""
        boots: list[tuple[str, float, float]] = []
        for line in self._lines("boots.jsonl"):
            if line["event"] == "begin":
                boots.append((line["container"], line["time"], float("inf")))
            else:
                name, begin, _ = boots.pop()  # one at a time
                boots.append((name, begin, line["time"]))
        return boots

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.directory / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def destroy(self) -> None:
        """No process, container, image name or file of it is left, but one that says so: to a call that comes after it, too."""
        if not self.directory.exists():
            return
        (self.directory / "destroyed").touch()
        for process in self.started:
            process.kill()
            process.communicate()
        with self._no_boot():
            for path in (self.directory / "runtimes").glob("*"):
                _end(int(path.name), str(self.directory))
            for name in self.underneath():
                under.run(self.world, "rm", "--force", name)
        for name in self.world.read("images.json"):
            under.run(self.world, "rmi", name)
        self._remove_volumes()
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "destroyed":
                path.unlink(missing_ok=True)

    def _remove_volumes(self) -> None:
        prefix = f"stand-in-{self.world.digest}-"
        for name in under.must(self.world, "volume", "ls", "--quiet", "--filter", f"name={prefix}").split():
            under.run(self.world, "volume", "rm", name)

    @contextlib.contextmanager
    def _no_boot(self) -> Iterator[None]:
        """A boot that is under way ends first: it may have made what is to be removed."""
        deadline = time.monotonic() + PATIENCE
        with open(self.directory / "boot.lock", "a") as file:
            while time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.02)
            yield


def _end(process: int, state: str) -> None:
    """A number may be another process's by now: ours name the state."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if state in Path(f"/proc/{process}/cmdline").read_text():
            os.kill(process, signal.SIGKILL)
