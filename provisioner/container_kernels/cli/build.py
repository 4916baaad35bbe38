"""`build`: a kernel's image is there, made if it has to be."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from .. import image
from ..engines import ENGINES, choose
from ..errors import ContainerKernelError, SpecError
from ..pool.ledger import Ledger
from .output import print_json, reporting

NAME = "build"
HELP = "Build the images that kernels run in."


def configure(parser: argparse.ArgumentParser) -> None:
    recipes = " or ".join(image.RECIPES)
    parser.description = (
        "Build images with ipykernel and the packages of a recipe; one that was made from the same stays."
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"What goes in: {recipes}; default: python.")
    parser.add_argument(
        "--base",
        metavar="IMAGE",
        help="Build on this image, which has Python; default: python:VERSION-slim, or this machine's own packages.",
    )
    parser.add_argument("--python", metavar="VERSION", help="The image's version of Python, such as 3.13.")
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        help="One more package, such as 'polars>=1.30'; may be repeated.",
    )
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="More packages, one a line.")
    parser.add_argument("--tag", metavar="NAME", help="Name the image so; default: container-kernels/RECIPE.")
    parser.add_argument(
        "--engine", choices=tuple(ENGINES), help="Build with this engine; default: the first that works."
    )
    parser.add_argument(
        "--force", action="store_true", help="Build even if nothing has changed, with the newest releases."
    )
    parser.add_argument("--json", action="store_true", help="Print the results as JSON.")


async def run(arguments: argparse.Namespace) -> int:
    """The images are there, and the person knows which."""
    recipes = _recipes(arguments)
    engine, _ = await choose(arguments.engine)
    options = {"base": arguments.base, "python": arguments.python, "force": arguments.force}
    with reporting() as report:
        results = [await image.build(engine, recipe, **options, report=report) for recipe in recipes]
    with suppress(ContainerKernelError, OSError):  # the pool's next look sees it as well
        Ledger.of_this_user().forget_images({result.tag for result in results if result.status != "unchanged"})
    if arguments.json:
        print_json([asdict(result) for result in results])
        return 0
    for result in results:
        where = f"{result.engine}, Python {result.python}, on {result.base}, {result.size / 1e6:.0f} MB"
        print(f"{result.tag}: {result.status} ({where})")
    return 0


def _recipes(arguments: argparse.Namespace) -> list[image.Recipe]:
    names = list(dict.fromkeys(arguments.recipes)) or ["python"]
    if arguments.tag is not None and len(names) > 1:
        raise SpecError(f"--tag names one image, and {len(names)} recipes were given.", hint="Build them one by one.")
    return [
        image.recipe(name, packages=arguments.package, requirements=arguments.requirements, tag=arguments.tag)
        for name in names
    ]
