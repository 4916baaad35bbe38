"""The command line as a whole: its names, its errors, its ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from container_kernels import __version__
from container_kernels.cli import COMMANDS, main, told
from container_kernels.engines.memory import MemoryEngine
from container_kernels.errors import ContainerKernelError, EngineUnavailable

SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize("words", [["container-kernels"], ["jupyter", "container-kernels"]])
def test_both_names_lead_here(words: list[str]) -> None:
    program = str(SCRIPTS / words[0])
    done = subprocess.run([program, *words[1:], "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"usage: {' '.join(words)} ")
    assert all(f" {command.NAME} " in done.stdout for command in COMMANDS)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"container-kernels {__version__}\n"


def test_help_does_not_wait_for_jupyter() -> None:
    code = "import sys; from container_kernels import cli; sys.exit('jupyter_client' in sys.modules or 'zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_every_command_says_what_it_does() -> None:
    names = ["doctor", "build", "load", "install", "ps", "logs", "stop", "gc", "pool"]
    assert [command.NAME for command in COMMANDS] == names
    assert all(command.HELP.endswith(".") for command in COMMANDS)


def test_an_error_is_message_hint_and_detail() -> None:
    error = ContainerKernelError("It broke.", hint="Mend it.", detail="line 1\nline 2")
    assert told(error) == "Error: It broke.\nMend it.\n    line 1\n    line 2"
    assert told(ContainerKernelError("It broke.")) == "Error: It broke."


def test_an_error_ends_a_command_with_its_own_status(memory: MemoryEngine, capsys: pytest.CaptureFixture[str]) -> None:
    memory.stopped = "it is switched off"
    assert main(["ps"]) == EngineUnavailable.exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert "it is switched off" in printed.err


def test_interrupted(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(memory, "list", interrupt)
    assert main(["ps"]) == 130


@pytest.mark.parametrize("command", [["gc", "--dry-run"], ["ps", "--json"]])
def test_a_reader_that_has_gone_is_no_error(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = [str(SCRIPTS / "container-kernels"), *command]
    try:
        done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_engine_must_be_known(capsys: pytest.CaptureFixture[str], add_container: Callable[..., str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ps", "--engine", "lxc"])
    assert ended.value.code == 2
    assert "memory" in capsys.readouterr().err
