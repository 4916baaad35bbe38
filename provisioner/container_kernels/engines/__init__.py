"""The engines, and which of them to use."""

from __future__ import annotations

from ..errors import EngineUnavailable, SpecError
from .docker import Docker
from .podman import Podman
from .protocol import Engine, EngineInfo

# In order of preference. A new engine is a module here, and a line.
ENGINES: dict[str, Engine] = {"docker": Docker(), "podman": Podman()}

_working: dict[str, EngineInfo] = {}


async def working(name: str) -> EngineInfo:
    """What the named engine is; once it has been found to work, this process does not ask again."""
    if name not in ENGINES:
        raise SpecError(f"engine = {name!r} is not known.", hint=f"Allowed: {', '.join(ENGINES)}.")
    if name not in _working:
        _working[name] = await ENGINES[name].probe()
    return _working[name]


async def choose(name: str | None = None, *, require_vm: bool = False) -> tuple[Engine, EngineInfo]:
    """The named engine, and no other; without a name, the first of the list that works.

    Raises EngineUnavailable, which says of each engine why it does not do.
    """
    refusals: list[EngineUnavailable] = []
    for candidate in [name] if name else ENGINES:
        try:
            info = await working(candidate)
        except EngineUnavailable as error:
            refusals.append(error)
            continue
        if not require_vm or info.isolation == "vm":
            return ENGINES[candidate], info
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
