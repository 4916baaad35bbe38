"""A kernel, really: started, asked, and stopped."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import owner
from ..engines.protocol import Engine
from ..errors import ContainerKernelError
from ..finish import finish
from ..inventory import containers
from ..kernelspecs import Kernelspec
from .check import Check
from .kernels import json_object

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

ANSWER = 30.0  # seconds for a cell that does nearly nothing
REMOVAL = 20.0  # seconds in which an engine removes a container that has ended
LOOK = 0.05  # seconds between looks at it

CELL = """
import json, os, platform, ipykernel
print(json.dumps({
    "python": platform.python_version(), "ipykernel": ipykernel.__version__, "host": platform.node(), "uid": os.getuid()
}))
"""


@dataclass(frozen=True)
class Trial:
    kernelspec: Kernelspec
    engine: Engine
    traits: Mapping[str, Any]
    timeout: float
    kernel_id: str = field(default_factory=lambda: f"doctor-{uuid.uuid4().hex[:12]}")

    async def check(self) -> Check:
        """A kernel has been started, has run a cell, and has been stopped; its container is gone, also when this is cancelled."""
        name = f"kernel {self.kernelspec.name}"
        try:
            facts = await self.run()
        except ContainerKernelError as error:
            return Check.of(name, "failed", error, engine=self.engine.name)
        except Exception as error:  # whatever keeps a kernel from starting is what was asked for
            return Check(name, "failed", f"{type(error).__name__}: {error}", "See the container's and Jupyter's logs.")
        words = "started in {started:.2f} s, first reply after {replied:.2f} s, stopped in {stopped:.2f} s"
        return Check(name, "ok", words.format(**facts), facts=facts)

    async def run(self) -> dict[str, Any]:
        """What the kernel said of itself; `warm`, whether its container came from the pool; and when it had `started`, `replied` and
        `stopped`, in seconds."""
        from jupyter_client.manager import AsyncKernelManager
        from traitlets.config import Config

        config = Config({"ContainerProvisioner": dict(self.traits)})
        manager = AsyncKernelManager(kernel_name=self.kernelspec.name, config=config)
        try:
            code = CELL if self.kernelspec.language == "python" else ""
            facts = await first_reply(manager, code, kernel_id=self.kernel_id, timeout=self.timeout)
            warm = getattr(manager.provisioner, "is_warm", False)
        finally:
            stopped = await finish(self.stop(manager))
        return {**facts, "warm": warm, "stopped": stopped}

    async def stop(self, manager: AsyncKernelManager) -> float:
        """The kernel and its container are gone, after this many seconds. The provisioner's own end should suffice; what it leaves
        is removed, since nobody else would look for it."""
        began = time.monotonic()
        try:
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)
            return time.monotonic() - began
        finally:
            ours = await owner.this_process()
            for container in await containers(self.engine.name):
                if container.kernel_id == self.kernel_id and container.owner == ours:
                    await self.engine.remove(container.name)
                    await self._gone(container.name)

    async def _gone(self, name: str) -> None:
        """The engine knows it no more: where a container removes itself already, an engine's removal does not wait for it."""
        deadline = time.monotonic() + REMOVAL
        # An engine tells nobody when it is done.
        while await self.engine.inspect(name) is not None and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)


async def first_reply(
    manager: AsyncKernelManager, code: str, *, kernel_id: str | None = None, timeout: float
) -> dict[str, Any]:
    """The manager's kernel runs, and has answered: what `code` printed as JSON, and the seconds until it had `started` and `replied`."""
    began = time.monotonic()
    await manager.start_kernel(**({} if kernel_id is None else {"kernel_id": kernel_id}), cwd=str(Path.cwd()))
    started = time.monotonic()
    client = manager.client()
    client.start_channels()
    printed: list[str] = []

    def keep(message: Mapping[str, Any]) -> None:
        printed.append(str(message["content"].get("text", "")))

    try:
        await client.wait_for_ready(timeout=timeout)
        if code:
            await client.execute_interactive(code, store_history=False, timeout=ANSWER, output_hook=keep)
        replied = time.monotonic()
    finally:
        client.stop_channels()
    return {**json_object("".join(printed)), "started": started - began, "replied": replied - began}
