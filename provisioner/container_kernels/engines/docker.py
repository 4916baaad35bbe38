"""Docker: by its CLI, so that contexts, DOCKER_HOST, Docker Desktop, Colima and the like are what they are for the person."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from .. import command, owner
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
from ..finish import finish
from ..quantities import size
from . import remedies
from .aftermath import Known, clear_away, told
from .protocol import (
    LABEL,
    NAME_PREFIX,
    OWNER_LABEL,
    RUNNING,
    ContainerRequest,
    ContainerState,
    EngineInfo,
    ImageInfo,
    Isolation,
    Mount,
    OwnAddress,
    Progress,
    Usage,
)

ASKING = 20.0  # seconds: a question to the engine
REMOVING = 60.0  # a container removed
FETCHING = 3600.0  # an image pulled or built

# What the daemon or the runtime says.
_NOT_WORKING = re.compile(
    r"permission denied.*(sock|connect)|cannot connect to the docker daemon|error during connect|is the docker daemon running"
    r"|failed to connect to the docker api|cannot connect to podman|unable to connect to podman",
    re.IGNORECASE | re.DOTALL,
)
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use|ports are not available", re.IGNORECASE)
_NO_IMAGE = re.compile(
    r"no such image|image not known|unable to find image|does not resolve to an image", re.IGNORECASE
)
_NO_PROGRAM = re.compile(
    r"executable file .*not found|no such file or directory: unknown|attempted to invoke a command that was not found",
    re.IGNORECASE,
)
_OTHER_ARCHITECTURE = re.compile(
    r"exec format error|does not match the (detected|specified) (host )?platform", re.IGNORECASE
)
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_SOURCE = re.compile(
    r"bind source path does not exist|statfs .*: (no such file|permission denied)|mounts denied", re.IGNORECASE
)
_NAME_TAKEN = re.compile(r"container name .* is already in use", re.IGNORECASE)
_NO_CONTAINER = re.compile(r"no such (container|object)|no container with name or id", re.IGNORECASE)

# What it means, with the words of `_words`.
_DISK_FULL: Known = (
    _NO_SPACE,
    EngineError,
    "{engine} has no space left on its disk.",
    "Make room: `{engine} system df` shows what takes it.",
)
_RUN_ERRORS: tuple[Known, ...] = (
    (_PORT_TAKEN, PortTaken, "A port was taken between its choice and its use.", ""),
    (_NO_IMAGE, ImageError, "{engine} has no image {image!r}.", "{missing_image}"),
    (
        _OTHER_ARCHITECTURE,
        ImageError,
        "The image {image!r} is made for another processor.",
        "Build or pull it for this machine's.",
    ),
    _DISK_FULL,
    (
        _NO_SOURCE,
        WorkdirError,
        "{engine} cannot mount {sources}.",
        "It may be gone, unreadable, or not shared with the engine.",
    ),
    (
        _NO_PROGRAM,
        ImageError,
        "The image {image!r} has no {program}.",
        "An image needs Python and ipykernel: `jupyter container-kernels build --base IMAGE` adds them.",
    ),
)


def _words(request: ContainerRequest, engine: str) -> dict[str, str]:
    return {
        "engine": engine,
        "image": request.image,
        "program": request.command[0],
        "sources": ", ".join(mount.source for mount in request.mounts),
        "missing_image": remedies.missing_image(request.image, engine),
    }


class Docker:
    """The `docker` command line."""

    name: ClassVar[str] = "docker"
    isolation: ClassVar[Isolation] = "container"
    install_hint: ClassVar[str] = "Install Docker, or choose another engine."
    start_hint: ClassVar[str] = "Start Docker: open Docker Desktop, or run `sudo systemctl start docker`."

    def unsuited(self) -> str:
        return ""

    async def start(self, progress: Progress) -> None:
        raise EngineUnavailable(f"{self.name}: it is not ours to start.", hint=self.start_hint)

    async def probe(self) -> EngineInfo:
        if shutil.which(self.name) is None:
            raise EngineUnavailable(f"{self.name}: the command is not on the path.", hint=self.install_hint)
        try:
            output = await command.run([self.name, "info", "--format", "{{json .}}"], timeout=ASKING)
        except CommandTimeout as error:
            raise EngineUnavailable(
                f"{self.name}: does not answer.", hint=self.start_hint, detail=error.message
            ) from None
        try:
            info = json.loads(output.stdout) if output.ok else {}
            # A client without its daemon may still exit with 0.
            if not info or info.get("ServerErrors"):
                raise self._unavailable(output.stderr.strip() or output.said)
            return self._info(info)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EngineUnavailable(
                f"{self.name}: its answer to `info` is not understood.", detail=f"{error!r}\n{output.said}"
            ) from None

    def _unavailable(self, said: str) -> EngineUnavailable:
        if "permission denied" in said.lower():
            return EngineUnavailable(
                f"{self.name}: permission denied.",
                hint=f"Your user may not use {self.name}: join its group (`sudo usermod -aG {self.name} $USER`, then log in again).",
                detail=said,
            )
        return EngineUnavailable(f"{self.name}: does not work.", hint=self.start_hint, detail=said)

    def _info(self, info: Mapping[str, Any]) -> EngineInfo:
        security = " ".join(info.get("SecurityOptions") or ())
        rootless = "name=rootless" in security
        system = str(info.get("OperatingSystem", ""))
        # Docker Desktop's shares make every file the caller's: https://docs.docker.com/desktop/features/file-sharing
        keeps_owner = rootless or "Docker Desktop" in system
        # userns-remap makes container root a subordinate uid, and any other user too. Not for a container that says `--userns host`:
        # https://docs.docker.com/engine/security/userns-remap/#disable-namespace-remapping-for-a-container
        remaps = "name=userns" in security and not keeps_owner
        return EngineInfo(
            engine=self.name,
            version=str(info["ServerVersion"]),
            isolation=self.isolation,
            rootless=rootless,
            keeps_owner=keeps_owner,
            architecture=str(info["Architecture"]),
            cpus=int(info["NCPU"]),
            description=f"{system}{', rootless' if rootless else ''}",
            user_options=("--userns", "host") if remaps else (),
        )

    async def run(self, request: ContainerRequest, *, timeout: float = RUNNING) -> None:
        argv = [self.name, *run_arguments(request)]
        try:
            output = await command.run(argv, timeout=timeout, cwd=self._run_directory())
        except CommandTimeout:
            await finish(clear_away(request.name, self._removed))
            raise
        if output.ok:
            return
        # A container that was created and could not start stays behind; one that has the name already is another's.
        if not _NAME_TAKEN.search(output.said):
            with contextlib.suppress(EngineError):  # the first error is the one to tell
                await self.remove(request.name)
        raise self._run_error(request, output.said)

    def _run_directory(self) -> Path | None:
        """Where the command runs; None is where this process is."""
        return None

    def _run_error(self, request: ContainerRequest, said: str) -> ContainerKernelError:
        return told(_RUN_ERRORS, said, _words(request, self.name)) or self._error("run a container", said)

    def _error(self, doing: str, said: str) -> ContainerKernelError:
        if _NOT_WORKING.search(said):
            return self._unavailable(said)
        return told((_DISK_FULL,), said, {"engine": self.name}) or EngineError(
            f"{self.name} could not {doing}.", detail=said
        )

    async def _ask(self, *arguments: str, doing: str, timeout: float = ASKING) -> str:
        output = await command.run([self.name, *arguments], timeout=timeout)
        if not output.ok:
            raise self._error(doing, output.said)
        return output.stdout

    async def inspect(self, name: str) -> ContainerState | None:
        output = await command.run([self.name, "container", "inspect", name], timeout=ASKING)
        if output.ok:
            return container_state(json.loads(output.stdout)[0])
        if _NO_CONTAINER.search(output.stderr):
            return None
        raise self._error(f"inspect {name}", output.said)

    async def address(self, name: str) -> OwnAddress | None:
        return None

    async def list(self) -> list[ContainerState]:
        names = await self._ask(
            "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}", doing="list containers"
        )
        if not names.split():
            return []
        output = await command.run([self.name, "container", "inspect", *names.split()], timeout=ASKING)
        # One that has gone since is missing from the answer, and makes its status 1.
        return [container_state(item) for item in json.loads(output.stdout or "[]")]

    async def logs(self, name: str, *, tail: int = 200) -> str:
        output = await command.run([self.name, "logs", "--tail", str(tail), name], timeout=ASKING)
        if not output.ok and _NO_CONTAINER.search(output.stderr):
            return ""
        return f"{output.stdout}{output.stderr}"

    async def remove(self, name: str) -> None:
        await self._removed(name)

    async def _removed(self, name: str) -> bool:
        """Whether this has removed it: false where there is none, and where its removal is under way already."""
        output = await command.run([self.name, "rm", "--force", "--volumes", name], timeout=REMOVING)
        if _NO_CONTAINER.search(output.stderr):  # some releases exit with 0 then, others do not
            return False
        if "already in progress" in output.stderr:  # its own `--rm` has begun
            return False
        if output.ok:
            return bool(output.stdout.strip())
        raise self._error(f"remove {name}", output.said)

    async def usage(self) -> Sequence[Usage]:
        running = {state.name for state in await self.list() if state.running}
        if not running:
            return []
        return [usage for usage in map(read_usage, await self._stats()) if usage is not None and usage.name in running]

    async def _stats(self) -> Iterable[Mapping[str, Any]]:
        # Of all containers: one of several names that has gone since would make it fail as a whole.
        answer = await self._ask("stats", "--no-stream", "--format", "{{json .}}", doing="measure containers")
        return [json.loads(line) for line in answer.splitlines() if line.strip()]

    async def image(self, reference: str) -> ImageInfo | None:
        output = await command.run([self.name, "image", "inspect", reference], timeout=ASKING)
        if output.ok:
            return _image_info(reference, json.loads(output.stdout)[0])
        if _NO_IMAGE.search(output.stderr) or "no such object" in output.stderr.lower():
            return None
        raise self._error(f"inspect the image {reference}", output.said)

    async def pull(self, reference: str, progress: Progress) -> None:
        output = await command.run([self.name, "pull", reference], timeout=FETCHING, on_line=progress)
        if not output.ok:
            raise ImageError(
                f"{self.name} could not pull {reference!r}.",
                hint=remedies.missing_image(reference, self.name),
                detail=output.said,
            )

    async def load(self, archive: Path, progress: Progress) -> Sequence[str]:
        words = [self.name, "load", "--input", str(archive)]
        output = await command.run(words, timeout=FETCHING, on_line=progress)
        if not output.ok:
            raise ImageError(f"{self.name} could not load {archive}.", detail=output.said)
        return re.findall(r"^Loaded image(?: ID|\(s\))?: (\S+)", output.stdout, re.MULTILINE)

    async def build(
        self,
        context: Path,
        *,
        tag: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> None:
        argv = [self.name, "build", "--file", str(context / "Containerfile"), "--tag", tag, *self._build_options()]
        argv += pairs("--build-arg", arguments)
        argv += pairs("--label", labels)
        output = await command.run([*argv, str(context)], timeout=FETCHING, on_line=progress)
        if not output.ok:
            raise BuildError(f"{self.name} could not build {tag!r}.", detail=output.said[-4000:])

    def _build_options(self) -> Iterable[str]:
        return ("--pull=false", "--force-rm", "--network", "none")

    async def output(self, image: str, command: Sequence[str]) -> str:
        program, *rest = command
        name = f"{NAME_PREFIX}{uuid.uuid4().hex[:12]}"
        labels = {LABEL: "output", OWNER_LABEL: await owner.this_process()}
        words = ["run", "--rm", "--pull", "never", "--name", name, *pairs("--label", labels)]
        words += ["--network", "none", "--stop-timeout", "0", "--entrypoint", program, image, *rest]
        try:
            return await self._ask(*words, doing=f"run {program} in {image}", timeout=RUNNING)
        except (CommandTimeout, asyncio.CancelledError):
            await finish(clear_away(name, self._removed))
            raise

    async def import_tar(self, archive: Path, *, tag: str) -> None:
        await self._ask("import", str(archive), tag, doing=f"import {archive}", timeout=FETCHING)


def run_arguments(request: ContainerRequest) -> list[str]:
    """What follows `docker` or `podman`: a detached container that removes itself, everything of ours before the image."""
    program, *rest = request.command
    arguments = ["run", "--detach", "--rm", "--pull", "never", "--name", request.name]
    arguments += ["--cpus", f"{request.cpus:g}", "--memory", str(request.memory), "--memory-swap", str(request.memory)]
    # Podman's `rm --force` would give PID 1 ten seconds; ours has nothing to save.
    arguments += ["--pids-limit", str(request.pids), "--stop-timeout", "0"]
    # SELinux would hide the mounted directories; relabelling a person's files is no answer.
    arguments += ["--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
    if request.user is not None:
        arguments += ["--user", request.user]
    for group in request.groups:
        arguments += ["--group-add", str(group)]
    for mount in request.mounts:
        arguments += ["--mount", mount_argument(mount)]
    for port in request.ports:
        arguments += ["--publish", f"127.0.0.1:{port.host}:{port.guest}"]
    arguments += pairs("--env", request.environment)
    arguments += pairs("--label", request.labels)
    arguments += request.engine_args
    return [*arguments, "--workdir", "/", "--entrypoint", program, request.image, *rest]


def mount_argument(mount: Mount) -> str:
    """The value of `--mount`: a line of CSV, so that commas, quotes and line ends in a path survive."""
    line = io.StringIO()
    values = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    csv.writer(line, lineterminator="\n").writerow([*values, "readonly"] if mount.read_only else values)
    return line.getvalue()[:-1]


def pairs(option: str, values: Mapping[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (option, f"{name}={value}")]


def instant(text: str) -> datetime:
    """An engine's RFC 3339 time; Go prints nanoseconds, which Python 3.10 does not read."""
    match = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?", text)
    if match is None:
        raise EngineError(f"{text!r} is not a time.")
    zone = "+00:00" if match[3] in (None, "Z") else match[3]
    return datetime.fromisoformat(f"{match[1]}T{match[2]}{zone if ':' in zone else f'{zone[:3]}:{zone[3:]}'}")


def container_state(item: Mapping[str, Any]) -> ContainerState:
    """From one element of `container inspect`, the same in Docker and Podman."""
    state, config = item["State"], item["Config"]
    running = bool(state["Running"])
    return ContainerState(
        name=str(item["Name"]).removeprefix("/"),
        image=str(config["Image"]),
        running=running,
        status=str(state["Status"]),
        exit_code=None if running else int(state["ExitCode"]),
        created=instant(str(item["Created"])),
        labels=config.get("Labels") or {},
    )


def _image_info(reference: str, item: Mapping[str, Any]) -> ImageInfo:
    return ImageInfo(
        reference=reference,
        id=str(item["Id"]),
        architecture=str(item["Architecture"]),
        created=instant(str(item["Created"])),
        size=int(item.get("Size", 0)),
        labels=(item.get("Config") or {}).get("Labels") or item.get("Labels") or {},
    )


def read_usage(item: Mapping[str, Any]) -> Usage | None:
    """From one line of `stats`; None for a container that ended meanwhile."""
    if "--" in str(item["MemUsage"]):
        return None
    used, limit = (_quantity(part) for part in str(item["MemUsage"]).split("/"))
    return Usage(
        name=str(item["Name"]),
        cpu_percent=float(str(item["CPUPerc"]).rstrip("%")),
        memory=used,
        memory_limit=limit,
        pids=int(item["PIDs"]),
    )


def _quantity(text: str) -> int:
    """Bytes of `12.5MiB` (1024) or `12.5MB` (1000)."""
    text = text.strip()
    if "i" in text or text[-2:-1].isdigit():
        return size(text)
    match = re.fullmatch(r"([\d.]+)\s*([kMGT]?)B", text)
    if match is None:
        raise EngineError(f"{text!r} is not a quantity of memory.")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2] or " "))
