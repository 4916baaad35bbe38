"""An engine that runs nothing: for tests of decisions. It ships, so that nobody has to patch a real one.

It refuses what real ones refuse and forgets what they forget, which tests/engines/contract.py holds against Docker and Podman. It
is not in the table of engines: no configuration leads to it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

from ..errors import (
    BuildError,
    CommandTimeout,
    ContainerKernelError,
    EngineError,
    EngineUnavailable,
    ImageError,
    PortTaken,
    WorkdirError,
)
from .protocol import (
    LABEL,
    RUNNING,
    ContainerRequest,
    ContainerState,
    EngineInfo,
    ImageInfo,
    Isolation,
    OwnAddress,
    Progress,
    Usage,
)

LEAST_MEMORY = 6 << 20  # bytes: Docker's own least
ARCHITECTURE = "x86_64"

# What a program of an image prints, by the arguments it gets; every program runs on until it is ended.
Program = Callable[[Sequence[str]], str]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Clock:
    """A time that stands still until it is told to go on."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Image:
    """An image, and the programs that it has."""

    programs: Mapping[str, Program]
    info: ImageInfo


@dataclass
class Container:
    """A container that runs: when its PID 1 ends, it is forgotten."""

    request: ContainerRequest
    created: datetime
    log: list[str] = field(default_factory=list)

    @property
    def state(self) -> ContainerState:
        request = self.request
        return ContainerState(request.name, request.image, True, "running", None, self.created, dict(request.labels))


class MemoryEngine:
    """An engine whose containers are entries of a dict.

    `asked` lists each verb with its subject, in order. `taken` are ports that somebody else listens on; `registry` names what can be
    pulled. `stopped`, unless it is empty, is why the engine does not work, and `fail` makes the next call of one verb raise.
    """

    name = "memory"

    def __init__(
        self, *, clock: Callable[[], datetime] | None = None, cpus: int = 4, isolation: Isolation = "container"
    ) -> None:
        self.clock = clock or Clock()
        self.cpus = cpus
        self.isolation: Isolation = isolation
        self.containers: dict[str, Container] = {}
        self.images: dict[str, Image] = {}
        self.registry: set[str] = set()
        self.taken: set[int] = set()
        self.asked: list[tuple[str, object]] = []
        self.stopped = ""
        self._failures: dict[str, list[ContainerKernelError]] = {}

    def __repr__(self) -> str:
        return f"<MemoryEngine {len(self.containers)} containers, {len(self.images)} images>"

    # -- What a test arranges

    def add_image(
        self, reference: str, programs: Mapping[str, Program] | Iterable[str] = ("python3",), **labels: str
    ) -> ImageInfo:
        """The engine has the image; programs that are only named print nothing."""
        silent = dict.fromkeys(programs, _silent)
        known = programs if isinstance(programs, Mapping) else silent
        identity = "sha256:" + sha256(f"{reference} {self.clock()}".encode()).hexdigest()
        info = ImageInfo(reference, identity, ARCHITECTURE, self.clock(), 0, dict(labels))
        self.images[reference] = Image(dict(known), info)
        return info

    def fail(self, verb: str, error: ContainerKernelError) -> None:
        """The next call of `verb` raises `error`, and has no effect; more of them queue."""
        self._failures.setdefault(verb, []).append(error)

    def end(self, name: str) -> None:
        """The container's PID 1 has ended, and so the container has removed itself."""
        del self.containers[name]

    def write(self, name: str, *lines: str) -> None:
        """The container has printed the lines."""
        self.containers[name].log.extend(lines)

    # -- The verbs

    def unsuited(self) -> str:
        return ""

    async def start(self, progress: Progress) -> None:
        await self._hear("start", None)

    async def probe(self) -> EngineInfo:
        await self._hear("probe", None)
        return EngineInfo(
            engine=self.name,
            version="1",
            isolation=self.isolation,
            rootless=False,
            keeps_owner=False,
            architecture=ARCHITECTURE,
            cpus=self.cpus,
            description="nothing but memory",
        )

    async def run(self, request: ContainerRequest, *, timeout: float = RUNNING) -> None:
        await self._hear("run", request)
        if timeout <= 0:
            raise CommandTimeout(f"`{self.name} run` did not end within {timeout:g} seconds, and was ended.")
        image = self._acceptable(request)
        program, *arguments = request.command
        container = Container(request, self.clock(), image.programs[program](arguments).splitlines())
        self.containers[request.name] = container

    def _acceptable(self, request: ContainerRequest) -> Image:
        """The request's image. Raises what an engine says to a request that cannot be met."""
        image = self.images.get(request.image)
        if image is None:
            raise ImageError(f"{self.name} has no image {request.image!r}.")
        if not _NAME.fullmatch(request.name):
            raise EngineError(f"{request.name!r} is no name of a container.")
        if request.name in self.containers:
            raise EngineError(f"The container name {request.name!r} is already in use.")
        if not 0.01 <= request.cpus <= self.cpus:
            raise EngineError(f"cpus = {request.cpus:g} is not between 0.01 and {self.cpus}.")
        if request.memory < LEAST_MEMORY:
            raise EngineError(f"memory = {request.memory} is less than {LEAST_MEMORY}.")
        self._check_mounts(request)
        self._check_ports(request)
        if request.command[0] not in image.programs:
            raise ImageError(f"The image {request.image!r} has no {request.command[0]}.")
        return image

    def _check_mounts(self, request: ContainerRequest) -> None:
        targets = [mount.target for mount in request.mounts]
        if len(set(targets)) != len(targets):
            raise EngineError(f"Two mounts have the same target: {', '.join(targets)}.")
        for mount in request.mounts:
            if not os.path.exists(mount.source):
                raise WorkdirError(f"{self.name} cannot mount {mount.source}.")

    def _check_ports(self, request: ContainerRequest) -> None:
        published = [port.host for port in request.ports]
        others = {port.host for container in self.containers.values() for port in container.request.ports}
        if len(set(published)) != len(published) or (self.taken | others).intersection(published):
            raise PortTaken("A port was taken between its choice and its use.")

    async def inspect(self, name: str) -> ContainerState | None:
        await self._hear("inspect", name)
        container = self.containers.get(name)
        return container.state if container else None

    async def address(self, name: str) -> OwnAddress | None:
        await self._hear("address", name)
        return None

    async def list(self) -> list[ContainerState]:
        await self._hear("list", None)
        return [container.state for container in self._ours()]

    async def logs(self, name: str, *, tail: int = 200) -> str:
        await self._hear("logs", name)
        lines = self.containers[name].log[-tail:] if name in self.containers else []
        return "".join(f"{line}\n" for line in lines)

    async def remove(self, name: str) -> None:
        await self._hear("remove", name)
        self.containers.pop(name, None)

    async def usage(self) -> Sequence[Usage]:
        await self._hear("usage", None)
        return [
            Usage(container.request.name, 0.0, LEAST_MEMORY, container.request.memory, 1) for container in self._ours()
        ]

    def _ours(self) -> Sequence[Container]:
        return [container for container in self.containers.values() if LABEL in container.request.labels]

    async def image(self, reference: str) -> ImageInfo | None:
        await self._hear("image", reference)
        image = self.images.get(reference)
        return image.info if image else None

    async def pull(self, reference: str, progress: Progress) -> None:
        await self._hear("pull", reference)
        if reference not in self.registry:
            raise ImageError(f"{self.name} could not pull {reference!r}.")
        progress(f"{reference}: pulled")
        self.add_image(reference)

    async def load(self, archive: Path, progress: Progress) -> Sequence[str]:
        await self._hear("load", archive)
        if not archive.is_file():
            raise ImageError(f"{self.name} could not load {archive}.")
        self.add_image(archive.stem)
        return (archive.stem,)

    async def build(
        self,
        context: Path,
        *,
        tag: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> None:
        await self._hear("build", tag)
        if not (context / "Containerfile").is_file():
            raise BuildError(f"{self.name} could not build {tag!r}.", detail="There is no Containerfile.")
        progress(f"{tag}: built")
        self.add_image(tag, **labels)

    async def output(self, image: str, command: Sequence[str]) -> str:
        await self._hear("output", (image, *command))
        program, *arguments = command
        if image not in self.images or program not in self.images[image].programs:
            raise EngineError(f"{self.name} could not run {program} in {image}.")
        return self.images[image].programs[program](arguments)

    async def import_tar(self, archive: Path, *, tag: str) -> None:
        await self._hear("import_tar", tag)
        if not archive.is_file():
            raise EngineError(f"{self.name} could not import {archive}.")
        self.add_image(tag)

    async def _hear(self, verb: str, subject: object) -> None:
        """Notes what was asked. A caller that is cancelled here has changed nothing."""
        self.asked.append((verb, subject))
        await asyncio.sleep(0)
        if self.stopped:
            raise EngineUnavailable(f"{self.name}: does not work.", detail=self.stopped)
        if failures := self._failures.get(verb):
            raise failures.pop(0)


def _silent(_: Sequence[str]) -> str:
    return ""
