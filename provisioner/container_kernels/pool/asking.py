"""What a person, or a server that starts, asks of the pool before any kernel was started: what to keep warm, and to make it now."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from heapq import nlargest
from typing import Any

from ..config import home, host_environment, read_spec
from ..engines import ENGINES, choose, forget, remedies, working
from ..errors import ContainerKernelError, EngineUnavailable, ImageError
from ..guest.wire import size_text
from ..workdir import plan
from .decision import RECENT, RESERVE, Snapshot, estimate
from .filling import Filler
from .keeping import turn
from .ledger import Ledger, Wanted
from .recipe import place
from .wishes import asked_of_engines, recipe_for, want

PATIENCE = 300.0  # seconds to wait for another filler
SPARE_ROUNDS = 8  # more than it takes: kernels may be started meanwhile

# How many containers are warm, and what is done about the others.
Report = Callable[[int, str], None]


def encrypts() -> bool:
    """Whether kernels that are started with this Jupyter have CurveZMQ keys."""
    import zmq
    from jupyter_client.manager import KernelManager

    return "curve_publickey" in KernelManager.class_trait_names() and zmq.has("curve")


async def wish(
    ledger: Ledger,
    kernelspec_config: Mapping[str, Any],
    traits: Mapping[str, Any],
    *,
    cwd: str,
    root: str | None,
    encrypts: bool,
) -> Wanted | None:
    """What a kernel with these settings would take from the pool, which the ledger has from now on as wanted; None where pool_size is 0.

    The kernel starts in `cwd`, under a server that serves `root` (None without a server). Raises what its start would raise.
    """
    spec = read_spec(kernelspec_config, traits)
    if not spec.pool_size:
        return None
    environ = host_environment()
    mounts = plan(spec, cwd=cwd, root=root, home=home())
    _, info = await choose(spec.engine, require_vm=spec.require_vm)
    recipe = recipe_for(spec, info, mounts, environ, encrypts=encrypts)
    ledger.remember_engine(asked_of_engines(spec, environ), info)
    return want(ledger, recipe, spec)


def remembered(ledger: Ledger, environ: Mapping[str, str], engine: str | None) -> list[Wanted]:
    """What the ledger has as wanted of the engines that this process talks to, as far as it is kept warm; the latest used first."""
    here = [each for each in ledger.wanted() if dict(each.recipe.place) == place(environ)]
    names = [name for name in ENGINES if engine in (None, name)]
    return [each for name in names for each in _latest(each for each in here if each.recipe.engine == name)]


def _latest(some: Iterable[Wanted]) -> list[Wanted]:
    return nlargest(RECENT, some, key=lambda each: each.last_used)


async def fill_now(
    ledger: Ledger,
    wanted: Wanted,
    environ: Mapping[str, str],
    budget: int | None,
    log: logging.Logger,
    report: Report,
    *,
    patience: float = PATIENCE,
) -> None:
    """As many containers as are wanted of this recipe are warm. Raises why they are not, also what the engine says."""
    engine = ENGINES[wanted.recipe.engine]
    await working(engine.name)
    try:
        async with engines_turn(ledger, engine.name, patience, lambda text: report(0, text)):
            await _fill(Filler(engine, ledger, place(environ), budget, log, at_once=True), wanted.key, report)
    except EngineUnavailable:
        forget()
        raise


@contextlib.asynccontextmanager
async def engines_turn(
    ledger: Ledger, engine: str, patience: float, waiting: Callable[[str], None]
) -> AsyncIterator[None]:
    """The engine's lock is ours. Raises where another filler has it for longer than `patience` seconds."""
    with ledger.lock(engine) as free:
        if free:
            yield
            return
    waiting("Waiting for another process, which fills the pool")
    async with turn(ledger, engine, patience) as ours:
        if not ours:
            raise ContainerKernelError(
                f"Another process has been filling the pool of {engine} for {patience:g} seconds.",
                hint="Try again later.",
            )
        yield


async def _fill(filler: Filler, key: str, report: Report) -> None:
    rounds = 0
    while True:
        snapshot = await filler.look()
        wanted = next((each for each in snapshot.wanted if each.key == key), None)
        if wanted is None:  # somebody has drained the pool meanwhile
            return
        warm = sum(slot.key == key and slot.renewal > time.time() for slot in snapshot.slots)
        lacking = wanted.size - warm
        report(min(warm, wanted.size), "Making a warm container" if lacking > 0 else "")
        # Without the other images nothing of the others is made, and nothing of them is taken for useless.
        acted = await filler.do(replace(snapshot, images={key: snapshot.images[key]}))
        if lacking <= 0 and not acted:
            return
        rounds += 1
        if not acted or rounds > 2 * wanted.size + SPARE_ROUNDS:
            raise _why_not(snapshot, wanted)


def _why_not(snapshot: Snapshot, wanted: Wanted) -> ContainerKernelError:
    engine, image = wanted.recipe.engine, wanted.recipe.request.image
    if not snapshot.images[wanted.key]:
        return ImageError(f"{engine} has no image {image!r}.", hint=remedies.missing_image(image, engine))
    if wanted.key not in (each.key for each in _latest(snapshot.wanted)):
        return ContainerKernelError(
            f"Of {engine}, {RECENT} kinds of containers are kept warm, and others were asked for more recently.",
            hint="See `jupyter container-kernels pool status` for which.",
        )
    needed = f"one more of {image!r} takes about {size_text(estimate(wanted, snapshot.slots))}"
    if snapshot.budget - snapshot.used <= snapshot.available - RESERVE:
        return ContainerKernelError(
            f"pool_memory_budget leaves no room: containers use {_size(snapshot.used)} of {_size(snapshot.budget)}, and {needed}.",
            hint="Raise it, as in CONTAINER_KERNELS_POOL_MEMORY_BUDGET=4g; or end kernels: see `jupyter container-kernels ps`.",
        )
    return ContainerKernelError(
        f"The machine has too little memory: {_size(snapshot.available)} are free, of which {_size(RESERVE)} are to stay free, "
        f"and {needed}.",
        hint="End something that uses much.",
    )


def _size(number: int) -> str:
    return size_text(max(number, 0))
