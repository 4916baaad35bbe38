"""What changed in which release of `container`: the only place that knows version numbers. The code asks by the change's name.

Read in the source of apple/container, tags 0.12.3 to 1.2.2. What every release from `OLDEST` on has in common is not listed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.version import Version

OLDEST = Version("0.12.0")  # the first whose capabilities are not all there are: older ones run kernels with more
NEWEST_READ = Version("1.2.2")
UNNUMBERED = Version("0.0.0")  # built by hand, from whatever source: taken for the newest that was read

_CHANGES = {
    "a forced deletion gives the address back": Version("1.0.0"),  # apple/container#1378
}

_LINE = re.compile(r"^container CLI version (\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Release:
    """The release of the command."""

    version: Version

    @classmethod
    def from_line(cls, line: str) -> Release | None:
        """From what `container --version` prints; None for what another program of that name prints."""
        match = _LINE.match(line)
        if match is None:
            return None
        version = Version(match[1])
        return cls(NEWEST_READ if version == UNNUMBERED else version)

    @property
    def is_too_old(self) -> bool:
        return self.version < OLDEST

    @property
    def is_newer_than_read(self) -> bool:
        return self.version > NEWEST_READ

    def has(self, change: str) -> bool:
        return self.version >= _CHANGES[change]
