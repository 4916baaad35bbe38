"""The containers of ours, whichever engine has them and whichever process made them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace

from . import owner
from .engines import ENGINES, choose, working
from .engines.protocol import LABEL, NAME_PREFIX, OWNER_LABEL, POOL_LABEL, ContainerState, Engine, Usage
from .errors import ContainerKernelError, EngineUnavailable
from .pool.ledger import Claim, Ledger, SlotFile
from .pool.removal import remove_slot

KERNEL_LABEL = f"{LABEL}.kernel"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Container:
    """One container, and what it uses where that was `measured`.

    One of the pool says by no label whose it is: the ledger has it in a slot, where no kernel has it yet, or knows who `claim`s it: a
    kernel, or a filler that makes it. It knows nothing of those that end by themselves, or are in another ledger.
    """

    engine: Engine
    state: ContainerState
    usage: Usage | None = None
    slot: SlotFile | None = None
    claim: Claim | None = None

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def kernel_id(self) -> str:
        return self.claim.kernel_id if self.claim else self.state.labels.get(KERNEL_LABEL, "")

    @property
    def owner(self) -> str:
        if POOL_LABEL in self.state.labels:
            return self.claim.owner if self.claim else ""
        return self.state.labels.get(OWNER_LABEL, "")

    @property
    def is_warm(self) -> bool:
        """Whether it waits for a kernel."""
        return self.slot is not None

    @property
    def whose(self) -> str:
        return "warm" if self.is_warm else f"kernel {self.kernel_id}" if self.kernel_id else "no kernel"

    def begins_with(self, text: str) -> bool:
        return any(known.startswith(text) for known in (self.name, self.name.removeprefix(NAME_PREFIX), self.kernel_id))

    async def is_orphan(self) -> bool:
        """Whether the process that it belongs to runs no more; False when in doubt, and for what waits in the pool."""
        return await owner.is_gone(self.owner)


async def containers(engine: str | None = None) -> list[Container]:
    """Of the named engine, or of all that work, the oldest first. Raises EngineUnavailable where there is none."""
    found = await asyncio.gather(*map(_of, await _working(engine)))
    return sorted((container for some in found for container in some), key=lambda container: container.state.created)


async def measured(some: Sequence[Container]) -> AsyncIterator[list[Container]]:
    """All of them, with what those use whose engines have told so: once more for each engine. It takes an engine seconds."""
    engines = {container.engine.name: container.engine for container in some}
    found = list(some)
    for told in asyncio.as_completed([_usages(engine) for engine in engines.values()]):
        name, usages = await told
        found = [replace(each, usage=usages.get(each.name)) if each.engine.name == name else each for each in found]
        yield found


async def _usages(engine: Engine) -> tuple[str, dict[str, Usage]]:
    return engine.name, {usage.name: usage for usage in await engine.usage()}


async def why_weaker(some: Iterable[Container]) -> str:
    """What keeps the next kernel from an isolation that this machine could give, where none of these has it; empty where nothing does."""
    isolations = {container.engine.isolation for container in some}
    could_be = any(engine.isolation == "vm" and not engine.unsuited() for engine in ENGINES.values())
    if not isolations or "vm" in isolations or not could_be:
        return ""
    try:
        _, info = await choose()
    except EngineUnavailable:
        return ""
    return info.instead_of


async def _working(name: str | None) -> list[Engine]:
    if name is not None:
        return [(await choose(name))[0]]
    found = await asyncio.gather(*(working(each) for each in ENGINES), return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException) and not isinstance(result, EngineUnavailable):
            raise result
    some = [ENGINES[result.engine] for result in found if not isinstance(result, BaseException)]
    return some or [(await choose())[0]]  # which tells of each why it does not work


async def _of(engine: Engine) -> list[Container]:
    states = await engine.list()
    pooled = _Pooled.read() if any(POOL_LABEL in state.labels for state in states) else _Pooled()
    return [
        Container(engine, state, slot=pooled.slots.get(state.name), claim=pooled.claims.get(state.name))
        for state in states
    ]


@dataclass(frozen=True)
class _Pooled:
    """What the ledger knows of containers, by name."""

    slots: dict[str, SlotFile] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)

    @classmethod
    def read(cls) -> _Pooled:
        """In the order in which a container goes through it, so that none slips by; nothing where it cannot be read."""
        ledger = Ledger.of_this_user()
        try:
            making = {each.name: each for each in ledger.making()}
            slots = {each.name: each for each in ledger.slots()}
            claims = {each.name: each for each in ledger.claims()}
        except (OSError, ContainerKernelError) as error:
            _log.warning("Which containers are warm is not known: %s", error)
            return cls()
        waiting = {name: slot for name, slot in slots.items() if name not in claims}
        unfinished = {name: claim for name, claim in making.items() if name not in slots}
        return cls(waiting, {**unfinished, **claims})


def find(some: Iterable[Container], text: str) -> Container:
    """The one whose name or kernel id is `text`, or alone begins with it."""
    candidates = list(some)
    matching = [each for each in candidates if text and text in (each.name, each.kernel_id)]
    matching = matching or [each for each in candidates if text and each.begins_with(text)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        listed = "\n".join(f"{each.name}  {each.whose}  {each.engine.name}" for each in matching)
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
            await _remove(container)
        except ContainerKernelError as error:
            return container, error
        except OSError as error:
            return container, ContainerKernelError(f"The pool's files cannot be used: {error}.")
        return container, None

    return await asyncio.gather(*(removal(container) for container in some))


async def _remove(container: Container) -> None:
    """Of a warm one, the slot goes first: no kernel finds it then."""
    if container.slot is not None:
        if not await remove_slot(Ledger.of_this_user(), container.engine, container.slot):
            raise ContainerKernelError(
                f"A kernel has just started in {container.name}.", hint="The same command again ends that one."
            )
        return
    await container.engine.remove(container.name)
    if container.claim is not None:
        Ledger.of_this_user().release(container.name)
        Ledger.of_this_user().made(container.name)
