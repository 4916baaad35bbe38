"""What the stand-in remembers, in one directory: containers, locks, faults. Two directories are two Macs.

containers/ID.json    a container's record
images.json           references made here, to be taken away at the end
boot.lock             the service's one lock: held during a boot, and by create, delete, the start of an exec, and a container's end
faults.json           what is wrong at present (see `faults`)
registry.json         what a pull finds: a reference, and the engine's image that it stands for
boots.jsonl           when each boot began and ended
destroyed             all that is left of it in the end
runtimes/PID          the processes that play `container-runtime-linux`
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import AppleError
from .grammar import number

POOL = 250  # addresses of the default network
Record = dict[str, Any]


class World:
    """One state directory, seen by one release."""

    def __init__(self, directory: Path, version: str, engine: str) -> None:
        self.directory = directory
        self.version = version
        self.release = number(version)
        self.engine = engine
        self.digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
        for name in () if self.is_destroyed() else ("containers", "runtimes"):
            (directory / name).mkdir(parents=True, exist_ok=True)

    def is_destroyed(self) -> bool:
        """Its test is over: whoever still calls, and whatever still boots, must make nothing more."""
        return (self.directory / "destroyed").exists()

    # Records

    def records(self) -> list[Record]:
        """All containers, the oldest first."""
        found = [record for path in (self.directory / "containers").glob("*.json") if (record := self._read(path))]
        return sorted(found, key=lambda record: (record["created"], record["id"]))

    def record(self, name: str) -> Record | None:
        return self._read(self.directory / "containers" / f"{name}.json")

    def _read(self, path: Path) -> Record | None:
        try:
            record: Record = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        if record["status"] == "running" and self._is_ghost(record):
            record["status"] = "stopped"
        return record

    def _is_ghost(self, record: Record) -> bool:
        """The service has lost sight of it, while it runs."""
        ghosts = self.faults().get("ghost", False)
        return record.get("ghost", False) or (record["id"] in ghosts if isinstance(ghosts, list) else bool(ghosts))

    def keep(self, record: Record) -> None:
        path = self.directory / "containers" / f"{record['id']}.json"
        replace(path, record)

    def update(self, name: str, **changes: Any) -> Record | None:
        """The record with these changes; None, and nothing is written, if it is gone."""
        with self._held("records.lock"):
            path = self.directory / "containers" / f"{name}.json"
            if not path.exists():
                return None
            record: Record = json.loads(path.read_bytes()) | changes
            self.keep(record)
        return record

    def forget(self, name: str) -> None:
        with self._held("records.lock"):
            (self.directory / "containers" / f"{name}.json").unlink(missing_ok=True)

    # Locks

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """The service's: a boot holds it, and much else waits."""
        with self._held("boot.lock"):
            yield

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[None]:
        with open(self.directory / name, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # Faults, and what is counted

    def faults(self) -> dict[str, Any]:
        return self.read("faults.json")

    def spend(self, name: str) -> bool:
        """Whether this fault is due: one that is a number is due so many times."""
        with self._held("faults.json.lock"):
            faults = self.faults()
            left = faults.get(name, 0)
            if left and left is not True:
                self.write("faults.json", faults | {name: left - 1})
        return bool(left)

    def mend(self, name: str) -> None:
        with self._held("faults.json.lock"):
            self.write("faults.json", {key: value for key, value in self.faults().items() if key != name})

    def take_address(self) -> None:
        """Of those that the network has; the container's record says when it is given back."""
        faults = self.faults()
        used = sum(bool(record["networks"]) for record in self.records()) + self.read("leases.json").get("leaked", 0)
        if faults.get("addresses") == "full" or used >= faults.get("pool", POOL):
            raise AppleError("internalError", "no free indices are available for allocation")

    def leak_address(self) -> None:
        self.change("leases.json", lambda content: {"leaked": content.get("leaked", 0) + 1})

    def read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.directory / name).read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def write(self, name: str, content: dict[str, Any]) -> None:
        replace(self.directory / name, content)

    def change(self, name: str, how: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        with self._held(f"{name}.lock"):
            self.write(name, how(self.read(name)))

    def boot_time(self) -> None:
        """A boot takes so long at least, unless all ends."""
        end = time.monotonic() + float(os.environ.get("STAND_IN_BOOT", "0"))
        while (left := end - time.monotonic()) > 0 and not self.is_destroyed():
            time.sleep(min(left, 0.05))

    def log_boot(self, event: str, name: str) -> None:
        append(self.directory / "boots.jsonl", {"event": event, "container": name, "time": time.time()})


def replace(path: Path, content: dict[str, Any]) -> None:
    """Whoever reads sees the old or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content))
    draft.replace(path)


def append(path: Path, line: dict[str, Any]) -> None:
    """One write, so that lines of many processes do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def from_environment() -> World:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = os.environ.get("STAND_IN_STATE") or os.path.join(home, "container-kernels-stand-in")
    version = os.environ.get("STAND_IN_VERSION", "1.2.2")
    return World(Path(directory), version, os.environ.get("STAND_IN_ENGINE", "docker"))
