"""Jupyter's contract, translated: what a kernel manager asks, said to a kernel's container."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import zmq
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerBase

from . import engines, owner, user, workdir
from .config import SettingTraits, home, host_environment, read_spec
from .control import outcome
from .engines.protocol import Engine, EngineInfo
from .environment import asked_for, kernel_environment
from .errors import (
    ContainerKernelError,
    EngineUnavailable,
    GuestError,
    ImageError,
    KernelStartError,
    SpecError,
    WorkdirError,
)
from .finish import finish
from .guest import wire
from .kernel_container import (
    KernelContainer,
    Start,
    container_request,
    guest_settings,
)
from .pool.checked import checked, plain
from .pool.claiming import Miss, Pool, Warm
from .pool.ledger import Slot
from .ports import Ports
from .spec import Spec
from .turns import Turns
from .workdir import Workdir

GREETING = 15.0  # seconds for a supervisor to greet, before another container is tried
COLD_STARTS = Turns(
    max(3, os.cpu_count() or 1)
)  # more only take turns on the processors, and an engine that is asked too much fails
_WEAKER: set[str] = set()  # reasons for a weaker isolation that were told
POLITENESS = 1.0  # seconds for a kernel that was asked to end; one that is busy takes longer


class ContainerProvisioner(KernelProvisionerBase, SettingTraits):  # type: ignore[metaclass] # resolved when it runs
    """Runs the kernel in a container of its own.

    A manager keeps one provisioner through all restarts, and calls it from any event loop and thread: so nothing of asyncio is kept
    here, and `poll` answers from memory. A kernel is alive from the last statement of `launch_kernel` on, until `wait` has returned.
    """

    def __init__(self, **kwargs: Any) -> None:
        identity = {name: kwargs.pop(name) for name in ("kernel_id", "kernel_spec", "parent") if name in kwargs}
        super().__init__(**identity)
        self._kernel_json = kwargs
        self._container: KernelContainer | None = None
        self._ports: Ports | None = None
        self._wanted: Mapping[str, int] | None = None
        self._curve: dict[str, str] = {}
        self._pool: Pool | None = None
        self.is_warm = False  # whether the container came from the pool
        self._has_process = False
        self._told = False  # whether the kernel's death was logged
        self._host_environment: dict[str, str] | None = None
        self._mounts: Workdir | None = None
        self._engine_info: EngineInfo | None = None
        try:
            self._read_spec()  # a wrong setting is refused before anything is started
        except SpecError:
            self._forget_failed_start()
            raise

    def _read_spec(self) -> Spec:
        return read_spec(self._kernel_json, self.trait_settings())

    @property
    def _manager(self) -> Any:
        assert self.parent is not None
        return self.parent

    # -- State

    @property
    def has_process(self) -> bool:
        return self._has_process

    async def poll(self) -> int | None:
        if not self._has_process or self._container is None:
            return 0
        code = self._container.poll()
        if code is not None:
            self._tell_end()
        return code

    def _tell_end(self) -> None:
        """The reason of a death is in the log, once, and where the server's REST model has it (`kernel.reason`)."""
        if self._told or self._container is None or not self._container.has_died:
            return
        self._told = True
        self.log.error("Kernel %s died: %s", self.kernel_id, self._container.reason)
        if self.parent is not None and self.parent.has_trait("reason"):
            self.parent.reason = self._container.reason

    async def wait(self) -> int | None:
        code = 0
        if self._has_process and self._container is not None:
            ended = self._container.ended
            while not ended.done():
                try:
                    await outcome(ended, 60)
                except asyncio.TimeoutError:
                    continue
            code = self._container.poll() or 0
            self._tell_end()
        self._has_process = False
        return code

    # -- Ending

    async def send_signal(self, signum: int) -> None:
        if self._has_process and self._container is not None:
            await self._container.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        if self._has_process and self._container is not None:
            await self._container.kill()

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def shutdown_requested(self, restart: bool = False) -> None:
        if self._has_process and self._container is not None:
            await self._container.expect_end()
            # The manager looks at once when this returns, and then every tenth of a second.
            with contextlib.suppress(asyncio.TimeoutError):
                await outcome(self._container.ended, POLITENESS)

    async def cleanup(self, restart: bool = False) -> None:
        if not restart:
            await self._release()
            self._ports = None

    async def _release(self) -> None:
        """No container is left. May be called at any time, and again."""
        self._tell_end()
        container, self._container = self._container, None
        self._has_process = False
        if container is not None:
            await finish(container.end())
            if self._pool is not None:
                self._pool.ended(container.name)

    # -- Starting

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        asked = dict(kwargs.get("env") or {})
        if self._host_environment is None:
            self._host_environment = host_environment()
        self._asked = asked_for(asked, self._host_environment, host_environment())
        kwargs["env"] = {**host_environment(), **asked}  # for the templates in the kernelspec's env
        kwargs.setdefault("cmd", [])
        async with self._start_attempt():
            self._cwd = working_directory(kwargs.get("cwd"))
        self._extra_arguments = tuple(str(word) for word in kwargs.pop("extra_arguments", None) or ())
        kwargs = await super().pre_launch(**kwargs)
        self._kernelspec_environment = {name: kwargs["env"][name] for name in self.kernel_spec.env}
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        self._told = False
        async with self._start_attempt():
            spec = self._read_spec()
            deadline = time.monotonic() + spec.startup_timeout
            if self._container is not None and (spec.restart == "fresh" or not self._container.is_usable):
                await finish(self._container.remove())
                self._container = None
            if self._container is None:
                facts = await self._started_in_another_container(spec)
            else:
                facts = await self._container.start(self._start_of(spec, self._curve_keys(spec)), deadline)
            self.connection_info = self._connection_info(spec, curve=facts.get("curve") is True)
        self._has_process = True
        return self.connection_info

    async def _started_in_another_container(self, spec: Spec) -> dict[str, Any]:
        """A kernel runs in a container from the pool, or in one that was made for it; what its supervisor knows is returned."""
        self._mounts = workdir.plan(spec, cwd=self._cwd, root=self._root_directory(), home=home())
        encrypts = self._manager.has_trait("curve_publickey") and zmq.has("curve")
        self._pool = pool = Pool(spec, host_environment(), encrypts=encrypts, log=self.log)
        with pool.start_under_way:
            found = await self._claimed(pool, spec)
            self.is_warm = isinstance(found, Warm)
            if isinstance(found, Warm):
                facts, info = found.facts, found.info
                self._tell_weaker(info)
                self._ports = found.container.ports
            else:
                level = logging.INFO if spec.pool_size else logging.DEBUG
                self.log.log(level, "Kernel %s starts cold: %s.", self.kernel_id, found.reason)
                try:
                    facts, info = await self._started_cold(pool, spec, self._mounts)
                except ImageError:
                    if not await self._pulled(spec):
                        raise
                    facts, info = await self._started_cold(pool, spec, self._mounts)
                pool.started_cold(info, self._mounts, found)
        self._engine_info = info
        pool.refill(info, self._mounts)
        return facts

    async def _started_cold(self, pool: Pool, spec: Spec, mounts: Workdir) -> tuple[dict[str, Any], EngineInfo]:
        returning = self._ports is not None
        async with COLD_STARTS.turn():
            await pool.make_room()
            self._container, info, deadline = await self._new_container(spec, mounts)
            start = self._start_of(spec, self._curve_keys(spec), returning=returning)
            return await self._container.start(start, deadline), info

    async def _claimed(self, pool: Pool, spec: Spec) -> Warm | Miss:
        """With the container come its ports, and the keys of the kernel that waits in it."""
        if self._ports is not None or any(self._wanted_ports().values()):
            return Miss("its ports are given")
        assert self._mounts is not None

        async def start(container: KernelContainer, slot: Slot, deadline: float) -> dict[str, Any]:
            curve = self._curve_keys(spec, slot.curve)
            self._container = container  # whatever comes now, it is ours to end
            try:
                facts = await container.start(self._start_of(spec, curve), deadline, with_log=False)
            except ContainerKernelError:
                self._container = None
                raise
            self._curve = curve
            return facts

        return await pool.start(self._mounts, start, safe_id(self.kernel_id))

    @contextlib.asynccontextmanager
    async def _start_attempt(self) -> AsyncIterator[None]:
        """No container is left when a start fails in here, or is cancelled: nobody else would remove it, also not after a restart."""
        try:
            yield
        except BaseException:
            self._forget_failed_start()
            await self._release()
            raise

    def _forget_failed_start(self) -> None:
        """The server can still be ended: a start that raised stays in its manager's list of pending ones (MultiKernelManager's
        `_add_kernel_when_ready`, jupyter_client 8.10), where `shutdown_all` stumbles over it and leaves all other kernels running."""
        pending = getattr(getattr(self.parent, "parent", None), "_pending_kernels", None)
        if isinstance(pending, dict):
            pending.pop(self.kernel_id, None)

    async def _engine(self, spec: Spec) -> tuple[Engine, EngineInfo]:
        autostart = self._root_directory() is not None if spec.autostart == "auto" else spec.autostart
        starting = self._say_starting if autostart else None
        engine, info = await engines.choose(spec.engine, require_vm=spec.require_vm, starting=starting)
        self._tell_weaker(info)
        return engine, info

    def _tell_weaker(self, info: EngineInfo) -> None:
        """What was taken in place of a stronger isolation is told, once in this process."""
        if info.instead_of and info.instead_of not in _WEAKER:
            _WEAKER.add(info.instead_of)
            self.log.warning(
                "Kernels run in containers of %s, and not in virtual machines of their own: %s",
                info.engine,
                info.instead_of,
            )

    def _say_starting(self, line: str) -> None:
        self.log.warning("%s", line)

    async def _new_container(self, spec: Spec, mounts: Workdir) -> tuple[KernelContainer, EngineInfo, float]:
        engine, info = await self._engine(spec)
        labels = {"kernel": safe_id(self.kernel_id), "owner": await owner.this_process()}
        request = container_request(spec, info, mounts, user.choose(spec, info), labels)
        settings = guest_settings(spec, mounts)

        async def launched_before(deadline: float, greeting: float = math.inf) -> KernelContainer:
            return await KernelContainer.launch(
                engine,
                request,
                settings,
                ports=self._ports,
                wanted=self._wanted_ports(),
                deadline=deadline,
                greeting=greeting,
                log=self.log,
            )

        async def launched() -> tuple[KernelContainer, float]:
            deadline = time.monotonic() + spec.startup_timeout
            try:
                return await launched_before(deadline, GREETING), deadline
            except GuestError as error:
                if time.monotonic() >= deadline:
                    raise
                # A port may be dead: Podman leaves rules behind that lead to containers that are gone.
                self.log.warning("%s Trying once more.", error.message)
                return await launched_before(deadline), deadline

        try:
            container, deadline = await launched()
        except EngineUnavailable:
            engines.forget()  # it worked before: the next start looks again
            raise
        self._ports = container.ports
        return container, info, deadline

    def _wanted_ports(self) -> Mapping[str, int]:
        """Those that the manager was made with, and not those that it has from us."""
        if self._wanted is None:
            self._wanted = {name: getattr(self.parent, name, 0) for name in wire.KERNEL_PORTS}
        return self._wanted

    async def _pulled(self, spec: Spec) -> bool:
        """True when the image was missing, and is there now. What is ours is built, not pulled."""
        engine, _ = await self._engine(spec)
        image = spec.image
        if image.startswith("container-kernels/") or await engine.image(image) is not None:
            return False
        self.log.info("Pulling the image %s with %s", image, engine.name)
        await engine.pull(image, lambda line: self.log.info("%s: %s", image, line))
        return True

    def _start_of(self, spec: Spec, curve: Mapping[str, str], *, returning: bool = False) -> Start:
        environment = kernel_environment(
            spec,
            host=host_environment(),
            asked=self._asked,
            kernelspec=self._kernelspec_environment,
        )
        return Start(
            connection={"key": self._key(), "signature_scheme": self._manager.session.signature_scheme},
            curve=curve,
            environment=environment,
            cwd=self._mounts.cwd if self._mounts else None,
            argv=spec.argv,
            extra_arguments=self._extra_arguments,
            returning=returning,
        )

    # -- The connection

    def _key(self) -> str:
        """The session's key, for as long as the manager lives: clients that are connected sign with it."""
        session = self._manager.session
        if not session.key:
            session.key = uuid.uuid4().hex.encode()
        return str(session.key.decode())

    def _curve_keys(self, spec: Spec, offered: Mapping[str, str] | None = None) -> dict[str, str]:
        """Keys for CurveZMQ where this jupyter_client knows them, the same through all restarts; new ones, or those that are `offered`.
        Another kernel than the image's ipykernel is not known to understand them."""
        if spec.argv or not self._manager.has_trait("curve_publickey") or not zmq.has("curve"):
            return {}
        if not self._curve:
            public, secret = self._manager.curve_publickey, self._manager.curve_secretkey
            if (public is None or secret is None) and offered:
                return dict(offered)
            if public is None or secret is None:
                public, secret = zmq.curve_keypair()
            self._curve = {"curve_publickey": public.decode(), "curve_secretkey": secret.decode()}
        return self._curve

    def _connection_info(self, spec: Spec, *, curve: bool) -> KernelConnectionInfo:
        assert self._container is not None
        required = getattr(self.parent, "transport_encryption", "disabled") == "required"
        if required and not (curve and self._curve):
            raise KernelStartError(
                f"transport_encryption is 'required', and the kernel of {spec.image!r} cannot encrypt.",
                hint="It needs ipykernel 7.3 or newer, and no `argv` of its own.",
            )
        info = {
            "transport": "tcp",
            "ip": self._container.host,
            **self._container.reached_ports.kernel,
            "key": self._key().encode(),
            "signature_scheme": self._manager.session.signature_scheme,
            **(self._curve if curve else {}),
        }
        return cast("KernelConnectionInfo", info)

    # -- Questions

    def _root_directory(self) -> str | None:
        """The server's root directory; None where no server manages the kernel."""
        root = getattr(getattr(self.parent, "parent", None), "root_dir", None)
        return os.path.abspath(os.path.expanduser(root)) if root else None

    def resolve_path(self, path: str) -> str | None:
        if self._mounts is None:
            return None
        return workdir.host_path(self._mounts.mounts, path, self._mounts.cwd)

    async def get_provisioner_info(self) -> dict[str, Any]:
        """JSON-like values, with the keys of the kernel and of its container: keep them private."""
        info = await super().get_provisioner_info()
        connection_info = {**info["connection_info"], "key": self._key()}
        if self._container is None or self._mounts is None:
            return {**info, "connection_info": connection_info}
        return {
            **info,
            "connection_info": connection_info,
            "container": self._container.persisted(),
            "engine": plain(self._engine_info) if self._engine_info else None,
            "workdir": asdict(self._mounts),
        }

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """The container that another process has persisted is ours now, with its kernel; GuestError when it does not answer."""
        connection_info = provisioner_info["connection_info"]
        key = str(connection_info["key"]).encode()
        await super().load_provisioner_info({**provisioner_info, "connection_info": {**connection_info, "key": key}})
        persisted = provisioner_info.get("container")
        if persisted is None:
            return
        await self._release()
        self._container = await KernelContainer.attach(engines.ENGINES[persisted["engine"]], persisted, log=self.log)
        self._ports = self._container.ports
        self._mounts = Workdir.from_persisted(provisioner_info["workdir"])
        engine_info = provisioner_info.get("engine")
        self._engine_info = checked(EngineInfo, engine_info) if engine_info else None
        self._has_process = True


def working_directory(cwd: str | os.PathLike[str] | None) -> str:
    """Where the kernel is to start, absolute; without `cwd`, where this process is. WorkdirError where that is gone."""
    try:
        return os.path.abspath(os.fspath(cwd or Path.cwd()))
    except FileNotFoundError:
        raise WorkdirError(
            "The working directory does not exist any more.",
            hint="Start Jupyter, or the kernel, in a directory that does.",
        ) from None


def safe_id(kernel_id: str) -> str:
    """A kernel's id, fit for a label: a client may choose any text for it."""
    text = str(kernel_id)
    if 0 < len(text) <= 64 and all(
        character.isascii() and (character.isalnum() or character in "-_.") for character in text
    ):
        return text
    return uuid.uuid5(uuid.NAMESPACE_OID, text).hex
