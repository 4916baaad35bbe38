"""What every engine can do, and the values that go in and come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

LABEL = "io.container-kernels"  # on every container and image of ours; the more precise labels start with it
OWNER_LABEL = f"{LABEL}.owner"  # whose it is: what `owner.this_process` says
POOL_LABEL = f"{LABEL}.pool"  # on those that were made before a kernel asked for one: the key of the recipe
NAME_PREFIX = f"{LABEL.rpartition('.')[2]}-"  # of the names of our containers

RUNNING = 60.0  # seconds for a container to be created and started, unless the caller says otherwise

Isolation = Literal["vm", "container"]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Mount:
    """A host directory, seen in the container at `target`."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Port:
    """A TCP port of the container, published on the host's 127.0.0.1."""

    host: int
    guest: int


@dataclass(frozen=True)
class ContainerRequest:
    """All that an engine must know to run one container.

    The image's own entrypoint is replaced: `command` is PID 1. `memory` is in bytes, and swap does not add to it.
    `user` is `uid:gid`; None leaves it to the image. `groups` are the ids of the groups that PID 1 is in besides.
    The container removes itself when PID 1 ends.
    """

    name: str
    image: str
    command: tuple[str, ...]
    cpus: float
    memory: int
    pids: int
    user: str | None = None
    groups: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    engine_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineInfo:
    """A working engine.

    `cpus` is what a container may have at most; `architecture` is spelled as `uname -m` spells it.
    `instead_of` says why an engine with a stronger isolation was not taken, which this machine could have; empty where it could not.
    `keeps_owner` tells whether a file written by container root belongs to the caller on the host (rootless engines,
    and those whose VM shares the caller's files). `user_options` are the words of `engine_args` with which another user of the
    container is the user with that number on the host.
    """

    engine: str
    version: str
    isolation: Isolation
    rootless: bool
    keeps_owner: bool
    architecture: str
    cpus: int
    description: str
    user_options: tuple[str, ...] = ()
    instead_of: str = ""


@dataclass(frozen=True)
class OwnAddress:
    """Where a container is reached beside its published ports, and what a person should know when these lead nowhere."""

    host: str
    advice: str


@dataclass(frozen=True)
class ContainerState:
    """One container of ours, as the engine sees it."""

    name: str
    image: str
    running: bool
    status: str
    exit_code: int | None
    created: datetime
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Usage:
    """What a container uses at this moment: cpu in percent of one core, memory in bytes."""

    name: str
    cpu_percent: float
    memory: int
    memory_limit: int
    pids: int


@dataclass(frozen=True)
class ImageInfo:
    """An image that the engine has."""

    reference: str
    id: str
    architecture: str
    created: datetime
    size: int
    labels: Mapping[str, str]


class Engine(Protocol):
    """How to say it to one container engine.

    Every method may raise EngineUnavailable (it does not work here; ServiceStopped where `start` may help), CommandTimeout, or EngineError, with the engine's words as detail.
    """

    @property
    def name(self) -> str: ...

    @property
    def isolation(self) -> Isolation: ...

    # What this machine lacks for it, in a sentence; empty where it could have it. Only who names the engine may have it nevertheless.
    def unsuited(self) -> str: ...

    # Its service runs; whoever calls this may start it. It may take minutes, the first time.
    async def start(self, progress: Progress) -> None: ...

    # What this engine is, and that it works; EngineUnavailable says why not.
    async def probe(self) -> EngineInfo: ...

    # The container's PID 1 runs. PortTaken and ImageError are told apart; nothing is left behind when it raises,
    # and it raises CommandTimeout after `timeout` seconds.
    async def run(self, request: ContainerRequest, *, timeout: float = RUNNING) -> None: ...

    # None when there is no such container.
    async def inspect(self, name: str) -> ContainerState | None: ...

    # None where this host reaches a container by its published ports only, and where it has no address.
    async def address(self, name: str) -> OwnAddress | None: ...

    # All containers with our label, running or not.
    async def list(self) -> list[ContainerState]: ...

    # The last `tail` lines of both streams.
    async def logs(self, name: str, *, tail: int = 200) -> str: ...

    # The container is gone, killed if it had to be; one that does not exist is fine.
    async def remove(self, name: str) -> None: ...

    # Of our running containers. It takes seconds.
    async def usage(self) -> Sequence[Usage]: ...

    # None when the engine does not have it.
    async def image(self, reference: str) -> ImageInfo | None: ...

    # The registry's image is there. Progress is told line by line.
    async def pull(self, reference: str, progress: Progress) -> None: ...

    # The references of the images in an archive that an engine has saved, which are there now.
    async def load(self, archive: Path, progress: Progress) -> Sequence[str]: ...

    # `tag` names the image made from the Containerfile in `context`; `arguments` are its ARGs.
    async def build(
        self,
        context: Path,
        *,
        tag: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> None: ...

    # What `command` prints in a throw-away container of the image, which has no network; the container is gone, whatever happens.
    async def output(self, image: str, command: Sequence[str]) -> str: ...

    # `tag` names an image made from a tar file of a root file system.
    async def import_tar(self, archive: Path, *, tag: str) -> None: ...
