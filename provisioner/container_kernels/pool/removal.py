"""A warm container is gone, and nobody has claimed it meanwhile."""

from __future__ import annotations

from ..engines.protocol import Engine
from .ledger import DamagedSlot, Ledger, SlotFile


async def remove_slot(ledger: Ledger, engine: Engine, file: SlotFile) -> bool:
    """The slot is gone, then its container; False, and nothing was done, where a kernel was first. Raises what the engine raises."""
    try:
        if ledger.take(file) is None:
            return False
    except DamagedSlot:
        pass
    await engine.remove(file.name)
    ledger.release(file.name)
    return True
