"""What the host sets when it makes the container."""

from __future__ import annotations

import json
import os
from typing import List, NamedTuple

VARIABLE = "CONTAINER_KERNELS_GUEST"  # with the settings, as JSON


class Settings(NamedTuple):
    """Times in seconds."""

    token_digest: str
    time_to_live: float
    lease_grace: float
    idle_grace: float
    scratch: str
    umask: int
    preload: List[str]
    template: bool

    @classmethod
    def read(cls) -> Settings:
        return cls(**json.loads(os.environ.pop(VARIABLE)))

    @property
    def private(self) -> str:
        """Our own directory. No directory of a person's, mounted into scratch, has its name by chance: keys are kept here."""
        return os.path.join(self.scratch, f".container-kernels-{self.token_digest[:16]}")
