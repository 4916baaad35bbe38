"""Whether a kernel would start here, and if not, why: checks as values, for the command line and any other face."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import engines, kernelspecs, owner, workdir
from .config import home, read_spec
from .engines import remedies
from .engines.protocol import Engine, EngineInfo
from .errors import ContainerKernelError, EngineUnavailable, SpecError, WorkdirError
from .finish import finish
from .inventory import containers
from .kernelspecs import Kernelspec
from .spec import Spec

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

Verdict = Literal["ok", "warning", "failed"]

ENTRY_POINTS = "jupyter_client.kernel_provisioners"
ANSWER = 30.0  # seconds for a cell that does nearly nothing

# Run in an image: its Python's version, and its ipykernel's or null.
VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
try:
    ipykernel = version("ipykernel")
except PackageNotFoundError:
    ipykernel = None
print(json.dumps({"python": "{}.{}.{}".format(*sys.version_info), "ipykernel": ipykernel}))
"""

# Run in a kernel.
CELL = """
import json, os, platform, ipykernel
print(json.dumps({
    "python": platform.python_version(), "ipykernel": ipykernel.__version__, "host": platform.node(), "uid": os.getuid()
}))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. With `failed`, no kernel would start; a `warning` stands in nobody's way yet.

    `detail` is what an engine or a log said; `facts` are for programs.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    detail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, verdict: Verdict, error: ContainerKernelError) -> Check:
        return cls(name, verdict, error.message, error.hint, error.detail)


def would_start(checks: Iterable[Check]) -> bool:
    return all(check.verdict != "failed" for check in checks)


async def examine(*, kernel: str, engine: str | None = None) -> AsyncIterator[Check]:
    """Each check as it finishes. The last is a kernel that was started and stopped, unless one before has failed; no container is left."""
    engines.forget()
    traits = {} if engine is None else {"engine": engine}
    installed = kernelspecs.installed()
    first = [*await _engines(engine), _provisioner(), *_kernelspecs(installed, kernel, traits)]
    for check in first:
        yield check
    if not would_start(first):
        return
    chosen = next(each for each in installed if each.name == kernel.lower())
    spec = read_spec(chosen.config, traits)
    try:
        with_engine, info = await engines.choose(spec.engine, require_vm=spec.require_vm)
    except ContainerKernelError as error:
        yield Check.of("engine in use", "failed", error)
        return
    yield _engine_in_use(info, engine)
    check = _workdir(spec)
    yield check
    if check.verdict == "failed":
        return
    if check.verdict == "warning":
        traits = {**traits, "workdir": "none"}
    for image in _images(installed, spec, traits):
        check = await _image(with_engine, image, "failed" if image.image == spec.image else "warning")
        yield check
        if check.verdict == "failed":
            return
    yield await _Trial(chosen, with_engine, traits, spec.startup_timeout).check()


# -- The machine

_ISOLATION = {"container": "each kernel in a container", "vm": "each kernel in a virtual machine"}


async def _engines(named: str | None) -> list[Check]:
    """One that does not work fails if it is named, or if no other works."""
    results = await asyncio.gather(*(engines.working(name) for name in engines.ENGINES), return_exceptions=True)
    some_works = any(isinstance(result, EngineInfo) for result in results)
    checks = []
    for name, result in zip(engines.ENGINES, results, strict=True):
        if isinstance(result, EngineInfo):
            checks.append(Check(name, "ok", _engine_words(result), facts=_engine_facts(result)))
        elif isinstance(result, ContainerKernelError):
            is_needed = name == named or not some_works
            error = EngineUnavailable(result.message.removeprefix(f"{name}: "), hint=result.hint, detail=result.detail)
            checks.append(Check.of(name, "failed" if is_needed else "warning", error))
        else:
            raise result
    return checks


def _engine_words(info: EngineInfo) -> str:
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


def _engine_in_use(info: EngineInfo, asked: str | None) -> Check:
    words = f"{info.engine}, {_ISOLATION[info.isolation]}"
    if asked not in (None, info.engine):
        remedy = "The variable CONTAINER_KERNELS_ENGINE is stronger than --engine: unset it."
        return Check("engine in use", "warning", words, remedy)
    return Check("engine in use", "ok", words, facts={"engine": info.engine, "isolation": info.isolation})


def _provisioner() -> Check:
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


# -- The kernelspecs and their images


def _kernelspecs(installed: list[Kernelspec], kernel: str, traits: Mapping[str, Any]) -> Iterator[Check]:
    for each in installed:
        is_tried = each.name == kernel.lower()
        name = f"kernelspec {each.name}"
        try:
            spec = read_spec(each.config, traits)
        except SpecError as error:
            yield Check.of(name, "failed" if is_tried else "warning", error)
        else:
            yield Check(name, "ok", f"{each.display_name}, image {spec.image}, in {each.directory}")
    if kernel.lower() not in {each.name for each in installed}:
        remedy = "Name another by --kernel; or make one: `jupyter container-kernels install --name NAME`."
        yield Check(f"kernelspec {kernel}", "failed", "Jupyter has none of ours by this name.", remedy)


def _images(installed: list[Kernelspec], tried: Spec, traits: Mapping[str, Any]) -> Iterator[Spec]:
    """A spec for each image; that of the tried kernel is the last, so that the others are told of in any case."""
    specs = {}
    for each in installed:
        try:
            spec = read_spec(each.config, traits)
        except SpecError:
            continue
        specs[spec.image] = spec
    specs.pop(tried.image, None)
    yield from (*specs.values(), tried)


async def _image(engine: Engine, spec: Spec, if_not: Verdict) -> Check:
    """Whether the image is there, and can run the spec's kernel; `if_not` is the verdict where it cannot."""
    name = f"image {spec.image}"
    try:
        image = await engine.image(spec.image)
        if image is None:
            hint = remedies.missing_image(spec.image, engine.name)
            if spec.image.startswith("container-kernels/"):
                return Check(name, if_not, f"{engine.name} does not have it.", hint)
            return Check(name, "warning", f"{engine.name} does not have it, and pulls it at the first start.", hint)
        facts = {"size": image.size, "created": image.created.isoformat(), "architecture": image.architecture}
        size = f"{image.size / 1e6:.0f} MB"
        if spec.argv:
            return Check(name, "ok", size, facts=facts)
        versions = _object(await engine.output(spec.image, ["python3", "-c", VERSIONS]))
    except ContainerKernelError as error:
        return Check.of(name, if_not, error)
    if not versions.get("ipykernel"):
        remedy = f"Add it: `jupyter container-kernels build --base {spec.image} --tag NAME`."
        return Check(name, if_not, f"It has Python {versions.get('python')}, and no ipykernel.", remedy, facts=facts)
    words = f"Python {versions['python']}, ipykernel {versions['ipykernel']}, {size}"
    return Check(name, "ok", words, facts={**facts, **versions})


def _object(text: str) -> dict[str, Any]:
    """What a container printed as JSON; empty where it printed anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _workdir(spec: Spec) -> Check:
    """Whether a kernel could work in this directory; a warning where it could not, and could start without."""
    name = "working directory"
    try:
        plan = workdir.plan(spec, cwd=str(Path.cwd()), root=None, home=home())
    except FileNotFoundError:  # it is deleted: some engines' commands do not run in it at all
        return Check(name, "failed", "This directory does not exist any more.", "Change to another.")
    except WorkdirError as error:
        return Check.of(name, "warning", error)
    mounted = ", ".join(mount.target for mount in plan.mounts)
    return Check(name, "ok", f"{mounted} would be mounted" if mounted else "nothing would be mounted")


# -- A kernel, really


@dataclass(frozen=True)
class _Trial:
    kernelspec: Kernelspec
    engine: Engine
    traits: Mapping[str, Any]
    timeout: float
    kernel_id: str = field(default_factory=lambda: f"doctor-{uuid.uuid4().hex[:12]}")

    async def check(self) -> Check:
        """A kernel has been started, has run a cell, and has been stopped; its container is gone, also when this is cancelled."""
        name = f"kernel {self.kernelspec.name}"
        try:
            facts = await self._try()
        except ContainerKernelError as error:
            return Check.of(name, "failed", error)
        except Exception as error:  # whatever keeps a kernel from starting is what was asked for
            return Check(name, "failed", f"{type(error).__name__}: {error}", "See the container's and Jupyter's logs.")
        words = "started in {started:.2f} s, first reply after {replied:.2f} s, stopped in {stopped:.2f} s"
        return Check(name, "ok", words.format(**facts), facts=facts)

    async def _try(self) -> dict[str, Any]:
        from jupyter_client.manager import AsyncKernelManager
        from traitlets.config import Config

        config = Config({"ContainerProvisioner": dict(self.traits)})
        manager = AsyncKernelManager(kernel_name=self.kernelspec.name, config=config)
        began = time.monotonic()
        try:
            await manager.start_kernel(kernel_id=self.kernel_id, cwd=str(Path.cwd()))
            started = time.monotonic()
            facts = await self._first_cell(manager)
            replied = time.monotonic()
        finally:
            stopped = await finish(self._stop(manager))
        seconds = {"started": started - began, "replied": replied - began, "stopped": stopped}
        return {**facts, **seconds}

    async def _first_cell(self, manager: AsyncKernelManager) -> dict[str, Any]:
        client = manager.client()
        client.start_channels()
        printed: list[str] = []

        def keep(message: Mapping[str, Any]) -> None:
            printed.append(str(message["content"].get("text", "")))

        try:
            await client.wait_for_ready(timeout=self.timeout)
            if self.kernelspec.language != "python":
                return {}
            await client.execute_interactive(CELL, store_history=False, timeout=ANSWER, output_hook=keep)
            return _object("".join(printed))
        finally:
            client.stop_channels()

    async def _stop(self, manager: AsyncKernelManager) -> float:
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
