"""Small truths about processes that the supervisor, the template and the kernel share."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import Dict, List, Optional, Tuple

# Killed first when memory runs out: the supervisor must live to tell.
FIRST_TO_GO = "1000"


def become_kernel(cwd: str, environment: Dict[str, str]) -> None:
    """This process leads a session of its own, with default signals, in `cwd`, with `environment` added to its own."""
    lead_session()
    enter(cwd, environment)


def lead_session() -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(FIRST_TO_GO)


def enter(cwd: str, environment: Dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(cwd)


def execute(argv: List[str], cwd: str, environment: Dict[str, str]) -> Tuple[int, str]:
    """The pid of a child that runs `argv` as a kernel, and what kept it from doing so (empty where nothing did). Raises OSError for no child."""
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid == 0:
        try:
            become_kernel(cwd, environment)
            os.execvp(argv[0], argv)
        except OSError as error:
            os.write(writing, f"{error.filename or argv[0]}: {error.strerror}".encode())
        finally:
            os._exit(127)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:  # closed by a successful exec
        return pid, pipe.read(1000).decode(errors="replace")


def no_process(error_number: Optional[int]) -> str:
    """Why a fork failed, as a sentence for a person."""
    if error_number == errno.EAGAIN:
        return "The container has no process left: its limit is reached (`pids`)."
    return f"The container cannot make another process: {os.strerror(error_number or 0)}."


def signal_kernel(pid: int, number: int) -> None:
    """The process group of a kernel that is not reaped yet has got the signal; one that has just ended is fine."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        # It may not lead its group yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_group(group: int) -> None:
    """What is left of the group whose leader is reaped is killed. The leader's pid may be another process's by now: it is not touched."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def log(text: str) -> None:
    """A line in the container's log."""
    print(f"container-kernels: {text}", file=sys.stderr, flush=True)  # noqa: T201 # PID 1's stderr is the log


def give_memory_back() -> None:
    """What the C library has free goes back to the system, where it is one that can (malloc_trim(3))."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)


def machine_is_busy() -> bool:
    """Whether more is running than there are processors, at this moment (proc(5): the fourth field of /proc/loadavg, which counts us)."""
    try:
        with open("/proc/loadavg") as file:
            running = int(file.read().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return running - 1 > (os.cpu_count() or 1)


def listening(ports: List[int]) -> bool:
    """Whether something in this container listens on each of the ports."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as file:
            for line in file.read().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":  # LISTEN
                    found.add(int(words[1].rpartition(":")[2], 16))
    return found.issuperset(ports)
