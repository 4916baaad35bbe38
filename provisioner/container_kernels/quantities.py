"""Amounts, as people and engines write them."""

from __future__ import annotations

import re
from typing import Any

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWER = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def size(value: Any) -> int:
    """Bytes of `512m`, `2g`, `2GiB` or a plain number of bytes; letters are powers of 1024, as engines have them. Else ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no size")
    return int(float(match[1]) * (1 << _POWER[match[2].lower()]))
