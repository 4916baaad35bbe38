"""Marks of what a kernel is doing, in memory that it and its template share.

A kernel that dies says nothing any more; what it was doing, and how many heard it, is still readable here (see last_words, and kernel).
"""

from __future__ import annotations

import json
import mmap
import struct
from typing import Any, Dict, List, NamedTuple, Optional

_SIZE = 1 << 14
_LENGTH = struct.Struct("!I")


class RunningCell(NamedTuple):
    """The request that is being executed: its sender's routing prefix and its header."""

    identities: List[bytes]
    header: Dict[str, Any]


class Mark:
    """A slot for at most one running cell, and a count of who listens. Made before the fork, written by the child, read by the parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._listeners = mmap.mmap(-1, _LENGTH.size)

    @property
    def listeners(self) -> int:
        """Subscriptions to the iopub of the kernel of this moment, or of the last one."""
        return int(_LENGTH.unpack(self._listeners[:])[0])

    @listeners.setter
    def listeners(self, number: int) -> None:
        self._listeners[:] = _LENGTH.pack(number)

    def set(self, identities: List[bytes], header: Dict[str, Any]) -> None:
        """A header that is too long, or is no JSON, is not marked."""
        try:
            text = json.dumps(
                {"identities": [part.hex() for part in identities], "header": header}, default=str
            ).encode()
        except (TypeError, ValueError):
            return
        if len(text) + _LENGTH.size > _SIZE:
            return
        self._memory[_LENGTH.size : _LENGTH.size + len(text)] = text
        self._memory[: _LENGTH.size] = _LENGTH.pack(len(text))

    def clear(self) -> None:
        self._memory[: _LENGTH.size] = _LENGTH.pack(0)

    def get(self) -> Optional[RunningCell]:
        (length,) = _LENGTH.unpack(self._memory[: _LENGTH.size])
        if not 0 < length <= _SIZE - _LENGTH.size:
            return None
        try:
            value = json.loads(self._memory[_LENGTH.size : _LENGTH.size + length])
            return RunningCell([bytes.fromhex(part) for part in value["identities"]], dict(value["header"]))
        except (ValueError, KeyError, TypeError):
            return None
