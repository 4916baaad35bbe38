"""How often a start found a warm container, and why it did not: a line for each start, at the end of one file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from .files import LARGEST, Damaged, PrivateFiles
from .records import Counts

FILE = ("", "journal.jsonl")
FULL = 256 << 10  # bytes
LONGEST_REASON = 80  # characters


def hit(key: str, seconds: float, now: float) -> dict[str, Any]:
    return {"key": key, "at": round(now, 3), "seconds": round(seconds, 4)}


def miss(key: str, reason: str, now: float) -> dict[str, Any]:
    return {"key": key, "at": round(now, 3), "miss": reason[:LONGEST_REASON]}


def note(files: PrivateFiles, line: dict[str, Any]) -> None:
    files.append(*FILE, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def counts(files: PrivateFiles) -> dict[str, Counts]:
    """By recipe; a line that is damaged does not count."""
    found: dict[str, Counts] = {}
    try:
        content = files.read_bytes(*FILE, LARGEST)
    except (FileNotFoundError, Damaged):
        return found
    for line in content.splitlines():
        key, start = _read(line)
        before = found.get(key, Counts())
        match start:
            case {"miss": str(reason)}:
                misses = {**before.misses, reason: before.misses.get(reason, 0) + 1}
                found[key] = replace(before, misses=misses)
            case {"at": int() | float() as at, "seconds": int() | float() as seconds}:
                found[key] = replace(before, hits=before.hits + 1, last_hit=at, last_seconds=seconds)
    return found


def _read(line: bytes) -> tuple[str, Any]:
    try:
        start = json.loads(line)
    except (ValueError, RecursionError):
        return "", None
    if not isinstance(start, dict) or not isinstance(start.get("key"), str):
        return "", None
    if not all(math.isfinite(number) for number in start.values() if isinstance(number, float)):
        return "", None
    return start["key"], start


def trim(files: PrivateFiles) -> None:
    """A journal that is full keeps its latest half; a start that is noted meanwhile may be lost. A damaged one is gone."""
    try:
        content = files.read_bytes(*FILE, FULL + 1)
    except FileNotFoundError:
        return
    except Damaged:
        files.remove(*FILE)
        return
    if len(content) > FULL:
        latest = content[-FULL // 2 :]
        files.write_bytes(*FILE, latest.partition(b"\n")[2])
