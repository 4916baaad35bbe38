"""Apple's `container`: a virtual machine for each container, on a Mac. By its CLI, as it has nothing else.

What it accepts and does was read in its source, of the releases that `releases` names; no release is trusted to end a call by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ... import command, owner
from ...command import Output
from ...errors import (
    BuildError,
    CommandTimeout,
    ContainerKernelError,
    EngineError,
    EngineUnavailable,
    ImageError,
    ServiceStopped,
)
from ...finish import finish
from .. import remedies
from ..aftermath import clear_away, told
from ..protocol import (
    LABEL,
    NAME_PREFIX,
    OWNER_LABEL,
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
from . import answers, boots, said
from .archive import write_layout
from .arguments import mebibytes, pairs, run_arguments, whole_cpus
from .releases import NEWEST_READ, OLDEST, Release

ASKING = 20.0  # seconds: a question to the service, which gives its own up to 10 seconds
REMOVING = 60.0  # a container removed: its boot may have to end first
BRIEFLY = 5.0  # the same, while somebody waits for another
FETCHING = 3600.0  # an image pulled, built, loaded or unpacked
NEVER_RUN = "true"  # without a command, an image that has none cannot be created from
STARTING = 1800.0  # the service started: the first time it downloads a Linux kernel
AGAIN = 0.2  # seconds before what was refused for a moment is tried again
TRIES = 5  # of a start that the service was too busy for
APART = 1.0  # seconds between two measurements, where no earlier one is known
STALE = 60.0  # seconds after which an earlier measurement tells nothing of the present

MAC = "darwin"
TAHOE = 25  # Darwin's number for macOS 26. Python may be told 16 for that one: https://github.com/python/cpython/issues/135675

_log = logging.getLogger(__name__)
_rounded: set[float] = set()


class Apple:
    """The `container` command line."""

    name: ClassVar[str] = "apple"
    isolation: ClassVar[Isolation] = "vm"
    program: ClassVar[str] = "container"

    def __init__(self) -> None:
        self._release: Release | None = None
        self._measured: dict[str, tuple[float, answers.Counters]] = {}
        self._left: set[str] = set()  # names of containers that could not be removed

    # -- The engine itself

    def unsuited(self) -> str:
        if sys.platform != MAC:
            return "It needs a Mac with Apple silicon."
        if platform.machine() != "arm64":
            return "It needs Apple silicon, and a Python that is not Intel's."
        if int(os.uname().release.partition(".")[0]) < TAHOE:
            return "It needs macOS 26 or newer."
        return ""

    async def probe(self) -> EngineInfo:
        if shutil.which(self.program) is None:
            hint = self.unsuited() or "Install it (https://github.com/apple/container/releases), or use another engine."
            raise EngineUnavailable(f"apple: the command `{self.program}` is not on the path.", hint=hint)
        release = self._release = await self._installed()
        status = await self._answered("system", "status")
        if not status.ok:
            raise ServiceStopped(
                "apple: the service of `container` does not run.",
                hint=f"Start it: `{said.START}`, after each login.",
                detail=status.said,
            )
        newer = f"newer than {NEWEST_READ}, the last that was read" if release.is_newer_than_read else ""
        return EngineInfo(
            engine=self.name,
            version=str(release.version),
            isolation=self.isolation,
            rootless=True,
            keeps_owner=True,  # the VM's files are shared by a process of the person's
            architecture=self._architecture,
            cpus=os.cpu_count() or 1,
            description=", ".join(part for part in ("a virtual machine for each container", newer) if part),
        )

    async def _installed(self) -> Release:
        output = await self._answered("--version")
        release = Release.from_line(output.stdout)
        if release is None:
            raise EngineUnavailable(
                f"apple: the command `{self.program}` is not Apple's, or does not work.", detail=output.said
            )
        if release.is_too_old:
            raise EngineUnavailable(
                f"apple: `{self.program}` {release.version} is too old; {OLDEST} or newer is needed.",
                hint="Install a newer one: https://github.com/apple/container/releases",
            )
        return release

    async def _answered(self, *arguments: str) -> Output:
        """For a question that tells whether the engine works: one that hangs does not."""
        try:
            return await command.run([self.program, *arguments], timeout=ASKING)
        except CommandTimeout as error:
            raise EngineUnavailable(
                "apple: the service of `container` does not answer.",
                hint=f"Log out and in again, or restart it: `container system stop`, which ends all its containers, then `{said.START}`.",
                detail=error.message,
            ) from None

    async def start(self, progress: Progress) -> None:
        from ...spec import ENV_PREFIX, FIELDS  # which begins with an import from this package

        progress("Starting the service of `container`; the first time, it downloads a Linux kernel.")
        # It writes variables of its own prefix into a file, for the service: ours have that prefix, and may hold secrets.
        ours = [word for name in FIELDS for word in ("-u", f"{ENV_PREFIX}{name.upper()}")]
        argv = ["env", *ours, self.program, "system", "start", "--enable-kernel-install"]
        output = await command.run(argv, timeout=STARTING, on_line=progress)
        if not output.ok:
            raise EngineUnavailable(
                "apple: the service of `container` could not be started.",
                hint="It needs a login session at the screen.",
                detail=output.said,
            )

    @property
    def _architecture(self) -> str:
        # On a Mac it runs on nothing else, though a Python made for Intel says otherwise.
        return "aarch64" if sys.platform == MAC else answers.architecture(platform.machine())

    @property
    def _platform(self) -> str:
        """Named always: a variable or a file of the person's may set another default."""
        return f"linux/{'arm64' if self._architecture == 'aarch64' else 'amd64'}"

    # -- Containers

    async def run(self, request: ContainerRequest, *, timeout: float = RUNNING) -> None:
        deadline = time.monotonic() + timeout
        arguments = run_arguments(request, self._platform)
        await self._must_have(request.image)
        await self._remove_what_is_left()
        if request.cpus != whole_cpus(request.cpus) and request.cpus not in _rounded:
            _rounded.add(request.cpus)
            _log.info(
                "A virtual machine has whole processors: cpus = %g is %d.", request.cpus, whole_cpus(request.cpus)
            )
        output = await self._booted(arguments, request.name, deadline)
        if output.ok:
            return
        # What was created and could not start may stay behind; one that has the name already is another's.
        if not said.NAME_TAKEN.search(output.said):
            with contextlib.suppress(ContainerKernelError):  # the first error is the one to tell
                await self.remove(request.name)
        words = {
            "image": request.image,
            "program": request.command[0],
            "sources": ", ".join(mount.source for mount in request.mounts),
            "missing_image": remedies.missing_image(request.image, self.name),
            "memory": str(mebibytes(request.memory)),
            "name": request.name,
        }
        raise told(said.RUN_ERRORS, output.said, words) or self._error("run a container", output)

    async def _booted(self, arguments: Sequence[str], name: str, deadline: float) -> Output:
        """The end of a `run`, in its turn. Nothing is left of one that passes the deadline."""
        async with boots.turn(deadline):
            tries = 0
            while True:
                tries += 1
                try:
                    left = max(0.0, deadline - time.monotonic())
                    output = await command.run([self.program, *arguments], timeout=left)
                except (CommandTimeout, asyncio.CancelledError):
                    await finish(clear_away(name, self._removed))
                    raise
                if output.ok or tries == TRIES or not said.RETRY.search(output.said):
                    return output
                await asyncio.sleep(AGAIN)

    async def _must_have(self, reference: str) -> None:
        """`run` would fetch a missing image from a registry, where anybody may have put one of that name; and a VM with an image for
        another processor starts, and hangs."""
        image = await self._image(reference)
        if image is None:
            hint = remedies.missing_image(reference, self.name)
            raise ImageError(f"apple has no image {reference!r}.", hint=hint)
        if self._architecture not in image.architectures:
            raise ImageError(
                f"The image {reference!r} is made for another processor: {', '.join(image.architectures)}, and not {self._architecture}.",
                hint="Build or pull it for this machine's.",
            )

    async def inspect(self, name: str) -> ContainerState | None:
        found = await self._inspected(name)
        return answers.items(found, answers.container_state, what=name)[0] if found else None

    async def _inspected(self, name: str) -> str:
        """The answer about a container; empty where there is none, which older releases do not call an error."""
        output = await command.run([self.program, "inspect", name], timeout=ASKING)
        if output.ok:
            return "" if output.stdout.strip() == "[]" else output.stdout
        if said.NO_CONTAINER.search(output.said):
            return ""
        raise self._error(f"inspect {name}", output)

    async def address(self, name: str) -> OwnAddress | None:
        found = await self._inspected(name)
        address = answers.items(found, answers.address, what=name)[0] if found else None
        if address is None:
            return None
        return OwnAddress(
            address,
            "The published ports of `container` lead nowhere, so the virtual machine's own address is used. In the System Settings, "
            "under Privacy & Security, Local Network, allow container-runtime-linux, then restart the service.",
        )

    async def list(self) -> list[ContainerState]:
        answer = await self._ask("list", "--all", "--format", "json", doing="list containers")
        states = answers.items(answer, answers.container_state, what="its containers")
        return [state for state in states if LABEL in state.labels]

    async def logs(self, name: str, *, tail: int = 200) -> str:
        output = await command.run([self.program, "logs", "-n", str(tail), name], timeout=ASKING)
        if output.ok:
            return output.stdout
        if said.NO_CONTAINER.search(output.said):
            return ""
        if said.SERVICE_STOPPED.search(output.said):
            raise self._error(f"read the log of {name}", output)
        return f"{output.stdout}{output.stderr}"  # one that was not started has none; one that is no UTF-8 is not told

    async def remove(self, name: str) -> None:
        await self._removed(name)

    async def _removed(self, name: str, patience: float | None = None) -> bool:
        """Whether this has removed it; false where there is none."""
        self._left.add(name)
        was_there = await self._deleted(name, time.monotonic() + (REMOVING if patience is None else patience))
        self._left.discard(name)
        return was_there

    async def _remove_what_is_left(self) -> None:
        """The service may have been away when these were to be removed."""
        for name in tuple(self._left):
            with contextlib.suppress(ContainerKernelError):
                await self._removed(name, BRIEFLY)

    async def _deleted(self, name: str, deadline: float) -> bool:
        release = self._release or await self._installed()
        was_there = False
        if not release.has("a forced deletion gives the address back"):
            was_there = await self._stopped(name)
        while True:
            left = max(0.0, deadline - time.monotonic())
            output = await command.run([self.program, "delete", "--force", name], timeout=left)
            if output.ok:
                return True
            if said.NO_CONTAINER.search(output.said):
                return was_there
            was_there = True
            if not said.STILL_ENDING.search(output.said) or time.monotonic() > deadline:
                raise self._error(f"remove {name}", output)
            await asyncio.sleep(AGAIN)

    async def _stopped(self, name: str) -> bool:
        """Whether there is a container to stop. One that cannot be stopped may still be deleted."""
        output = await command.run([self.program, "stop", "--signal", "KILL", "--time", "1", name], timeout=REMOVING)
        return not said.NO_CONTAINER.search(output.said)

    # -- What they use

    async def usage(self) -> Sequence[Usage]:
        """Each measurement takes the service two seconds; where none of the last minute is known, two are taken."""
        ours = {state.name for state in await self.list() if state.running}
        if not ours:
            return []
        if ours <= self._recently_measured():
            before, now = self._measured, await self._measure()
        else:
            before, now = await self._two_measurements()
        self._measured = now
        return [_usage(before[name], now[name]) for name in sorted(ours & before.keys() & now.keys())]

    def _recently_measured(self) -> set[str]:
        return {name for name, (when, _) in self._measured.items() if time.monotonic() - when < STALE}

    async def _two_measurements(self) -> tuple[dict[str, _Measured], dict[str, _Measured]]:
        first = asyncio.ensure_future(self._measure())
        try:
            await asyncio.sleep(APART)
            now = await self._measure()
            return await first, now
        finally:
            first.cancel()

    async def _measure(self) -> dict[str, _Measured]:
        answer = await self._ask("stats", "--no-stream", "--format", "json", doing="measure containers")
        moment = time.monotonic()
        found = answers.items(answer, answers.counters, what="what containers use")
        return {each.name: (moment, each) for each in found if each is not None}

    # -- Images

    async def image(self, reference: str) -> ImageInfo | None:
        found = await self._image(reference)
        return None if found is None else found.info

    async def _image(self, reference: str) -> answers.Image | None:
        output = await command.run([self.program, "image", "inspect", reference], timeout=ASKING)
        if output.ok and output.stdout.strip() != "[]":

            def read(item: answers.Item) -> answers.Image:
                return answers.image(reference, self._architecture, item)

            return answers.items(output.stdout, read, what=reference)[0]
        if output.ok or said.NO_IMAGE.search(output.said):
            return None
        raise self._error(f"inspect the image {reference}", output)

    async def pull(self, reference: str, progress: Progress) -> None:
        words = ["image", "pull", "--platform", self._platform, "--progress", "plain", reference]
        output = await command.run([self.program, *words], timeout=FETCHING, on_line=progress)
        if not output.ok:
            hint = remedies.missing_image(reference, self.name)
            raise told(said.ERRORS, output.said, {}) or ImageError(
                f"apple could not pull {reference!r}.", hint=hint, detail=output.said
            )
        await self._unpack(reference, progress)

    async def build(
        self,
        context: Path,
        *,
        tag: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> None:
        words = ["build", "--file", str(context / "Containerfile"), "--tag", tag, "--platform", self._platform]
        words += ["--progress", "plain", *pairs("--build-arg", arguments), *pairs("--label", labels), str(context)]
        output = await command.run([self.program, *words], timeout=FETCHING, on_line=progress)
        if not output.ok:
            raise told(said.ERRORS, output.said, {}) or BuildError(
                f"apple could not build {tag!r}.", detail=output.said[-4000:]
            )
        await self._unpack(tag, progress)

    async def load(self, archive: Path, progress: Progress) -> Sequence[str]:
        output = await command.run([self.program, "image", "load", "--input", str(archive)], timeout=FETCHING)
        if not output.ok:
            raise told(said.ERRORS, output.said, {}) or ImageError(
                f"apple could not load {archive}.",
                hint="It takes an OCI layout: `podman save --format oci-archive`, or `docker save` from Docker 25 on.",
                detail=output.said,
            )
        # Older releases print a heading first.
        references = [line.strip() for line in output.stdout.splitlines() if line.strip() and " " not in line.strip()]
        for reference in references:
            await self._unpack(reference, progress)
        return references

    async def import_tar(self, archive: Path, *, tag: str) -> None:
        full = tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest"
        with tempfile.TemporaryDirectory() as directory:
            layout = Path(directory) / "image.tar"
            architecture = self._platform.partition("/")[2]
            await asyncio.to_thread(write_layout, archive, layout, name=full, architecture=architecture)
            loaded = await self.load(layout, _log.debug)
        if await self.image(tag) is None:
            for reference in loaded:
                await self._ask("image", "tag", reference, tag, doing=f"name the image {tag}")

    async def _unpack(self, reference: str, progress: Progress) -> None:
        """The image is a disk: that takes its time, once, which the first kernel would spend otherwise. A creation does it."""
        await self._must_have(reference)
        progress(f"Unpacking {reference} for virtual machines.")
        async with self._throw_away("create", reference, (), NEVER_RUN, timeout=FETCHING):
            pass

    async def output(self, image: str, command: Sequence[str]) -> str:
        await self._must_have(image)
        program, *rest = command
        options = ["--rm", "--progress", "none", "--network", "none", "--entrypoint", program]
        thrown_away = self._throw_away("run", image, options, *rest, timeout=RUNNING)
        async with boots.turn(time.monotonic() + RUNNING), thrown_away as answer:
            return answer

    @contextlib.asynccontextmanager
    async def _throw_away(
        self, verb: str, image: str, options: Sequence[str], *arguments: str, timeout: float
    ) -> AsyncIterator[str]:
        """What the verb prints; the container is gone afterwards, whatever happens: its command's end does not end it."""
        name = f"{NAME_PREFIX}{uuid.uuid4().hex[:12]}"
        labels = {LABEL: "output", OWNER_LABEL: await owner.this_process()}
        words = [verb, "--platform", self._platform, "--cpus", "1", "--memory", "512m", "--name", name]
        words += [*pairs("--label", labels), *options, image, *arguments]
        try:
            answer = await self._ask(*words, doing=f"{verb} a container of {image}", timeout=timeout)
        except (CommandTimeout, asyncio.CancelledError):
            await finish(clear_away(name, self._removed))
            raise
        except ContainerKernelError:
            await finish(self._removed(name))
            raise
        try:
            yield answer
        finally:
            await finish(self._removed(name))

    # -- Words

    async def _ask(self, *arguments: str, doing: str, timeout: float = ASKING) -> str:
        output = await command.run([self.program, *arguments], timeout=timeout)
        if not output.ok:
            raise self._error(doing, output)
        return output.stdout

    def _error(self, doing: str, output: Output) -> ContainerKernelError:
        words = output.said or f"Its command ended with status {output.status}, and said nothing."
        return told(said.ERRORS, words, {}) or EngineError(f"apple could not {doing}.", detail=words)


_Measured = tuple[float, answers.Counters]


def _usage(before: _Measured, now: _Measured) -> Usage:
    (then, old), (moment, new) = before, now
    seconds = max(moment - then, 1e-3)
    return Usage(
        name=new.name,
        cpu_percent=max(0, new.cpu - old.cpu) / 1e4 / seconds,
        memory=new.memory,
        memory_limit=new.memory_limit,
        pids=new.pids,
    )
