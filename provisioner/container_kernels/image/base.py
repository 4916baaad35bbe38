"""Which image is built on."""

from __future__ import annotations

import asyncio

from ..engines import remedies
from ..engines.protocol import Engine, ImageInfo
from ..errors import ImageError
from . import debian
from .cache import Cache
from .interpreter import interpreter
from .report import Report

PYTHON = "3.13"  # when nothing else is asked for, and a registry is there

PULLING = 120.0  # seconds for the default; one that was asked for takes as long as it takes


async def named(engine: Engine, reference: str, report: Report) -> ImageInfo:
    """The image that was asked for, pulled if the engine does not have it."""
    if (present := await engine.image(reference)) is not None:
        return present
    report.doing(f"Pulling {reference}")
    try:
        await engine.pull(reference, report.line)
    except ImageError as error:
        hint = "Pull or import it by hand, or name another with --base."
        raise ImageError(error.message, hint=hint, detail=error.detail) from error
    return await _there(engine, reference)


async def default(engine: Engine, python: str | None, cache: Cache, report: Report) -> ImageInfo:
    """The registry's slim Python image, or else a base made from this machine's packages; what is present comes first.

    Raises ImageError when there is neither, which says why.
    """
    slim = f"python:{python or PYTHON}-slim"
    if (present := await engine.image(slim)) is not None:
        return present
    ours = await engine.image(debian.TAG)
    if ours is not None and await _has(engine, python):
        return ours
    report.doing(f"Pulling {slim}")
    if (unreachable := await _pull(engine, slim, report)) is None:
        return await _there(engine, slim)
    refusal = debian.refusal((await engine.probe()).architecture)
    if refusal is None:
        ours = ours or await _from_packages(engine, cache, report)
        if await _has(engine, python):
            return ours
        refusal = f"the Python of {debian.TAG} is another"
    raise ImageError(
        f"There is no image with Python {python or PYTHON} to build on.",
        hint=f"Run `{remedies.said(engine.name, 'pull')} {slim}` where a registry can be reached, or "
        f"`{remedies.said(engine.name, 'load')}` a saved one, "
        "or name another image that has Python: `jupyter container-kernels build --base IMAGE`.",
        detail=f"- {unreachable}\n- A base from packages is not made: {refusal}.",
    )


async def _has(engine: Engine, python: str | None) -> bool:
    return python is None or (await interpreter(engine, debian.TAG)).python == python


async def _pull(engine: Engine, reference: str, report: Report) -> str | None:
    """None when the image is there, and else what prevented it."""
    try:
        await asyncio.wait_for(engine.pull(reference, report.line), PULLING)
    except asyncio.TimeoutError:
        return f"{engine.name} could not pull {reference!r} within {PULLING:g} seconds."
    except ImageError as error:
        return f"{error.message}\n{error.detail}"
    return None


async def _from_packages(engine: Engine, cache: Cache, report: Report) -> ImageInfo:
    archive = await debian.archive(cache, report)
    report.doing(f"Importing {debian.TAG} into {engine.name}")
    await engine.import_tar(archive, tag=debian.TAG)
    return await _there(engine, debian.TAG)


async def _there(engine: Engine, reference: str) -> ImageInfo:
    if (image := await engine.image(reference)) is None:
        raise ImageError(f"{engine.name} does not have {reference}, which was just fetched.")
    return image
