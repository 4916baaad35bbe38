"""Running a program: the only place that starts a process on the host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from .errors import CommandTimeout
from .finish import finish

_log = logging.getLogger(__name__)

ENDING = 2.0  # seconds between terminate and kill
CAPTURED = 8 << 20  # bytes of each stream that are kept


@dataclass(frozen=True)
class Output:
    """What a finished command printed, and its exit status (127 when the program does not exist)."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def said(self) -> str:
        """Both streams, for a person."""
        return "\n".join(part for part in (self.stderr.strip(), self.stdout.strip()) if part)


@dataclass(frozen=True)
class Call:
    """A command that was run: how long it took, and its output; None where its time was over, or its caller was cancelled."""

    argv: tuple[str, ...]
    seconds: float
    output: Output | None


_record: ContextVar[list[Call] | None] = ContextVar("record", default=None)


@contextlib.contextmanager
def recording() -> Iterator[list[Call]]:
    """The list has each command that this task, or one that it has started meanwhile, runs: in the order of their ends."""
    calls: list[Call] = []
    token = _record.set(calls)
    try:
        yield calls
    finally:
        _record.reset(token)


async def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Output:
    """`argv` has ended, and its output is returned, whatever its exit status.

    `on_line` gets each line of either stream as it comes. Stdin is empty. A missing or unexecutable program is status 127.
    Raises CommandTimeout after `timeout` seconds; then, and when the caller is cancelled, the process has been terminated, or killed.
    """
    began, output = time.monotonic(), None
    try:
        output = await _ran(argv, timeout, env, cwd, on_line)
        return output
    finally:
        if (record := _record.get()) is not None:
            record.append(Call(tuple(argv), time.monotonic() - began, output))


async def _ran(
    argv: Sequence[str],
    timeout: float,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    on_line: Callable[[str], None] | None,
) -> Output:
    try:
        process = await _started(argv, env, cwd)
    except OSError as error:
        return Output(tuple(argv), 127, "", f"{argv[0]}: {error.strerror or error}")
    try:
        stdout, stderr, status = await asyncio.wait_for(_collected(process, on_line), timeout)
    except asyncio.TimeoutError:
        raise _timeout(argv, timeout) from None
    finally:
        await finish(_end(process))
    return Output(tuple(argv), status, stdout, stderr)


async def _started(argv: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=None if env is None else dict(env),
        # A terminal's Ctrl-C goes to its whole process group: an engine's command that it ends may leave half a container.
        start_new_session=True,
        cwd=cwd or _directory(),
    )


def _timeout(argv: Sequence[str], seconds: float) -> CommandTimeout:
    """Names the program and its verb only: an error is shown and sent around, and further words may hold secrets."""
    _log.debug("Ended after %g seconds: %s", seconds, shlex.join(argv))
    verb = [word for word in argv[1:2] if re.fullmatch(r"[a-z][a-z-]*", word)]
    return CommandTimeout(
        f"`{' '.join([Path(argv[0]).name, *verb])}` did not end within {seconds:g} seconds, and was ended.",
        hint="The engine may be busy or stuck. The log has the whole command, at level DEBUG.",
    )


def _directory() -> str | None:
    """Where commands run: here, unless this directory was deleted, in which Podman's do not start."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "/"
    return None


async def _collected(
    process: asyncio.subprocess.Process, on_line: Callable[[str], None] | None
) -> tuple[str, str, int]:
    assert process.stdout is not None
    assert process.stderr is not None
    return await asyncio.gather(_collect(process.stdout, on_line), _collect(process.stderr, on_line), process.wait())


async def _collect(stream: asyncio.StreamReader, on_line: Callable[[str], None] | None) -> str:
    kept = bytearray()
    line = bytearray()
    while chunk := await stream.read(1 << 16):
        kept += chunk[: CAPTURED - len(kept)]
        if on_line is not None:
            line += chunk
            *whole, line = line.split(b"\n")
            if len(line) > CAPTURED:
                whole, line = [*whole, line], bytearray()
            for text in whole:
                on_line(text.decode(errors="replace").rstrip("\r"))
    if line and on_line is not None:
        on_line(line.decode(errors="replace"))
    return kept.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), ENDING)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()


def detached(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """The pid of a process that goes on without this one, in `/`, with nothing to read, and nowhere to write. Raises OSError.

    Not in this directory: Python would import from it, and kernels write there.
    """
    null = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in range(3)]
    shell = ["/bin/sh", "-c", 'cd / && exec "$@"', "sh", *argv]
    return os.posix_spawn(shell[0], shell, dict(env), file_actions=null)
