"""What this machine has: engines, and a Jupyter that finds our provisioner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import metadata
from typing import Any

from .. import engines, kernelspecs
from ..engines.protocol import EngineInfo
from ..errors import ContainerKernelError, ServiceStopped
from ..image import Report
from .check import Check, Verdict

ENTRY_POINTS = "jupyter_client.kernel_provisioners"

# Entered around whatever is repaired; what is repaired without one is nothing.
Repairing = Callable[[], AbstractContextManager[Report]]

_ISOLATION = {"container": "each kernel in a container", "vm": "each kernel in a virtual machine"}


async def check_engines(named: str | None, repairing: Repairing | None = None) -> list[Check]:
    """One that does not work fails if it is named, or if none is and no other works. One that does not suit this machine is not looked
    for there, unless it is named.

    `repairing` has stopped services started: of the named engine, or of those that suit this machine.
    """
    results = dict(zip(engines.ENGINES, await asyncio.gather(*map(_working, engines.ENGINES)), strict=True))
    started = set()
    for name, result in results.items():
        if isinstance(result, ServiceStopped) and repairing is not None and _is_wanted(name, named):
            results[name] = await _started(name, repairing)
            started.add(name)
    some_works = any(isinstance(result, EngineInfo) and _is_wanted(name, None) for name, result in results.items())
    checks = []
    for name, result in results.items():
        lacking = "" if name == named else engines.ENGINES[name].unsuited()
        if isinstance(result, EngineInfo):
            words = engine_words(result) + (", and its service was started just now" if name in started else "")
            note = f". Used only where it is named: {lacking}" if lacking else ""
            checks.append(Check(name, "ok", f"{words}{note}", facts=_engine_facts(result)))
        elif lacking:
            checks.append(Check(name, "skipped", f"not for this machine. {lacking}"))
        else:
            is_needed = name == named if named else not some_works
            verdict: Verdict = "failed" if is_needed else "warning"
            checks.append(Check.of(name, verdict, result, engine=name))
    return checks


def _is_wanted(name: str, named: str | None) -> bool:
    """Whether kernels may take it: the named engine only; else those that suit this machine."""
    return name == named if named else not engines.ENGINES[name].unsuited()


async def _working(name: str) -> EngineInfo | ContainerKernelError:
    try:
        return await engines.working(name)
    except ContainerKernelError as error:
        return error


async def _started(name: str, repairing: Repairing) -> EngineInfo | ContainerKernelError:
    try:
        with repairing() as report:
            return await engines.working(name, starting=report.doing)
    except ContainerKernelError as error:
        return error


def engine_words(info: EngineInfo) -> str:
    privilege = "rootless" if info.rootless else "rootful"
    return f"{info.version}, {info.isolation} isolation, {privilege}, {info.architecture}, {info.description}"


def _engine_facts(info: EngineInfo) -> dict[str, Any]:
    return {
        "version": info.version,
        "isolation": info.isolation,
        "rootless": info.rootless,
        "architecture": info.architecture,
        "cpus": info.cpus,
    }


def engine_in_use(info: EngineInfo, asked: str | None) -> Check:
    name, words = "engine in use", f"{info.engine}, {_ISOLATION[info.isolation]}"
    facts: Mapping[str, Any] = {"engine": info.engine, "isolation": info.isolation, "instead_of": info.instead_of}
    if asked not in (None, info.engine):
        remedy = "The variable CONTAINER_KERNELS_ENGINE is stronger than --engine: unset it."
        return Check(name, "warning", words, remedy, facts=facts)
    if info.instead_of:
        words = f"{words}, though this machine could give each a virtual machine. {info.instead_of}"
        remedy = f"See above for what to do. Where {info.engine} is wanted nevertheless, name it: CONTAINER_KERNELS_ENGINE={info.engine}."
        return Check(name, "warning", words, remedy, facts=facts)
    return Check(name, "ok", words, facts=facts)


def check_provisioner() -> Check:
    name = "provisioner"
    found = metadata.entry_points(group=ENTRY_POINTS, name=kernelspecs.PROVISIONER)
    remedy = "Install container-kernels with the Python that runs Jupyter: `python -m pip install container-kernels`."
    if not found:
        return Check(name, "failed", "jupyter_client does not find it.", remedy)
    entry = next(iter(found))
    try:
        entry.load()
    except (ImportError, AttributeError) as error:
        return Check(name, "failed", f"{entry.value} cannot be imported: {error}.", remedy)
    return Check(name, "ok", f"{entry.value}, jupyter_client {metadata.version('jupyter_client')}")
