"""Named deadlines of one loop: setting one again moves it, and each is due once."""

from __future__ import annotations

import time
from typing import Dict, List, Optional


class Timers:
    def __init__(self) -> None:
        self._due: Dict[str, float] = {}

    def set(self, name: str, seconds: float) -> None:
        self._due[name] = time.monotonic() + seconds

    def clear(self, *names: str) -> None:
        for name in names:
            self._due.pop(name, None)

    def due(self) -> List[str]:
        """Those whose time has come; they are cleared."""
        now = time.monotonic()
        names = [name for name, when in self._due.items() if when <= now]
        self.clear(*names)
        return names

    def patience(self) -> Optional[float]:
        """Seconds until the next is due; None when none is set."""
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - time.monotonic())
