"""Locks between processes: one for each open file, given up with it."""

from __future__ import annotations

import errno
import fcntl


def is_had(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Whether the file's lock is ours from now on; at once, also where another has it. Raises OSError where the file can have none."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
