"""What the template imports for every kernel, module by module: one that leaves behind what kernels must not share is found, and named.

A thread is not there in a fork, and what it had locked stays locked; a socket, a device or a child process would belong to all kernels;
what hooks into IPython is too early. None of it can be taken back. So the template that finds it is spoiled: it ends, and another one is made without that module.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Container, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from . import process

ENDING = 1.0  # seconds for a thread or a process that an import has started, and that is to end (matplotlib has such a thread)
SHAREABLE = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
# jemalloc's own thread, which pyarrow brings: in a fork jemalloc does without it.
HARMLESS = b"jemalloc_bg_thd"
TAKEN_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)  # see `process.lead_session`


class Spoiled(BaseException):  # unlike what a module may raise
    """No kernel may be forked from this process any more."""

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(f"{module}: {reason}")
        self.module = module
        self.reason = reason


class Imports:
    """The template's, without what is `left_out`: modules that have spoiled an earlier one."""

    def __init__(self, left_out: Container[str]) -> None:
        self._left_out = left_out

    def preload(self, names: List[str], tell: Callable[[str], None]) -> None:
        """Those of the modules that can be had are imported; `tell` is called with each before, since it may end this process. Raises Spoiled."""
        for name in names:
            if name in self._left_out:
                continue
            tell(name)
            try:
                with _shell_not_missed_by(name):
                    self._import(name)
            except (Exception, SystemExit) as error:
                process.log(f"preload: {name} is left out: {type(error).__name__}: {error}")

    def learn(self, name: str) -> None:
        """The module, which a kernel needs, is imported if it can be. Raises Spoiled."""
        if name not in self._left_out:
            with contextlib.suppress(Exception, SystemExit):
                self._import(name)

    def _import(self, name: str) -> None:
        before = _Belongings.now()
        try:
            importlib.import_module(name)
        finally:
            reason = _left_behind(before)
            if reason:
                _end(_children() - before.children)
                raise Spoiled(name, f"{reason} when it is imported")


@contextlib.contextmanager
def _shell_not_missed_by(module: str) -> Iterator[None]:
    """A module that asks for IPython's shell, to hook into it, finds none here, and would not ask again. Raises Spoiled."""
    shell = sys.modules["IPython.core.interactiveshell"].InteractiveShell
    asked = []
    shell.initialized = staticmethod(lambda: asked.append(True))
    try:
        yield
    finally:
        del shell.initialized  # there is the one that it inherits
        if asked:
            raise Spoiled(module, "it asks for IPython's shell when it is imported")


class _Belongings(NamedTuple):
    """What this process has, besides its memory."""

    python_threads: Set[threading.Thread]
    threads: Set[str]
    children: Set[int]
    descriptors: Set[Tuple[str, str]]
    handlers: Dict[signal.Signals, Any]

    @classmethod
    def now(cls) -> _Belongings:
        handlers = {number: signal.getsignal(number) for number in TAKEN_BACK}
        return cls(set(threading.enumerate()), _threads(), _children(), _descriptors(), handlers)


def _left_behind(before: _Belongings) -> Optional[str]:
    """What the module does that spoils the template, if it does."""
    now = _Belongings.now()
    if now == before:
        return None
    if now.threads - before.threads and not _threads_end(before):
        return "it starts a thread"
    if now.children - before.children and not _eventually(lambda: _children() <= before.children):
        return "it starts a process"
    for _, target in sorted(now.descriptors - before.descriptors):
        name = _not_to_be_shared(target)
        if name:
            return f"it opens {name}"
    for number, handler in before.handlers.items():
        if now.handlers[number] != handler:
            return f"it changes what {number.name} does"
    return None


def _threads_end(before: _Belongings) -> bool:
    """Whether the new threads end by themselves; or at a fork, as OpenBLAS's do, which makes them again when it needs them."""
    if not _eventually(lambda: before.python_threads.issuperset(threading.enumerate())):
        return False
    if _harmful(_threads() - before.threads):
        with contextlib.suppress(OSError):
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
    return _eventually(lambda: not _harmful(_threads() - before.threads))


def _harmful(threads: Set[str]) -> bool:
    """Whether one of those that run is none that a library does without in a fork."""
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/comm", "rb") as file:  # it has ended
            if file.read().strip() != HARMLESS:
                return True
    return False


def _eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + ENDING
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _not_to_be_shared(target: str) -> Optional[str]:
    """What an open descriptor leads to, if it is not a plain file."""
    kind = target.partition(":")[0]
    if kind in ("socket", "pipe"):
        return f"a {kind}"
    is_device = target.startswith("/dev/") and not target.startswith("/dev/shm/") and target not in SHAREABLE
    return target if is_device or kind == "anon_inode" else None


def _threads() -> Set[str]:
    """Python's, and those that Python does not know."""
    return set(os.listdir("/proc/self/task"))


def _descriptors() -> Set[Tuple[str, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that was used to look
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def _children() -> Set[int]:
    """Those that run."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if int(parent) == os.getpid() and state not in b"ZX":
                found.add(int(entry))
    return found


def _end(children: Set[int]) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
