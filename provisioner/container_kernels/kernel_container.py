"""One running container, made for one kernel, and what is known of the kernel in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from . import __version__, config
from .control import Address, Control, outcome, unending
from .engines import remedies
from .engines.protocol import LABEL, NAME_PREFIX, ContainerRequest, Engine, EngineInfo, Mount
from .errors import ContainerKernelError, EngineError, GuestError, ImageError, KernelStartError, PortTaken
from .finish import finish
from .guest import boot, wire
from .ports import HOST, Ports
from .spec import Spec
from .user import User
from .workdir import Workdir

GUEST_MOUNT = Mount(str(Path(wire.__file__).parent), "/opt/container-kernels/container_kernels_guest", read_only=True)
BOOT = "import sys; sys.path.insert(0, '/opt/container-kernels'); import container_kernels_guest.boot as b; b.main()"

TIME_TO_LIVE = 120.0  # seconds for the first host to come
LEASE_GRACE = 10.0  # seconds without a host
IDLE_GRACE = 60.0  # seconds without a kernel: a restart may follow
ATTEMPTS = 5  # at finding six free ports
SETTLING = 10.0  # seconds for ports that must be the same to become free
ANSWER = 5.0  # seconds for a supervisor's answer that needs no work
GUEST_PORTS = Ports(wire.KERNEL_PORTS, wire.SUPERVISOR_PORT)
WATCH = (
    0.5  # seconds until the first look at a container that does not greet; each look costs two commands of the engine
)


@dataclass(frozen=True)
class Start:
    """What one start of a kernel sets: all that a container which is up already can still be told.

    `connection` holds key and signature_scheme, as text; `curve` the two CurveZMQ keys, or nothing. `returning` says that clients of
    a container that is lost come back to this one.
    """

    connection: Mapping[str, str]
    curve: Mapping[str, str]
    environment: Mapping[str, str]
    cwd: str | None = None
    argv: tuple[str, ...] = ()
    extra_arguments: tuple[str, ...] = ()
    returning: bool = False


def container_request(
    spec: Spec, info: EngineInfo, workdir: Workdir, user: User, labels: Mapping[str, str]
) -> ContainerRequest:
    """What to run for the spec: everything but the ports and the token, which each container has of its own."""
    return ContainerRequest(
        name=new_name(),
        image=spec.image,
        command=("python3", "-c", BOOT),
        cpus=min(spec.cpus, float(info.cpus)),
        memory=spec.memory,
        pids=spec.pids,
        user=user.uid_gid,
        groups=user.groups,
        mounts=(GUEST_MOUNT, *workdir.mounts),
        labels={LABEL: __version__, **{f"{LABEL}.{name}": value for name, value in labels.items()}},
        engine_args=(*user.engine_args, *spec.engine_args),
    )


def new_name() -> str:
    return f"{NAME_PREFIX}{uuid.uuid4().hex[:12]}"


def guest_settings(spec: Spec, workdir: Workdir) -> dict[str, Any]:
    """What the supervisor is told at its birth, besides the token's digest; the guest's `Settings` read it."""
    covered = any(Path("/tmp").is_relative_to(mount.target) for mount in workdir.mounts)
    return {
        "time_to_live": max(TIME_TO_LIVE, spec.startup_timeout),
        "lease_grace": LEASE_GRACE,
        "idle_grace": IDLE_GRACE,
        "scratch": "/var/tmp" if covered else "/tmp",
        "umask": config.umask(),
        "preload": list(spec.preload),
        "template": not spec.argv,
    }


class KernelContainer:
    """A container whose supervisor answers. Made by `launch`; ended by `end`, or by itself."""

    def __init__(
        self, engine: Engine, name: str, image: str, ports: Ports, token: str, log: logging.Logger, *, host: str = HOST
    ) -> None:
        self.engine = engine
        self.name = name
        self.image = image
        self.ports = ports
        self._gone = unending()
        self.ended = unending()  # of the kernel of this moment
        self.ending: wire.Ending | None = None
        self.gone_reason = ""
        self.has_died = False  # ended, and nobody had asked for it
        self.had_kernel = False  # when it was claimed
        self._running = False
        self._ending_it = False
        self._log = log
        self._control = self._control_at(host, token)

    def __repr__(self) -> str:
        state = "lost" if not self.is_usable else "running" if self._running else "idle"
        return f"<KernelContainer {self.name} {self.engine.name} {state}>"

    @property
    def host(self) -> str:
        """Where the kernel is reached: the loopback, or the container's own address."""
        return self._control.address.host

    @property
    def reached_ports(self) -> Ports:
        """The ports at `host`; `ports` are those that are published on the loopback."""
        return self.ports if self.host == HOST else GUEST_PORTS

    def _control_at(self, host: str, token: str) -> Control:
        port = self.ports.supervisor if host == HOST else wire.SUPERVISOR_PORT

        def lose() -> None:
            if control is self._control:
                self._lose()

        control = Control(Address(host, port, token), on_event=self._hear, on_lost=lose, log=self._log)
        return control

    @classmethod
    async def launch(
        cls,
        engine: Engine,
        request: ContainerRequest,
        settings: Mapping[str, Any],
        *,
        ports: Ports | None,
        wanted: Mapping[str, int],
        deadline: float,
        greeting: float = math.inf,
        log: logging.Logger,
    ) -> KernelContainer:
        """A new container, whose supervisor has greeted before `deadline` (of `time.monotonic`), and within `greeting` seconds of its start.

        `ports` are used if they are given, else new ones chosen. Nothing is left behind when it raises, or is cancelled.
        """
        token = secrets.token_urlsafe(32)
        guest = json.dumps({**settings, "token_digest": wire.digest(token)})
        request = replace(request, environment={**request.environment, "CONTAINER_KERNELS_GUEST": guest})
        ports = await _run(engine, request, ports, wanted, deadline)
        container = cls(engine, request.name, request.image, ports, token, log)
        try:
            await container._greeted(min(deadline, time.monotonic() + greeting))
        except BaseException:
            await container.discard()
            raise
        return container

    def persisted(self) -> dict[str, Any]:
        """What another process needs to take the container over with `attach`, as JSON-like values. It holds the token: keep it private."""
        address = self._control.address
        return {
            "engine": self.engine.name,
            "name": self.name,
            "image": self.image,
            "host": address.host,
            "token": address.token,
            "ports": {**self.ports.kernel, "supervisor": self.ports.supervisor},
        }

    async def shelve(self, time_to_live: float, curve: Mapping[str, str], deadline: float) -> dict[str, Any]:
        """The container is as ready as it can be, and waits for a claim for `time_to_live` seconds, without us.

        Returns what the supervisor knows: `parked` (whether a kernel waits in it, which has `curve` as its keys), `facts`, `memory` (bytes).
        The container is gone when it raises.
        """
        request = self._control.request("shelve", time_to_live=time_to_live, curve=dict(curve))
        try:
            answer = await outcome(request, max(1.0, deadline - time.monotonic()))
        except BaseException as error:
            found = await self._start_error(error)
            await self.discard()
            raise found from error
        self._control.close()
        return answer

    @classmethod
    async def claim(
        cls, engine: Engine, persisted: Mapping[str, Any], *, deadline: float, log: logging.Logger
    ) -> KernelContainer:
        """The container of an earlier `persisted`, shelved since, and nobody else's from now on; unless it `had_kernel` already.

        Raises GuestError when it does not answer before `deadline` (of `time.monotonic`); it is not removed then.
        """
        container = cls._known(engine, persisted, log)
        try:
            welcome = container._control.open(deadline, listens=True)
            container.had_kernel = await outcome(welcome, max(0.0, deadline - time.monotonic()) + WATCH)
        except asyncio.TimeoutError:
            container._control.close()
            raise GuestError(f"The container {container.name} does not answer.") from None
        except BaseException:
            container._control.close()
            raise
        return container

    @classmethod
    def _known(cls, engine: Engine, persisted: Mapping[str, Any], log: logging.Logger) -> KernelContainer:
        ports = dict(persisted["ports"])
        supervisor = ports.pop("supervisor")
        name, image, token = persisted["name"], persisted["image"], persisted["token"]
        return cls(engine, name, image, Ports(ports, supervisor), token, log, host=persisted.get("host", HOST))

    @classmethod
    async def attach(cls, engine: Engine, persisted: Mapping[str, Any], *, log: logging.Logger) -> KernelContainer:
        """The container of an earlier `persisted`, with the kernel that runs in it, or that has ended since.

        Raises GuestError when it does not answer.
        """
        container = cls._known(engine, persisted, log)
        container._running = True  # until we are told otherwise
        try:
            runs = await outcome(container._control.open(time.monotonic() + ANSWER), ANSWER + 1)
        except BaseException:
            container._control.close()
            raise
        if not runs:
            await container._told_of_end()
        return container

    async def _told_of_end(self) -> None:
        """The supervisor tells a new host how the last kernel ended; one that was never started ends here."""
        try:
            await outcome(self.ended, ANSWER)
        except asyncio.TimeoutError:
            self._set_ending(wire.Ending(), "No kernel runs in the container.", expected=True)

    async def _greeted(self, deadline: float) -> None:
        """Raises when the supervisor does not greet, as soon as the engine or the log says why.

        Where it greets at the container's own address, and still not through the published ports, it is reached there from now on.
        """
        direct = _Direct(self)
        try:
            await self._greeted_somewhere(deadline, direct)
        finally:
            direct.close()

    async def _greeted_somewhere(self, deadline: float, direct: _Direct) -> None:
        welcome = self._control.open(deadline)
        watch = WATCH
        while True:
            try:
                await outcome(welcome, watch)
                return
            except asyncio.TimeoutError:
                if direct.has_greeted:
                    # The other's thread ends when it is closed, and must find that it is not the container's any more.
                    old, self._control = self._control, direct.taken()
                    old.close()
                    direct.advise()
                    return
                watch *= 2
            except GuestError as error:
                error.detail = (await self.engine.logs(self.name)).strip()
                raise
            log = await self.engine.logs(self.name)
            if boot.FAILED in log:
                raise ImageError(
                    "The image's Python could not start the supervisor.",
                    hint="It must be 3.9 or newer, and /tmp writable.",
                    detail=log,
                )
            state = await self.engine.inspect(self.name)
            if state is None or not state.running:
                raise await self._stillborn(log)
            await direct.look(deadline)

    async def _stillborn(self, log: str) -> ContainerKernelError:
        """Why a container ended at once; its log may be gone with it."""
        info, image = await self.engine.probe(), await self.engine.image(self.image)
        if image is not None and machine(image.architecture) != machine(info.architecture):
            return ImageError(
                f"The image {self.image!r} is made for another processor: {image.architecture}, and not {info.architecture}.",
                hint="Build or pull it for this machine's.",
                detail=log,
            )
        return EngineError(
            "The container ended before its supervisor had greeted.",
            hint=f"See what it says: `{remedies.said(self.engine.name, 'run')} --rm --entrypoint python3 {self.image} --version`.",
            detail=log,
        )

    # -- What the supervisor says (in the connection's thread)

    def _hear(self, message: wire.Message) -> None:
        if message.get("event") == "ended":
            self._set_ending(wire.Ending.from_message(message), "", expected=message.get("expected") is True)

    def _lose(self) -> None:
        self._gone.set_result(None)
        reason = f"The container {self.name} is lost: it was removed, its engine was stopped, or it does not answer any more."
        self._set_ending(wire.Ending(signal=9), reason, expected=self._ending_it)

    def _set_ending(self, ending: wire.Ending, reason: str, *, expected: bool) -> None:
        if self._running:
            self._running = False
            self.has_died = not expected
            self.gone_reason = reason
            self.ending = ending
            self.ended.set_result(None)

    # -- The kernel

    @property
    def reason(self) -> str:
        """Why the kernel ended, as a sentence; empty while it runs."""
        return self.gone_reason or (self.ending.reason if self.ending else "")

    def poll(self) -> int | None:
        """None while the kernel runs; else its exit code, negative for a signal."""
        return self.ending.code if self.ending else None

    @property
    def is_usable(self) -> bool:
        """Whether a kernel can be started in it."""
        return not self._gone.done()

    async def start(self, start: Start, deadline: float, *, with_log: bool = True) -> dict[str, Any]:
        """A kernel runs, its sockets are bound; what the supervisor knows of the image's Python is returned.

        Raises KernelStartError, ImageError or GuestError, with the container's log unless that is not wanted, since an engine takes its
        time to tell it; the container is then good for nothing but its end.
        """
        self.ending, self.gone_reason, self.has_died, self.ended = None, "", False, unending()
        self._running = True
        request = self._control.request(
            "start",
            connection={**start.connection, **start.curve},
            environment=dict(start.environment),
            cwd=start.cwd,
            argv=list(start.argv),
            extra_arguments=list(start.extra_arguments),
            returning=start.returning,
        )
        try:
            answer = await outcome(request, max(1.0, deadline - time.monotonic()))
        except BaseException as error:
            self._running = False
            raise await self._start_error(error, with_log=with_log) from error
        facts = answer.get("facts")
        return facts if isinstance(facts, dict) else {}

    async def _start_error(self, error: BaseException, *, with_log: bool = True) -> BaseException:
        if isinstance(error, asyncio.TimeoutError):
            timeout = KernelStartError(
                "The kernel did not start in time.",
                hint="Raise startup_timeout, or give the container more cpu and memory.",
            )
            timeout.detail = await self.tail() if with_log else ""
            return timeout
        if isinstance(error, KernelStartError) and error.kind in IMAGE_REMEDIES:
            return ImageError(error.message, hint=IMAGE_REMEDIES[error.kind])
        if with_log and isinstance(error, (KernelStartError, GuestError)):
            error.detail = await self.tail()
        return error

    async def tail(self) -> str:
        """The end of the container's log; what stands in the way of reading it is no reason to fail."""
        with contextlib.suppress(ContainerKernelError):
            return (await self.engine.logs(self.name, tail=30)).strip()
        return ""

    async def signal(self, number: int) -> None:
        """The kernel's process group has got the signal; a kernel that has ended does not mind."""
        if self._running:
            with contextlib.suppress(GuestError, asyncio.TimeoutError, KernelStartError):
                await outcome(self._control.request("signal", signal=int(number)), ANSWER)

    async def kill(self) -> None:
        """The kernel is gone; with its container, where the supervisor does not obey."""
        if not self._running:
            return
        try:
            await outcome(self._control.request("kill"), ANSWER)
            await outcome(self.ended, ANSWER)
        except GuestError:
            pass
        except asyncio.TimeoutError:
            await self.discard()

    async def expect_end(self) -> None:
        """The kernel is about to end because it was asked to: that is no death to be told."""
        if self._running:
            with contextlib.suppress(GuestError, asyncio.TimeoutError, KernelStartError):
                await outcome(self._control.request("expect_end"), ANSWER)

    # -- The container

    async def end(self) -> None:
        """The container has ended, and the engine removes it. What prevents that is in the log, and no reason to fail."""
        self._ending_it = True
        if self.is_usable:
            with contextlib.suppress(GuestError, asyncio.TimeoutError):
                await outcome(self._control.ask_to_end(), ANSWER)
                await outcome(self._gone, ANSWER)
                self._control.close()
                return
        # Its connection may be lost, and the container still run.
        await self.discard()

    def abandon(self) -> None:
        """The container ends by itself when its lease is over; nothing waits for it."""
        self._ending_it = True
        self._control.close()

    async def remove(self) -> None:
        """The engine says that the container is gone."""
        self._ending_it = True
        self._control.close()
        await finish(self.engine.remove(self.name))

    async def discard(self) -> None:
        """The container is removed, or the log says what prevented it: there is a worse error to tell."""
        try:
            await self.remove()
        except ContainerKernelError as error:
            self._log.warning("The container %s could not be removed, and ends by itself: %s", self.name, error)


class _Direct:
    """The way to a container's own address, for where its published ports lead nowhere."""

    advised: ClassVar[set[str]] = set()  # names of engines whose advice was given in this process

    def __init__(self, container: KernelContainer) -> None:
        self._container = container
        self._control: Control | None = None
        self._advice = ""

    async def look(self, deadline: float) -> None:
        """The supervisor is called there, if there is such an address; once."""
        container = self._container
        if self._control is None and (address := await container.engine.address(container.name)) is not None:
            self._advice = address.advice
            self._control = container._control_at(address.host, container._control.address.token)
            self._control.open(deadline)

    @property
    def has_greeted(self) -> bool:
        welcome = self._control.welcome if self._control else None
        return welcome is not None and welcome.done() and welcome.exception() is None

    def taken(self) -> Control:
        """It is the container's from now on."""
        assert self._control is not None
        control, self._control = self._control, None
        return control

    def advise(self) -> None:
        """The person is told, once."""
        engine = self._container.engine.name
        if engine not in self.advised:
            self.advised.add(engine)
            self._container._log.warning("%s", self._advice)

    def close(self) -> None:
        if self._control is not None:
            self._control.close()


IMAGE_REMEDIES = {
    "no-ipykernel": "Add it: `jupyter container-kernels build --base IMAGE --tag NAME`, or choose another image.",
    "old-ipykernel": "Build the image anew with a newer ipykernel.",
}


async def _run(
    engine: Engine, request: ContainerRequest, ports: Ports | None, wanted: Mapping[str, int], deadline: float
) -> Ports:
    """The container runs, with the ports that it got. Asked for certain ports, it waits for them to become free."""
    fixed = ports is not None or any(wanted.values())
    settled = time.monotonic() + SETTLING
    attempt = 0
    while True:
        chosen = ports or Ports.choose(wanted)
        try:
            timeout = max(1.0, deadline - time.monotonic())
            run = engine.run(replace(request, ports=chosen.published), timeout=timeout)
            await finish(run, undo=lambda: engine.remove(request.name))
            return chosen
        except PortTaken as error:
            attempt += 1
            if fixed and time.monotonic() > settled:
                numbers = ", ".join(str(port.host) for port in chosen.published)
                raise PortTaken(
                    f"One of the ports {numbers} is in use by another program.", hint="End it.", detail=error.detail
                ) from None
            if not fixed and attempt == ATTEMPTS:
                raise


def machine(architecture: str) -> str:
    """One spelling of an architecture: images say amd64 where `uname -m` says x86_64."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture)
