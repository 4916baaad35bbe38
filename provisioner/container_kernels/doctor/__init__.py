"""Whether a kernel would start here, and if not, why: checks as values, for the command line and any other face."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from .. import engines, kernelspecs
from ..config import read_spec
from ..errors import ContainerKernelError, SpecError
from .check import Check, would_start
from .kernels import check_image, check_kernelspecs, check_workdir, images
from .machine import Repairing, check_engines, check_provisioner, engine_in_use
from .trial import Trial

__all__ = ["Check", "Repairing", "examine", "would_start"]


async def examine(
    *, kernel: str, engine: str | None = None, repairing: Repairing | None = None
) -> AsyncIterator[Check]:
    """Each check as it finishes. The last is a kernel that was started and stopped, unless one before has failed; no container is left.

    With `repairing`, services that are stopped are started, and images of ours that are missing are built: it is entered around that.
    """
    engines.forget()
    traits = {} if engine is None else {"engine": engine}
    installed = kernelspecs.installed()
    chosen = next((each for each in installed if each.name == kernel.lower()), None)
    named = engine
    if chosen is not None:
        with contextlib.suppress(SpecError):  # which its own check tells
            named = read_spec(chosen.config, traits).engine
    first = [
        *await check_engines(named, repairing),
        check_provisioner(),
        *check_kernelspecs(installed, kernel, traits),
    ]
    for check in first:
        yield check
    if chosen is None or not would_start(first):
        return
    spec = read_spec(chosen.config, traits)
    try:
        with_engine, info = await engines.choose(spec.engine, require_vm=spec.require_vm)
    except ContainerKernelError as error:
        yield Check.of("engine in use", "failed", error)
        return
    yield engine_in_use(info, engine)
    check = check_workdir(spec)
    yield check
    if check.verdict == "failed":
        return
    if check.verdict == "warning":
        traits = {**traits, "workdir": "none"}
    for image in images(installed, spec, traits):
        check = await check_image(with_engine, image, "failed" if image.image == spec.image else "warning", repairing)
        yield check
        if check.verdict == "failed":
            return
    yield await Trial(chosen, with_engine, traits, spec.startup_timeout).check()
