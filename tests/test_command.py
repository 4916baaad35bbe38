"""Programs on the host: their output, their end, and the end that is made for them."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest

from container_kernels import command
from container_kernels.errors import CommandTimeout

from .conftest import eventually_async

DEAF = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
while True: signal.pause()
"""
OBEDIENT = """
import os, signal, sys
def end(*_):
    open(sys.argv[1], "w").write("asked")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1], "w").write(str(os.getpid()))
while True: signal.pause()
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() if Path("/proc/self").exists() else _answers(pid)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def written(path: Path) -> int:
    """The number in the file, once the program has written it."""
    text = await eventually_async(lambda: path.read_text() if path.exists() else "", bool)
    return int(text)


async def test_output_and_status() -> None:
    argv = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    output = await command.run(argv, timeout=20)
    assert output == command.Output(tuple(argv), 3, "out\n", "err\n")
    assert not output.ok
    assert output.said == "err\nout"


async def test_stdin_is_empty() -> None:
    output = await command.run(python("import sys; print(repr(sys.stdin.read()))"), timeout=20)
    assert output.ok
    assert output.stdout == "''\n"


async def test_the_environment_is_this_process_s_or_the_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", "ours")
    argv = python("import os; print(os.environ.get('MARK'))")
    assert (await command.run(argv, timeout=20)).stdout == "ours\n"
    assert (await command.run(argv, timeout=20, env={"MARK": "given"})).stdout == "given\n"
    assert (await command.run(argv, timeout=20, env={})).stdout == "None\n"


async def test_a_program_that_is_missing_or_is_none(tmp_path: Path) -> None:
    missing = await command.run(["/there/is/no/program", "x"], timeout=20)
    assert (missing.status, missing.stdout) == (127, "")
    assert missing.said == "/there/is/no/program: No such file or directory"
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert (await command.run([str(plain)], timeout=20)).status == 127


async def test_bytes_that_are_no_text() -> None:
    output = await command.run(python("import os; os.write(1, b'a\\xffb')"), timeout=20)
    assert output.stdout == "a\N{REPLACEMENT CHARACTER}b"


async def test_output_is_bounded_and_the_program_is_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CAPTURED", 100_000)
    argv = python("import os, sys\nfor _ in range(64):\n os.write(1, b'a' * 65536); os.write(2, b'b' * 65536)")
    output = await command.run(argv, timeout=60)
    assert output.ok
    assert output.stdout == "a" * 100_000
    assert output.stderr == "b" * 100_000


async def test_lines_as_they_come(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = """
import os, sys, time
print("first", flush=True)
deadline = time.monotonic() + 20
while not os.path.exists(sys.argv[1]) and time.monotonic() < deadline: time.sleep(0.01)
print("second\\r\\nthird")
print("error", file=sys.stderr)
sys.stdout.write("last, without an end")
"""
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        go.touch()  # the program goes on only when its first line has come

    output = await command.run(python(code, str(go)), timeout=30, on_line=take)
    assert output.ok
    assert lines[0] == "first"
    assert sorted(lines) == ["error", "first", "last, without an end", "second", "third"]


async def test_a_line_without_an_end_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CAPTURED", 100_000)
    lines: list[str] = []
    argv = python("import os\nfor _ in range(64): os.write(1, b'a' * 65536)")
    await command.run(argv, timeout=60, on_line=lines.append)
    assert max(len(line) for line in lines) <= 200_000


async def test_time_is_over_for_one_that_obeys(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    task = asyncio.create_task(command.run(python(OBEDIENT, str(mark)), timeout=1.5))
    pid = await written(mark)
    with pytest.raises(CommandTimeout, match=r"did not end within 1\.5 seconds, and was ended") as raised:
        await task
    assert f"`{Path(sys.executable).name}`" in raised.value.message
    assert mark.read_text() == "asked"
    assert not runs(pid)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--env", "PASSWORD=secret", "image"], "`docker run` did not end within 0.3 seconds, and was ended."),
        (["--secret"], "`docker` did not end within 0.3 seconds, and was ended."),
        (["KEY=secret"], "`docker` did not end within 0.3 seconds, and was ended."),
        ([], "`docker` did not end within 0.3 seconds, and was ended."),
    ],
)
async def test_time_is_over_and_no_secret_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, words: list[str], told: str
) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    caplog.set_level(logging.DEBUG, logger="container_kernels")
    with pytest.raises(CommandTimeout) as raised:
        await command.run([str(program), *words], timeout=0.3)
    assert raised.value.message == told
    assert "secret" not in str(raised.value)
    (record,) = [record for record in caplog.records if record.name == "container_kernels.command"]
    assert record.levelno == logging.DEBUG
    assert record.getMessage().endswith(" ".join([str(program), *words]))


async def test_time_is_over_for_one_that_is_deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ENDING", 0.2)
    mark = tmp_path / "mark"
    task = asyncio.create_task(command.run(python(DEAF, str(mark)), timeout=1.5))
    pid = await written(mark)
    with pytest.raises(CommandTimeout):
        await task
    assert not runs(pid)


@pytest.mark.parametrize("code", [OBEDIENT, DEAF], ids=["obedient", "deaf"])
async def test_cancelled_it_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(command, "ENDING", 0.2)
    mark = tmp_path / "mark"
    task = asyncio.create_task(command.run(python(code, str(mark)), timeout=60))
    pid = await written(mark)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not runs(pid)


async def test_cancelled_twice_it_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ENDING", 0.2)
    mark = tmp_path / "mark"
    task = asyncio.create_task(command.run(python(DEAF, str(mark)), timeout=60))
    pid = await written(mark)
    for _ in range(20):
        task.cancel()
        await asyncio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not runs(pid)


async def test_what_is_run_is_recorded(tmp_path: Path) -> None:
    """Also by tasks that were started meanwhile; only in the block."""
    await command.run(python("pass"), timeout=20)
    with command.recording() as calls:
        done = await asyncio.gather(*(command.run(python(f"print({number})"), timeout=20) for number in range(2)))
        missing = await command.run(["/there/is/no/program"], timeout=20)
        with pytest.raises(CommandTimeout):
            await command.run(python("import time; time.sleep(600)"), timeout=0.2)
    await command.run(python("pass"), timeout=20)
    assert {call.output for call in calls[:2]} == set(done)
    assert (calls[2].argv, calls[2].output) == (("/there/is/no/program",), missing)
    assert (calls[3].argv[0], calls[3].output) == (sys.executable, None)
    assert len(calls) == 4
    assert 0.2 <= calls[3].seconds < 20
