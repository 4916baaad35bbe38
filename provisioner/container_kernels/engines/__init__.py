"""The engines, and which of them to use."""

from __future__ import annotations

from dataclasses import replace

from ..errors import EngineUnavailable, ServiceStopped, SpecError
from .apple import Apple
from .docker import Docker
from .podman import Podman
from .protocol import Engine, EngineInfo, Progress

# In order of preference. A new engine is a module here, and a line.
ENGINES: dict[str, Engine] = {"apple": Apple(), "docker": Docker(), "podman": Podman()}

_working: dict[str, EngineInfo] = {}


async def working(name: str, *, starting: Progress | None = None) -> EngineInfo:
    """What the named engine is; once it has been found to work, this process does not ask again.

    A service that is stopped is started where `starting` is given, which is told so.
    """
    if name not in ENGINES:
        raise SpecError(f"engine = {name!r} is not known.", hint=f"Allowed: {', '.join(ENGINES)}.")
    if name not in _working:
        try:
            info = await ENGINES[name].probe()
        except ServiceStopped:
            if starting is None:
                raise
            await ENGINES[name].start(starting)
            info = await ENGINES[name].probe()
        _working[name] = info
    return _working[name]


async def choose(
    name: str | None = None, *, require_vm: bool = False, starting: Progress | None = None
) -> tuple[Engine, EngineInfo]:
    """The named engine, and no other; without a name, the first of the list that suits this machine and works.

    Raises EngineUnavailable, which says of each engine why it does not do.
    """
    refusals: list[EngineUnavailable] = []
    weaker_than: list[str] = []
    for candidate in [name] if name else ENGINES:
        try:
            if not name and (lacking := ENGINES[candidate].unsuited()):
                refusals.append(EngineUnavailable(f"{candidate}: not for this machine.", hint=lacking))
                continue
            info = await working(candidate, starting=starting)
        except EngineUnavailable as error:
            refusals.append(error)
            if candidate in ENGINES and ENGINES[candidate].isolation == "vm":
                weaker_than.append(error.message)
            continue
        if not require_vm or info.isolation == "vm":
            return ENGINES[candidate], replace(info, instead_of="" if info.isolation == "vm" else " ".join(weaker_than))
        refusals.append(EngineUnavailable(f"{candidate}: runs containers, and require_vm asks for a VM."))
    if len(refusals) == 1:
        raise refusals[0]
    raise EngineUnavailable(
        "No container engine works here.",
        hint="Start or install one of them; `jupyter container-kernels doctor` tells more.",
        detail="\n".join(f"- {error}" for error in refusals),
    )


def forget() -> None:
    """The next question asks the engines anew: one may have been started or stopped since."""
    _working.clear()
