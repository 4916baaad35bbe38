"""The kernel process itself: ipykernel, in a process that was forked with its modules imported."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple

from . import process

if TYPE_CHECKING:
    from .running import Mark
    from .template import Reports

RECONNECTION = 0.4  # seconds: ZeroMQ comes back after 100 to 200 ms
EVERYBODY = 1 << 31  # more than will come
REHEARSED_CELL = "import os; _ = [os.getcwd()]\nprint(_)"


class Start(NamedTuple):
    """What a claim sets."""

    connection_file: str
    cwd: str
    environment: Dict[str, str]
    extra_arguments: List[str]
    returning: bool  # clients of a container that is lost, nobody knows how many


def run(start: Start, mark: Mark, reports: Reports) -> None:
    """The kernel has run and ended. Its sockets being bound was reported, or why they are not."""
    try:
        process.become_kernel(start.cwd, start.environment)
        if "TZ" in start.environment:
            time.tzset()
        _reseed()
        arguments = ["-f", start.connection_file, *start.extra_arguments]
        # As `python -m ipykernel_launcher` would have it.
        sys.argv = [sys.modules["ipykernel"].__path__[0] + "_launcher.py", *arguments]
        app = _app(mark, reports, EVERYBODY if start.returning else max(1, mark.listeners))
        app.initialize(arguments)
    except BaseException as error:
        reports.send("start_failed", message=f"{type(error).__name__}: {error}")
        raise
    reports.close()
    gc.enable()
    app.start()


def _app(mark: Mark, reports: Reports, awaited: int) -> Any:
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelapp import IPKernelApp

    heard = _subscriptions(mark, awaited)

    class MarkingKernel(IPythonKernel):
        """Marks the cell that it runs, so that its death can be told to who waits for it."""

        def set_parent(self, *args: Any, **kwargs: Any) -> None:
            # A restart is faster than ZeroMQ's reconnection: the request may be here before its sender hears what we publish.
            # The last kernel's listeners come back one by one, and which of them is the sender's, nobody knows.
            heard.wait(RECONNECTION)
            heard.set()
            super().set_parent(*args, **kwargs)

        async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
            mark.set(list(ident), dict(parent["header"]))
            try:
                result = super().execute_request(stream, ident, parent)
                if inspect.isawaitable(result):
                    await result
            finally:
                mark.clear()

    class App(IPKernelApp):
        """Reports when the last of its sockets is bound; the kernel itself is made while the client connects."""

        def init_heartbeat(self) -> None:
            super().init_heartbeat()
            reports.send("bound", pid=os.getpid())

    # What a notebook sees is the plain kernel's.
    for ours, theirs in ((MarkingKernel, IPythonKernel), (App, IPKernelApp)):
        ours.__name__, ours.__qualname__, ours.__module__ = theirs.__name__, theirs.__qualname__, theirs.__module__
    return App.instance(kernel_class=MarkingKernel)


def _subscriptions(mark: Mark, awaited: int) -> threading.Event:
    """Set when as many listen to iopub as are awaited; from ipykernel 7.2 on, which hears of them; before, it is set already."""
    import zmq
    from ipykernel.iostream import IOPubThread

    heard = threading.Event()
    mark.listeners = 0
    handle, set_up = (getattr(IOPubThread, name, None) for name in ("_handle_subscription", "_setup_xpub_listener"))
    if handle is None or set_up is None:
        heard.set()
        return heard
    topics: Dict[bytes, int] = {}

    def count(self: Any, frames: List[bytes]) -> None:
        for frame in frames:
            topic, step = frame[1:], 1 if frame[:1] == b"\1" else -1
            topics[topic] = topics.get(topic, 0) + step
            if topics[topic] == step:
                handle(self, [frame])  # the first of its topic is greeted, as ever
        mark.listeners = sum(topics.values())
        if mark.listeners >= awaited:
            heard.set()

    def set_up_to_hear_all(self: Any) -> None:
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        set_up(self)

    # This process runs one kernel.
    IOPubThread._handle_subscription = count  # type: ignore[method-assign]
    IOPubThread._setup_xpub_listener = set_up_to_hear_all  # type: ignore[method-assign]
    return heard


def _reseed() -> None:
    """No two forks share numpy's random state (the standard library's is reseeded by itself)."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def rehearse(report: int, scratch: Path) -> None:
    """Write the names of all modules that a kernel imports to be ready and to run a cell to `report`; then end."""
    with open(os.devnull, "r+b") as null:
        for stream in (0, 1, 2):
            os.dup2(null.fileno(), stream)
    os.nice(10)
    names: List[str] = []
    with contextlib.suppress(BaseException):
        import asyncio

        from ipykernel.kernelapp import IPKernelApp

        connection_file = scratch / f"rehearsal-{os.getpid()}.json"
        app = IPKernelApp.instance()
        app.initialize(["-f", str(connection_file), "--ip=127.0.0.1", "--HistoryManager.hist_file=:memory:"])
        with contextlib.suppress(OSError):
            connection_file.unlink()
        asyncio.new_event_loop().run_until_complete(asyncio.wait_for(_execute(app.kernel), 10))
    names = sorted(sys.modules)
    with os.fdopen(report, "w") as pipe:
        json.dump(names, pipe)
    os._exit(0)


async def _execute(kernel: Any) -> None:
    result = kernel.do_execute(REHEARSED_CELL, False, store_history=False)
    if inspect.isawaitable(result):
        await result
