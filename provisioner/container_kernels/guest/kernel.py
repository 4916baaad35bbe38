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
REHEARSED_CELL = "import os; _ = [os.getcwd()]\nprint(_)"


class Start(NamedTuple):
    """What a claim sets."""

    connection_file: str
    cwd: str
    environment: Dict[str, str]
    extra_arguments: List[str]


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
        app = _app(mark)
        app.initialize(arguments)
    except BaseException as error:
        reports.send("start_failed", message=f"{type(error).__name__}: {error}")
        raise
    reports.send("bound", pid=os.getpid())
    reports.close()
    gc.enable()
    app.start()


def _app(mark: Mark) -> Any:
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelapp import IPKernelApp

    heard = threading.Event()  # somebody listens to iopub

    class MarkingKernel(IPythonKernel):
        """Marks the cell that it runs, so that its death can be told to who waits for it."""

        def set_parent(self, *args: Any, **kwargs: Any) -> None:
            # A restart is faster than ZeroMQ's reconnection: the request may be here before its sender hears what we publish.
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
        def init_iopub(self, context: Any) -> None:
            super().init_iopub(context)
            _hear_subscriptions(self.iopub_thread, heard)

    # What a notebook sees is the plain kernel's.
    for ours, theirs in ((MarkingKernel, IPythonKernel), (App, IPKernelApp)):
        ours.__name__, ours.__qualname__, ours.__module__ = theirs.__name__, theirs.__qualname__, theirs.__module__
    IPKernelApp.clear_instance()
    return App.instance(kernel_class=MarkingKernel)


def _hear_subscriptions(iopub_thread: Any, heard: threading.Event) -> None:
    """`heard` is set with the first subscription, from ipykernel 7.2 on, which greets each; before, at once."""
    greet = getattr(iopub_thread, "_send_welcome_message", None)
    if greet is None:
        heard.set()
        return

    def greet_and_tell(subscription: str) -> None:
        greet(subscription)
        heard.set()

    iopub_thread._send_welcome_message = greet_and_tell


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
