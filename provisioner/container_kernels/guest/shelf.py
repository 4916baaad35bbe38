"""What a container that is made before anybody needs it is told, and how far it is."""

from __future__ import annotations

from typing import Dict, Optional

from .connections import Request


class Shelf:
    """`request` waits for its answer while the container is made ready; `closed` from its answer to the claim; `used` once, and for ever."""

    def __init__(
        self, request: Optional[Request] = None, curve: Optional[Dict[str, str]] = None, time_to_live: float = 0
    ) -> None:
        self.request = request
        self.curve = curve or {}
        self.time_to_live = time_to_live  # seconds
        self.closed = False
        self.used = False
