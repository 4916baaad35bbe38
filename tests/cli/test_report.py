"""`doctor --report`: what is in it, and what must not be."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from container_kernels import command
from container_kernels.cli import main
from container_kernels.command import Call, Output
from container_kernels.doctor import Check, report, rounds
from container_kernels.doctor.private import Private
from container_kernels.doctor.report import KEPT, Report, trimmed, verb
from container_kernels.doctor.rounds import Case, Measured
from container_kernels.engines.memory import MemoryEngine
from container_kernels.errors import ContainerKernelError, SpecError

from ..conftest import EngineUnderTest

PLANTED = "hunter2"


@pytest.fixture
def private() -> Private:
    return Private(home="/Users/dana", users=["dana"], hosts=["danas-mac"])


def test_a_report_of_a_machine_where_a_kernel_starts(
    engine: EngineUnderTest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, elsewhere = tmp_path / "home" / "dana-q", tmp_path / "acme lawsuit"
    home.mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "dana-q")
    monkeypatch.setattr("platform.node", lambda: "danas-mac.local")
    label = os.environ["CONTAINER_KERNELS_ENGINE_ARGS"]
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE_ARGS", f"{label},--env,PLANTED={PLANTED},--label,team={PLANTED}")
    monkeypatch.setenv("CONTAINER_KERNELS_ENV", json.dumps({"PASSWORD": PLANTED}))
    monkeypatch.setattr(report, "ROUNDS", 1)
    target = home / "report.md"
    assert main(["doctor", "--report", str(target)]) == 0
    assert f"The report is in {target}. Read it before you send it" in capsys.readouterr().out
    text = target.read_text()
    for secret in (PLANTED, str(home), "dana-q", "danas-mac", "acme", '"token_digest": "'):
        assert secret not in text
    assert "Read it before you send it." in text
    for case in ("cold", "warm", "local, without a container"):
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{case}: ")]
        assert "median" in line
        assert "failed" not in line
    assert f"{engine.name} run --detach" in text
    assert "CONTAINER_KERNELS_GUEST=<value>" in text
    assert "ok        kernel container-python: started in" in text
    assert engine.containers() == []


def test_a_file_that_exists_is_not_written_over(
    memory: MemoryEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.md"
    target.write_text("mine")
    assert main(["doctor", "--report", str(target)]) == SpecError.exit_code
    assert target.read_text() == "mine"
    assert "already" in capsys.readouterr().err
    assert main(["doctor", "--report", str(tmp_path / "no" / "report.md")]) == SpecError.exit_code
    assert memory.asked == []


def test_a_report_of_a_machine_where_none_would_start(
    memory: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.stopped = "it is switched off"
    target = tmp_path / "report.md"
    assert main(["doctor", "--json", "--report", str(target)]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["would_start"] is False
    assert str(target) in printed.err
    text = target.read_text()
    assert "failed    memory: does not work." in text
    assert "it is switched off" in text
    assert "No kernel would start." in text


def call(argv: list[str], status: int | None = 0, stdout: str = "", stderr: str = "") -> Call:
    output = None if status is None else Output(tuple(argv), status, stdout, stderr)
    return Call(tuple(argv), 0.25, output)


def test_commands_are_told_with_their_answers(private: Private) -> None:
    calls = [
        call(["/opt/bin/container", "system", "status"], 1, stderr="not running in /Users/dana"),
        call(["container", "list", "--all"], None),
    ]
    text = Report(private, [], calls, ContainerKernelError("No.", detail="/Users/dana")).text()
    assert "1. `container system status`: status 1, 0.250 s" in text
    assert "       not running in ~\n" in text
    assert "2. `container list`: ended by us, 0.250 s" in text
    assert "/Users/dana" not in text


def test_what_is_as_before_is_told_once(private: Private) -> None:
    calls = [call(["docker", "info"], 0, f"answer {number}") for number in range(3)]
    calls.append(call(["docker", "info"], 1, "answer 4"))
    text = Report(private, [], [], Measured({"cold": Case([1.0, 3.0, 2.0])}, calls)).text()
    assert [f"answer {number}" in text for number in (0, 1, 2, 4)] == [True, False, False, True]
    assert "cold: median 2.00 of 1.00, 3.00, 2.00" in text


def test_checks_are_told_whole(private: Private) -> None:
    check = Check("apple", "failed", "It hangs.", "Restart it.", "first\nsecond for /Users/dana")
    text = Report(private, [check], [], None).text()
    assert "failed    apple: It hangs.\n" in text
    for line in ("Restart it.", "first", "second for ~"):
        assert f"    {line}\n" in text


def test_long_answers_are_trimmed() -> None:
    assert trimmed("a" * KEPT) == "a" * KEPT
    long = trimmed("a" * KEPT + "b" * KEPT)
    assert (long[:1], long[-1:]) == ("a", "b")
    assert f"[{KEPT} characters]" in long


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/usr/bin/docker", "container", "inspect", "abc123"], ("docker", "container", "inspect")),
        (["container", "--version"], ("container",)),
        (["docker", "info", "--format", "x"], ("docker", "info")),
    ],
)
def test_verbs(argv: list[str], said: tuple[str, ...]) -> None:
    assert verb(argv) == said


def test_what_is_measured_comes_back_from_its_process() -> None:
    made = Measured({"cold": Case([0.5], "why")}, [call(["a", "b"]), call(["c"], None)])
    assert Measured.from_json(json.dumps(asdict(made))) == made


async def test_a_measurement_that_fails_is_cleared_away(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []

    async def run(argv: list[str], **options: Any) -> Output:
        ran.append(tuple(argv[-3:]))
        assert options["env"]["JUPYTER_RUNTIME_DIR"]
        assert "CONTAINER_KERNELS_POOL_SIZE" not in options["env"]
        return Output(tuple(argv), 1, "", "it broke")

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "0")
    with pytest.raises(ContainerKernelError) as raised:
        await rounds.measured("a-kernel", "docker", 3, variables={}, progress=lambda line: None)
    assert raised.value.detail == "it broke"
    assert ran == [("a-kernel", "docker", "3"), ("a-kernel", "docker", "0")]


def test_a_case_that_fails_tells_where() -> None:
    assert str(Case([], "round 1 failed: X")) == "not measured; round 1 failed: X"
