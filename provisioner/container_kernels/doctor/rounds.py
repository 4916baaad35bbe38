"""How long a kernel takes from its start to its first reply.

It is measured by a process of its own, with a pool of its own in a runtime directory of its own: no other pool is touched. What it prints
is the JSON of `Measured`; what it does is told on stderr.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .. import command, engines, kernelspecs
from ..command import Call, Output
from ..config import host_environment, read_spec
from ..engines.protocol import Progress
from ..errors import ContainerKernelError
from ..finish import finish
from ..pool.asking import encrypts, fill_now, wish
from ..pool.draining import drain
from ..pool.keeping import keeper_lock
from ..pool.ledger import Ledger
from ..pool.refill import refill
from .trial import Trial, first_reply

MEASURING = 1800.0  # seconds for all of it
CLEARING = 120.0  # seconds for what a measurement that was ended has left
LOCAL_TIMEOUT = 60.0
COLD, WARM, LOCAL = "cold", "warm", "local, without a container"

# Not `-m`, which would import from this directory, where kernels write.
PROGRAM = "import sys; sys.path = [each for each in sys.path if each]; from {module} import main; main(*sys.argv[1:])"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """The seconds of each round; `missing` says why there are no more."""

    seconds: list[float] = field(default_factory=list)
    missing: str = ""

    def __str__(self) -> str:
        rounds = ", ".join(f"{each:.2f}" for each in self.seconds)
        found = f"median {median(self.seconds):.2f} of {rounds}" if self.seconds else "not measured"
        return f"{found}; {self.missing}" if self.missing else found


@dataclass(frozen=True)
class Measured:
    """Each case by its name, and the commands that were run for them."""

    cases: dict[str, Case]
    calls: list[Call]

    @classmethod
    def from_json(cls, text: str) -> Measured:
        value = json.loads(text)
        calls = [Call(tuple(each["argv"]), each["seconds"], _output(each["output"])) for each in value["calls"]]
        return cls({name: Case(**case) for name, case in value["cases"].items()}, calls)


def _output(value: dict[str, Any] | None) -> Output | None:
    return None if value is None else Output(**{**value, "argv": tuple(value["argv"])})


async def measured(
    kernel: str, engine: str, rounds: int, *, variables: Mapping[str, str], progress: Progress
) -> Measured:
    """By a process of its own, whose settings `variables` add to; no container of it is left."""
    argv = [sys.executable, "-c", PROGRAM.format(module=__name__), kernel, engine]
    with tempfile.TemporaryDirectory(prefix="container-kernels-") as directory:
        environment = {**host_environment(), **variables, "JUPYTER_RUNTIME_DIR": directory}
        # These would say otherwise than what is measured.
        for name in ("CONTAINER_KERNELS_POOL_SIZE", "CONTAINER_KERNELS_POOL_MEMORY_BUDGET"):
            environment.pop(name, None)
        environment["CONTAINER_KERNELS_ENGINE"] = engine
        output = None
        try:
            output = await command.run(
                [*argv, str(rounds)], timeout=MEASURING, env=environment, on_line=lambda line: progress(line[:100])
            )
        finally:
            if output is None or not output.ok:
                await finish(_cleared([*argv, "0"], environment))
    try:
        return Measured.from_json(output.stdout)
    except (KeyError, TypeError, ValueError):
        raise ContainerKernelError("The starts of kernels could not be measured.", detail=output.said[-4000:]) from None


async def _cleared(argv: list[str], environment: Mapping[str, str]) -> None:
    """No container waits in the pool of a measurement that was ended; its kernels' containers end by themselves."""
    try:
        await command.run(argv, timeout=CLEARING, env=environment)
    except ContainerKernelError as error:
        _log.warning("Containers of the measurement may be left, and end by themselves: %s", error)


# -- In the process that measures


async def _measure(kernel: str, engine: str, rounds: int) -> Measured:
    """With no rounds, only the pool is drained."""
    cases: dict[str, Case] = {}
    with command.recording() as calls:
        async with _pool_of_its_own() as ledger:
            starts = _Starts(kernel, engine, ledger) if rounds else None
            for name, start in starts.all() if starts else ():
                cases[name] = await _case(name, start, rounds)
    if importlib.util.find_spec("ipykernel") is None:
        cases[LOCAL] = Case(missing="no ipykernel is installed here")
    return Measured(cases, calls)


@asynccontextmanager
async def _pool_of_its_own() -> AsyncIterator[Ledger]:
    """Nobody else fills it: it seems to have a keeper. Nothing is left in it."""
    ledger, environ = Ledger.of_this_user(), host_environment()
    with ledger.lock(keeper_lock(environ)):
        try:
            yield ledger
        finally:
            refill.now()
            drained = await finish(drain(ledger, environ, None, _log))
            for error in drained.errors:
                _log.warning("%s", error)


async def _case(name: str, start: Callable[[], Awaitable[float]], rounds: int) -> Case:
    seconds: list[float] = []
    for number in range(rounds):
        print(f"{name}, {number + 1} of {rounds}", file=sys.stderr, flush=True)  # noqa: T201 # whoever waits reads it
        try:
            seconds.append(await start())
        except Exception as error:  # whatever it is, it is what a report is for
            return Case(seconds, f"round {number + 1} failed: {type(error).__name__}: {error}")
    return Case(seconds)


class _Starts:
    """The ways in which a kernel may start: each gives the seconds to its first reply."""

    def __init__(self, kernel: str, engine: str, ledger: Ledger) -> None:
        self.kernelspec = next(each for each in kernelspecs.installed() if each.name == kernel.lower())
        self.engine = engines.ENGINES[engine]
        self.ledger = ledger

    def all(self) -> list[tuple[str, Callable[[], Awaitable[float]]]]:
        local = [(LOCAL, self.local)] if importlib.util.find_spec("ipykernel") else []
        return [(COLD, self.cold), (WARM, self.warm), *local]

    async def cold(self) -> float:
        facts = await self._trial({"pool_size": 0}).run()
        refill.now()  # which forgets that any is wanted: later, it would forget what is wanted then
        return float(facts["replied"])

    async def warm(self) -> float:
        traits, cwd = {"pool_size": 1}, str(Path.cwd())
        wanted = await wish(self.ledger, self.kernelspec.config, traits, cwd=cwd, root=None, encrypts=encrypts())
        assert wanted is not None
        await fill_now(self.ledger, wanted, host_environment(), None, _log, lambda _, __: None)
        facts = await self._trial(traits).run()
        if not facts["warm"]:
            reasons = {reason for counts in self.ledger.counts().values() for reason in counts.misses}
            raise ContainerKernelError(f"It was not warm: {', '.join(sorted(reasons))}.")
        return float(facts["replied"])

    def _trial(self, traits: Mapping[str, Any]) -> Trial:
        return Trial(self.kernelspec, self.engine, traits, read_spec(self.kernelspec.config, traits).startup_timeout)

    async def local(self) -> float:
        from jupyter_client.manager import AsyncKernelManager

        manager = AsyncKernelManager(kernel_name="python3")

        async def end() -> None:
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)

        try:
            return float((await first_reply(manager, "pass", timeout=LOCAL_TIMEOUT))["replied"])
        finally:
            await finish(end())


def main(kernel: str, engine: str, rounds: str) -> None:
    asyncio.run(_main(kernel, engine, rounds))


async def _main(kernel: str, engine: str, rounds: str) -> None:
    task = asyncio.ensure_future(_measure(kernel, engine, int(rounds)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(json.dumps(asdict(await task)))  # noqa: T201 # its output
