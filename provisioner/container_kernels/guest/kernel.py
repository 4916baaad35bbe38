"""The kernel process itself: ipykernel, in a process that was forked with its modules imported."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Coroutine, Dict, List, NamedTuple

from . import process
from .parked import Orders

if TYPE_CHECKING:
    from .kernel_classes import KernelClasses
    from .running import Mark
    from .template import Reports

EVERYBODY = 1 << 31  # more than will come
LIMBERING = 10.0  # seconds that a cell of ours may take
LIMBERING_CELL = "None"
REHEARSED_CELL = "import os; _ = [os.getcwd()]\nprint(_)"


class Start(NamedTuple):
    """What a claim sets."""

    connection_file: str
    cwd: str
    environment: Dict[str, str]
    extra_arguments: List[str]
    returning: bool  # clients of a container that is lost, nobody knows how many


def run(start: Start, classes: KernelClasses, mark: Mark, reports: Reports) -> None:
    """The kernel has run and ended. Its sockets being bound was reported, or why they are not."""
    try:
        _lead_session()
        _enter(start.cwd, start.environment)
        awaited = EVERYBODY if start.returning else max(1, mark.listeners)
        arguments = ["-f", start.connection_file, *start.extra_arguments]
        app = _app(classes, arguments, mark, awaited, lambda: _report_bound(reports))
    except BaseException as error:
        reports.send("start_failed", message=f"{type(error).__name__}: {error}")
        raise
    reports.close()
    gc.enable()
    app.start()


def park(connection_file: str, orders: Orders, classes: KernelClasses, mark: Mark, reports: Reports) -> None:
    """As `run`, but that the start is waited for when everything else is done: its key, its directory and its environment come last."""
    try:
        _lead_session()
        app = _app(classes, ["-f", connection_file], mark, 1, lambda: None)
        if _runs_code_of_the_image(app):
            raise RuntimeError("the image has startup files for IPython, which are to run in the kernel's directory")
        _limber_up(app.kernel)
        process.give_memory_back()
    except BaseException as error:
        reports.send("not_parked", message=f"{type(error).__name__}: {error}")
        os._exit(1)
    reports.send("parked")
    start = orders.wait()
    if start is None:
        os._exit(0)
    try:
        _enter(start["cwd"], start["environment"])
        _take_place(app.shell)
        _take_key(app.session, connection_file)
    except BaseException as error:
        reports.send("start_failed", message=f"{type(error).__name__}: {error}")
        raise
    _report_bound(reports)
    reports.close()
    gc.enable()
    app.start()


def _runs_code_of_the_image(app: Any) -> bool:
    from pathlib import Path  # PID 1 goes without it

    directories = [Path(directory, "startup") for directory in ("/etc/ipython", app.profile_dir.location)]
    files = [file for directory in directories for file in directory.glob("*.*py")]
    return bool(files or app.exec_lines or app.exec_files or app.code_to_run or app.file_to_run or app.module_to_run)


def _limber_up(kernel: Any) -> None:
    """What is made when the first cell runs is made; no trace of that is left for the second."""
    _run_to_end(_execute(kernel, LIMBERING_CELL, silent=True))
    kernel.shell.last_execution_result = None


def _report_bound(reports: Reports) -> None:
    reports.send("bound", pid=os.getpid())


def _lead_session() -> None:
    process.lead_session()
    # As ipykernel has it between cells: a kernel is told of before it is all there.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _enter(cwd: str, environment: Dict[str, str]) -> None:
    process.enter(cwd, environment)
    if "TZ" in environment:
        time.tzset()
    import tempfile

    tempfile.tempdir = None  # what the template knows; TMPDIR may be another one now
    _reseed()


def _take_place(shell: Any) -> None:
    """What a shell remembers of the directory and the environment that it was made in."""
    shell.init_environment()  # which puts some variables over the caller's
    shell.starting_dir = os.getcwd()
    visited = shell.user_ns["_dh"]
    visited[:] = [type(visited[0])(shell.starting_dir)] if visited else []
    if os.environ.get("JPY_SESSION_NAME"):
        shell.user_ns["__session__"] = shell.user_ns_hidden["__session__"] = os.environ["JPY_SESSION_NAME"]


def _take_key(session: Any, connection_file: str) -> None:
    with open(connection_file) as file:
        connection = json.load(file)
    session.signature_scheme = connection["signature_scheme"]
    session.key = connection["key"].encode()


def _app(classes: KernelClasses, arguments: List[str], mark: Mark, awaited: int, on_bound: Callable[[], None]) -> Any:
    """ipykernel's application, initialised; `on_bound` is called when its sockets are bound."""
    # As `python -m ipykernel_launcher` would have it.
    sys.argv = [sys.modules["ipykernel"].__path__[0] + "_launcher.py", *arguments]
    listeners = _Listeners(mark, awaited)
    listeners.count_from_now_on()
    app = classes.app(mark, listeners.heard, on_bound)
    app.initialize(arguments)
    return app


class _Listeners:
    """Subscriptions, counted; `heard` is set when as many are there as are awaited."""

    def __init__(self, mark: Mark, awaited: int) -> None:
        self.heard = threading.Event()
        self._mark = mark
        self._awaited = awaited
        self._topics: Dict[bytes, int] = {}
        mark.listeners = 0

    def count_from_now_on(self) -> None:
        """From ipykernel 7.2 on, which hears of them; before, nobody is waited for."""
        import zmq
        from ipykernel.iostream import IOPubThread

        handle, set_up = (getattr(IOPubThread, name, None) for name in ("_handle_subscription", "_setup_xpub_listener"))
        if handle is None or set_up is None:
            self.heard.set()
            return

        def handle_all(thread: Any, frames: List[bytes]) -> None:
            for frame in self._count(frames):
                handle(thread, [frame])  # the first of its topic is greeted, as ever

        def set_up_to_hear_all(thread: Any) -> None:
            thread.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
            set_up(thread)

        # This process runs one kernel.
        IOPubThread._handle_subscription = handle_all  # type: ignore[method-assign]
        IOPubThread._setup_xpub_listener = set_up_to_hear_all  # type: ignore[method-assign]

    def _count(self, frames: List[bytes]) -> List[bytes]:
        """Those of the frames that are the first of their topic."""
        first = []
        for frame in frames:
            topic, step = frame[1:], 1 if frame[:1] == b"\1" else -1
            self._topics[topic] = self._topics.get(topic, 0) + step
            if self._topics[topic] == step:
                first.append(frame)
        self._mark.listeners = sum(self._topics.values())
        if self._mark.listeners >= self._awaited:
            self.heard.set()
        return first


def _reseed() -> None:
    """No two forks share numpy's random state (the standard library's is reseeded by itself)."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def rehearse(report: int, private: str) -> None:
    """Write the names of all modules that a kernel imports to be ready and to run a cell to `report`; then end."""
    with open(os.devnull, "r+b") as null:
        for stream in (0, 1, 2):
            os.dup2(null.fileno(), stream)
    os.nice(10)
    names: List[str] = []
    with contextlib.suppress(BaseException):
        from ipykernel.kernelapp import IPKernelApp

        connection_file = os.path.join(private, f"rehearsal-{os.getpid()}.json")
        app = IPKernelApp.instance()
        app.initialize(["-f", connection_file, "--ip=127.0.0.1", "--HistoryManager.hist_file=:memory:"])
        with contextlib.suppress(OSError):
            os.unlink(connection_file)
        _run_to_end(_execute(app.kernel, REHEARSED_CELL, silent=False))
    names = sorted(sys.modules)
    with os.fdopen(report, "w") as pipe:
        json.dump(names, pipe)
    os._exit(0)


def _run_to_end(execution: Coroutine[Any, Any, None]) -> None:
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(execution, LIMBERING))
    finally:
        loop.close()


async def _execute(kernel: Any, cell: str, *, silent: bool) -> None:
    result = kernel.do_execute(cell, silent, store_history=False)
    if isinstance(result, Awaitable):
        await result
