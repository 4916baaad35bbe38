"""`pool status`: what is warm, what is wanted, and how often it served."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ...guest.wire import size_text
from ..output import age, print_json, print_table

if TYPE_CHECKING:
    from ...pool.ledger import Claim, Failure, Slot
    from ...pool.status import OfRecipe, Status

NAME = "status"
HELP = "Tell what is warm, what is wanted, and how often it served. No engine is asked."
JSON_HELP = "Print JSON: memory is in bytes, what ends in _seconds in seconds, and moments are in ISO 8601."

COLUMNS = ("ENGINE", "IMAGE", "DIRECTORY", "WARM", "PARKED", "OLDEST", "EXPIRES", "MEMORY", "HITS", "MISSES")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


async def run(arguments: argparse.Namespace) -> int:
    found, now = await look(), time.time()
    if arguments.json:
        making = [_making_as_json(each, now) for each in found.making]
        recipes = [as_json(each, now) for each in found.recipes]
        print_json({"keeper": found.keeper, "making": making, "recipes": recipes})
    else:
        _tell(found, now)
    return 0


async def look() -> Status:
    from ...config import host_environment
    from ...pool.ledger import Ledger
    from ...pool.status import status

    return await status(Ledger.of_this_user(), host_environment(), time.time())


# -- For programs


def as_json(of: OfRecipe, now: float) -> dict[str, Any]:
    counts = of.counts
    return {
        "key": of.key,
        "engine": of.engine,
        "place": dict(of.place),
        "image": of.image,
        "directories": of.directories,
        "wanted": of.size,
        "last_used": _moment(of.wanted.last_used) if of.wanted else None,
        "warm": len(of.warm),
        "parked": sum(slot.parked for slot in of.warm),
        "unusable": len(of.unusable),
        "memory": sum(slot.memory for slot in of.warm),
        "slots": [_slot_as_json(slot, now) for slot in of.warm],
        "hits": counts.hits,
        "last_hit": _moment(counts.last_hit) if counts.hits else None,
        "last_hit_seconds": counts.last_seconds if counts.hits else None,
        "misses": dict(counts.misses),
        "failure": of.failure and _failure_as_json(of.failure),
    }


def _slot_as_json(slot: Slot, now: float) -> dict[str, Any]:
    return {
        "name": slot.name,
        "parked": slot.parked,
        "memory": slot.memory,
        "age_seconds": round(now - slot.created, 1),
        "expires": _moment(slot.expires),
    }


def _failure_as_json(failure: Failure) -> dict[str, Any]:
    return {
        "message": failure.message,
        "in_a_row": failure.count,
        "at": _moment(failure.last),
        "next_try": _moment(failure.not_before),
    }


def _making_as_json(claim: Claim, now: float) -> dict[str, Any]:
    return {"name": claim.name, "engine": claim.engine, "age_seconds": round(now - claim.since, 1)}


def _moment(seconds: float) -> str | None:
    """None for what is no time: a damaged file may say anything."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return None


# -- For people


def _tell(found: Status, now: float) -> None:
    if found.recipes:
        print_table(COLUMNS, [_row(each, now) for each in found.recipes], right=("PARKED", "HITS", "MISSES"))
    else:
        print("Nothing is wanted, and nothing is warm: no kernel with pool_size was started yet.")
    for each in found.recipes:
        for line in _remarks(each, now):
            print(f"{each.engine} {each.image}: {line}")
    for engine in sorted({each.engine for each in found.making}):
        number = sum(each.engine == engine for each in found.making)
        print(f"{engine}: {number} {'is' if number == 1 else 'are'} being made.")
    print("A keeper fills the pool." if found.keeper else "No keeper runs: a helper fills the pool after each start.")


def _row(of: OfRecipe, now: float) -> tuple[str, ...]:
    warm = (str(sum(slot.parked for slot in of.warm)), "", "", "")
    if of.warm:
        oldest, expires = min(slot.created for slot in of.warm), min(slot.expires for slot in of.warm)
        warm = (warm[0], age(now - oldest), f"in {age(expires - now)}", size_text(sum(slot.memory for slot in of.warm)))
    return (
        " ".join([of.engine, *(f"{name}={value}" for name, value in of.place.items())]),
        of.image,
        ", ".join(of.directories) or "none",
        f"{len(of.warm)} of {of.size}",
        *warm,
        str(of.counts.hits),
        str(sum(of.counts.misses.values())),
    )


def _remarks(of: OfRecipe, now: float) -> Iterator[str]:
    if of.counts.misses:
        often = sorted(of.counts.misses.items(), key=lambda each: -each[1])
        yield f"missed because {'; '.join(f'{reason} ({number})' for reason, number in often)}."
    if of.failure:
        first, *_ = of.failure.message.splitlines() or [""]
        again = f"in {age(of.failure.not_before - now)}" if of.failure.holds(now) else "soon"
        yield f"failed {age(now - of.failure.last)} ago, and is tried again {again}: {first}"
    if of.unusable:
        yield f"{len(of.unusable)} cannot be used any more."
