"""The containers of ours, whichever engine has them and whichever process made them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from . import owner
from .engines import ENGINES, choose, working
from .engines.protocol import LABEL, NAME_PREFIX, OWNER_LABEL, ContainerState, Engine, Usage
from .errors import ContainerKernelError, EngineUnavailable

KERNEL_LABEL = f"{LABEL}.kernel"


@dataclass(frozen=True)
class Container:
    """One container, and what it uses where that was asked for and could be told."""

    engine: Engine
    state: ContainerState
    usage: Usage | None = None

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def kernel_id(self) -> str:
        return self.state.labels.get(KERNEL_LABEL, "")

    @property
    def owner(self) -> str:
        return self.state.labels.get(OWNER_LABEL, "")

    def begins_with(self, text: str) -> bool:
        return any(known.startswith(text) for known in (self.name, self.name.removeprefix(NAME_PREFIX), self.kernel_id))

    async def is_orphan(self) -> bool:
        """Whether the process that made it runs no more; False when in doubt."""
        return await owner.is_gone(self.owner)


async def containers(engine: str | None = None, *, with_usage: bool = False) -> list[Container]:
    """Of the named engine, or of all that work, the oldest first. Raises EngineUnavailable where there is none."""
    found = await asyncio.gather(*(_of(each, with_usage) for each in await _working(engine)))
    return sorted((container for some in found for container in some), key=lambda container: container.state.created)


async def _working(name: str | None) -> list[Engine]:
    if name is not None:
        return [(await choose(name))[0]]
    found = await asyncio.gather(*(working(each) for each in ENGINES), return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException) and not isinstance(result, EngineUnavailable):
            raise result
    some = [ENGINES[result.engine] for result in found if not isinstance(result, BaseException)]
    return some or [(await choose())[0]]  # which tells of each why it does not work


async def _of(engine: Engine, with_usage: bool) -> list[Container]:
    states = await engine.list()
    usages = {usage.name: usage for usage in await engine.usage()} if with_usage and states else {}
    return [Container(engine, state, usages.get(state.name)) for state in states]


def find(some: Iterable[Container], text: str) -> Container:
    """The one whose name or kernel id is `text`, or alone begins with it."""
    candidates = list(some)
    matching = [each for each in candidates if text and text in (each.name, each.kernel_id)]
    matching = matching or [each for each in candidates if text and each.begins_with(text)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        listed = "\n".join(f"{each.name}  kernel {each.kernel_id}  {each.engine.name}" for each in matching)
        raise ContainerKernelError(
            f"{text!r} fits {len(matching)} containers.", hint="Give more of the name.", detail=listed
        )
    raise ContainerKernelError(
        f"There is no container or kernel {text!r}.", hint="See `jupyter container-kernels ps` for those that are."
    )


async def remove(some: Iterable[Container]) -> list[tuple[Container, ContainerKernelError | None]]:
    """Each container, and what kept it from being removed; None where it is gone."""

    async def removal(container: Container) -> tuple[Container, ContainerKernelError | None]:
        try:
            await container.engine.remove(container.name)
        except ContainerKernelError as error:
            return container, error
        return container, None

    return await asyncio.gather(*(removal(container) for container in some))
