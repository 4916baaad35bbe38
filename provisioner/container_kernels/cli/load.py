"""`load`: the images of an archive are there."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..engines import ENGINES, choose
from ..errors import ContainerKernelError, ImageError, SpecError
from ..pool.ledger import Ledger
from .output import print_json, reporting

NAME = "load"
HELP = "Load images from an archive that an engine has saved."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP} Prints their references. Every engine takes an OCI archive: `docker save` of Docker 25 or newer, "
        "or `podman save --format oci-archive`."
    )
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="The file, such as image.tar.")
    parser.add_argument(
        "--engine", choices=tuple(ENGINES), help="Load into this engine; default: the first that works."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON.")


async def run(arguments: argparse.Namespace) -> int:
    archive: Path = arguments.archive
    if not archive.is_file():
        raise SpecError(f"There is no file {archive}.")
    engine, _ = await choose(arguments.engine)
    with reporting() as report:
        report.doing(f"Loading {archive} with {engine.name}")
        references = await engine.load(archive, report.line)
    if not references:
        raise ImageError(f"{engine.name} found no image in {archive}.")
    with suppress(ContainerKernelError, OSError):  # the pool's next look sees it as well
        Ledger.of_this_user().forget_images(set(spellings(references)))
    if arguments.json:
        print_json([{"engine": engine.name, "reference": reference} for reference in references])
        return 0
    for reference in references:
        print(reference)
    return 0


def spellings(references: Iterable[str]) -> Iterator[str]:
    """How settings may name these images: engines write out what a name leaves open."""
    for reference in references:
        first, _, rest = reference.partition("/")
        is_host = bool(rest) and (first == "localhost" or "." in first or ":" in first)
        short = rest.removeprefix("library/") if is_host else reference
        for name in {reference, short}:
            yield name
            yield name.removesuffix(":latest")
