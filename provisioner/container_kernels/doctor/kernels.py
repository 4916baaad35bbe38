"""What kernels are started from: kernelspecs, their images, and the directory to work in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import image, workdir
from ..config import home, read_spec
from ..engines import remedies
from ..engines.protocol import Engine, ImageInfo
from ..errors import ContainerKernelError, EngineUnavailable, SpecError, WorkdirError
from ..kernelspecs import Kernelspec
from ..pool.ledger import Ledger
from ..spec import Spec
from .check import Check, Verdict
from .machine import Repairing

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


def check_kernelspecs(installed: list[Kernelspec], kernel: str, traits: Mapping[str, Any]) -> Iterator[Check]:
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


def images(installed: list[Kernelspec], tried: Spec, traits: Mapping[str, Any]) -> Iterator[Spec]:
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


async def check_image(engine: Engine, spec: Spec, if_not: Verdict, repairing: Repairing | None = None) -> Check:
    """Whether the image is there, and can run the spec's kernel; `if_not` is the verdict where it cannot.

    `repairing` has one of ours built that is missing.
    """
    name = f"image {spec.image}"
    try:
        found, built = await engine.image(spec.image), ""
        if found is None and repairing is not None and (recipe := _recipe(spec.image)) is not None:
            found, built = await _built(engine, recipe, repairing), ", built just now"
        if found is None:
            return _missing(engine, spec.image, if_not)
        facts = {"size": found.size, "created": found.created.isoformat(), "architecture": found.architecture}
        size = f"{found.size / 1e6:.0f} MB{built}"
        if spec.argv:
            return Check(name, "ok", size, facts=facts)
        versions = json_object(await engine.output(spec.image, ["python3", "-c", VERSIONS]))
    except EngineUnavailable as error:  # which is nothing that another image could do better
        return Check.of(name, "failed", error, engine=engine.name)
    except ContainerKernelError as error:
        return Check.of(name, if_not, error)
    if not versions.get("ipykernel"):
        remedy = f"Add it: `jupyter container-kernels build --base {spec.image} --tag NAME`."
        return Check(name, if_not, f"It has Python {versions.get('python')}, and no ipykernel.", remedy, facts=facts)
    words = f"Python {versions['python']}, ipykernel {versions['ipykernel']}, {size}"
    return Check(name, "ok", words, facts={**facts, **versions})


def _missing(engine: Engine, reference: str, if_not: Verdict) -> Check:
    name, hint = f"image {reference}", remedies.missing_image(reference, engine.name)
    if reference.startswith(image.NAMESPACE):
        return Check(name, if_not, f"{engine.name} does not have it.", hint)
    return Check(name, "warning", f"{engine.name} does not have it, and pulls it at the first start.", hint)


def _recipe(reference: str) -> image.Recipe | None:
    return next((recipe for recipe in image.RECIPES.values() if recipe.tag == reference), None)


async def _built(engine: Engine, recipe: image.Recipe, repairing: Repairing) -> ImageInfo | None:
    with repairing() as report:
        await image.build(engine, recipe, report=report)
    with contextlib.suppress(ContainerKernelError, OSError):  # the pool's next look sees it as well
        Ledger.of_this_user().forget_images({recipe.tag})
    return await engine.image(recipe.tag)


def json_object(text: str) -> dict[str, Any]:
    """What a container printed as JSON; empty where it printed anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def check_workdir(spec: Spec) -> Check:
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
