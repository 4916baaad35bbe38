"""`pool drain`: nothing is warm, and nothing is made until a kernel is started."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from ...engines import ENGINES
from ..output import print_json

if TYPE_CHECKING:
    from ...pool.draining import Drained

NAME = "drain"
HELP = "Remove all warm containers; none is made until a kernel is started."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP} Kernels that run are not touched."
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Those of this engine; default: of all.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")


async def run(arguments: argparse.Namespace) -> int:
    from ...config import host_environment
    from ...pool.draining import drain
    from ...pool.ledger import Ledger

    log = logging.getLogger(__name__)
    drained = await drain(Ledger.of_this_user(), host_environment(), arguments.engine, log)
    if arguments.json:
        print_json(_as_json(drained))
    else:
        _tell(drained)
    if drained.errors:
        raise drained.errors[0]
    return 0


def _as_json(drained: Drained) -> dict[str, object]:
    forgotten = [
        {"key": each.key, "engine": each.recipe.engine, "image": each.recipe.request.image}
        for each in drained.forgotten
    ]
    return {
        "removed": [{"name": name, "engine": engine} for engine, name in drained.removed],
        "forgotten": forgotten,
        "errors": [str(error) for error in drained.errors],
    }


def _tell(drained: Drained) -> None:
    for engine, name in drained.removed:
        print(f"Removed {name} ({engine}).")
    if not drained.removed and not drained.errors:
        print("No container was warm.")
