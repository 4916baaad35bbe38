"""Images for kernels: a base with Python, and in it an environment with ipykernel and the packages of a recipe."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from ..engines.protocol import LABEL, Engine, ImageInfo
from ..errors import ImageError
from . import base as bases
from . import wheels
from .cache import Cache
from .interpreter import Interpreter, interpreter
from .recipe import NAMESPACE, RECIPES, Recipe, digest, python_version, recipe, reference
from .report import Report

__all__ = ["NAMESPACE", "RECIPES", "BuildResult", "Recipe", "Report", "build", "python_version", "recipe", "reference"]

_RECIPE_LABEL = f"{LABEL}.recipe"
_BASE_LABEL = f"{LABEL}.base"
_PYTHON_LABEL = f"{LABEL}.python"

_CONTAINERFILE = Path(__file__).with_name("Containerfile")


@dataclass(frozen=True)
class BuildResult:
    """An image that the engine has now."""

    engine: str
    tag: str
    id: str
    size: int
    base: str
    python: str
    status: Literal["built", "unchanged"]


async def build(
    engine: Engine,
    recipe: Recipe,
    *,
    base: str | None = None,
    python: str | None = None,
    force: bool = False,
    report: Report,
) -> BuildResult:
    """The engine has the recipe's image; nothing was done where it had it already, made from the same.

    `force` builds in any case, with the newest releases of the packages.
    Raises SpecError, ImageError (there is no base) or BuildError.
    """
    cache = Cache(platformdirs.user_cache_path("container-kernels", appauthor=False))
    found = await _base(engine, base, python, cache, report)
    made_from = digest(recipe, base=found.id, python=python, containerfile=_CONTAINERFILE.read_text(encoding="utf-8"))
    present = await engine.image(recipe.tag)
    if present is not None and present.labels.get(_RECIPE_LABEL) == made_from and not force:
        return _result(engine, recipe, present, "unchanged")
    of_base = await _interpreter(engine, found, python)
    context = await _context(recipe, of_base, cache, force, report)
    report.doing(f"Building {recipe.tag} on {found.reference} with {engine.name}")
    labels = {_RECIPE_LABEL: made_from, _BASE_LABEL: found.reference, _PYTHON_LABEL: of_base.python}
    await engine.build(
        context, tag=recipe.tag, arguments={"BASE": found.reference}, labels=labels, progress=report.line
    )
    if (built := await engine.image(recipe.tag)) is None:
        raise ImageError(f"{engine.name} does not have {recipe.tag}, which was just built.")
    return _result(engine, recipe, built, "built")


async def _base(engine: Engine, base: str | None, python: str | None, cache: Cache, report: Report) -> ImageInfo:
    if python is not None:
        python_version(python)
    if base is not None:
        return await bases.named(engine, reference(base, "--base"), report)
    return await bases.default(engine, python, cache, report)


async def _interpreter(engine: Engine, base: ImageInfo, python: str | None) -> Interpreter:
    found = await interpreter(engine, base.reference)
    if python not in (None, found.python):
        raise ImageError(f"{base.reference} has Python {found.python}, and {python} was asked for.")
    return found


async def _context(recipe: Recipe, python: Interpreter, cache: Cache, force: bool, report: Report) -> Path:
    """A directory with all that the build needs, from the cache unless it is forced."""
    inputs = [_CONTAINERFILE.read_text(encoding="utf-8"), recipe.requirements, python.abi, list(python.platforms())]
    name = f"context-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()}"
    if not force and (kept := cache.find(name)) is not None:
        return kept
    report.doing(f"Downloading packages for Python {python.python} on {python.machine}")
    with cache.scratch() as scratch:
        context = scratch / "context"
        context.mkdir()
        shutil.copyfile(_CONTAINERFILE, context / "Containerfile")
        await wheels.download(recipe.requirements, python, context / "wheels", report.line)
        return cache.keep(context, name)


def _result(engine: Engine, recipe: Recipe, image: ImageInfo, status: Literal["built", "unchanged"]) -> BuildResult:
    return BuildResult(
        engine=engine.name,
        tag=recipe.tag,
        id=image.id,
        size=image.size,
        base=image.labels.get(_BASE_LABEL, ""),
        python=image.labels.get(_PYTHON_LABEL, ""),
        status=status,
    )
