"""What `container` answers, in the shapes of all releases: tolerant of how it is said, strict about what must be said.

Up to 0.12.3 the status is a text and a date the seconds since 2001; from 1.0.0 on the status is an object and a date ISO 8601.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar
from urllib.parse import unquote

from ...errors import EngineError
from ..protocol import ContainerState, ImageInfo

EPOCH = datetime(2001, 1, 1, tzinfo=timezone.utc)

Item = Mapping[str, Any]
Read = TypeVar("Read")


@dataclass(frozen=True)
class Counters:
    """What a container has used since it started: cpu in microseconds. Memory is in bytes, at this moment."""

    name: str
    cpu: int
    memory: int
    memory_limit: int
    pids: int


def items(text: str, read: Callable[[Item], Read], *, what: str) -> list[Read]:
    """Each element of a JSON array, read. Raises EngineError, with the answer, where one is not understood."""
    try:
        return [read(item) for item in json.loads(text)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"apple: its answer about {what} is not understood.",
            hint="This release of `container` may be newer than container-kernels: upgrade it, or report this.",
            detail=f"{error!r}\n{text[:2000]}",
        ) from None


def container_state(item: Item) -> ContainerState:
    """From an element of `list` or `inspect`. A container that was never started has no date before 1.0.0: it is as old as this look."""
    configuration = item["configuration"]
    status = _status(item)
    made = configuration.get("creationDate") or item.get("startedDate")
    return ContainerState(
        name=str(configuration["id"]),
        image=str(configuration["image"]["reference"]),
        running=status == "running",
        status=status,
        exit_code=None,  # no release remembers it
        created=datetime.now(timezone.utc) if made is None else instant(made),
        labels={str(key): unquote(str(value)) for key, value in (configuration.get("labels") or {}).items()},
    )


def _status(item: Item) -> str:
    status = item["status"]
    return str(status["state"] if isinstance(status, Mapping) else status)


def address(item: Item) -> str | None:
    """The VM's own address, from an element of `list` or `inspect`; None while it has none."""
    status = item["status"]
    networks = (status if isinstance(status, Mapping) else item).get("networks") or ()
    for network in networks:
        if found := network.get("ipv4Address") or network.get("address"):
            return str(found).partition("/")[0]
    return None


def instant(value: float | str) -> datetime:
    """A date in either spelling."""
    if isinstance(value, str):
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return EPOCH + timedelta(seconds=value)


def counters(item: Item) -> Counters | None:
    """From an element of `stats`; None where a counter that we need is missing, as it may be from 1.0.0 on."""
    found = [item.get(key) for key in ("cpuUsageUsec", "memoryUsageBytes", "memoryLimitBytes", "numProcesses")]
    if None in found:
        return None
    return Counters(str(item["id"]), *(int(number) for number in found if number is not None))


@dataclass(frozen=True)
class Image:
    """An image, and for which architectures it has variants, as `uname -m` spells them."""

    info: ImageInfo
    architectures: Sequence[str]


def image(reference: str, host: str, item: Item) -> Image:
    """From an element of `image inspect`; `info` is of the variant for the host's architecture, or else of the first."""
    configuration = item.get("configuration") or {}
    descriptor = configuration.get("descriptor") or item["index"]
    variants = [variant for variant in item["variants"] if variant["platform"]["os"] == "linux"]
    by_architecture = {architecture(str(variant["platform"]["architecture"])): variant for variant in variants}
    if not by_architecture:
        raise ValueError("it has no variant for Linux")
    chosen = host if host in by_architecture else next(iter(by_architecture))
    variant = by_architecture[chosen]
    config = variant["config"]
    created = config.get("created") or configuration.get("creationDate")
    info = ImageInfo(
        reference=reference,
        id=str(descriptor["digest"]),
        architecture=chosen,
        created=EPOCH if created is None else instant(_whole_seconds(created)),
        size=int(variant.get("size", 0)),
        labels=(config.get("config") or {}).get("Labels") or {},
    )
    return Image(info, tuple(by_architecture))


def _whole_seconds(created: float | str) -> float | str:
    """An image's own date is as its builder wrote it, nanoseconds included."""
    if not isinstance(created, str):
        return created
    seconds, point, fraction = created.partition(".")
    return f"{seconds}{fraction.lstrip('0123456789')}" if point else seconds


def architecture(name: str) -> str:
    """As `uname -m` spells it."""
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(name, name)
