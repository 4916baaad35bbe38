"""`doctor --engine apple`: healthy in each release, and each thing that may be amiss, with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from container_kernels.cli import main
from container_kernels.doctor import report
from container_kernels.engines import apple

from ..apple.stand_in.faults import StandIn
from ..conftest import RELEASES
from .conftest import Checks

Examined = Callable[..., tuple[int, Checks]]

each_release = pytest.mark.parametrize("stand_in", RELEASES, indirect=True)


@pytest.fixture(autouse=True)
def no_pool(monkeypatch: pytest.MonkeyPatch, notebook_directory: Path) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "0")
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE_ARGS", "--label,io.container-kernels.test=doctor")


@pytest.fixture
def other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The `container` that is found prints a line, whatever it is asked."""

    def found(line: str) -> None:
        directory = tmp_path / "programs"
        directory.mkdir()
        program = directory / "container"
        program.write_text(f"#!/bin/sh\necho '{line}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(directory), prepend=":")

    return found


@each_release
def test_all_is_well(stand_in: StandIn, examined: Examined) -> None:
    status, checks = examined("--engine", "apple")
    assert status == 0, json.dumps(checks, indent=1)
    engine = checks["apple"]
    assert engine["verdict"] == "ok"
    assert engine["found"].startswith(f"{stand_in.version}, vm isolation, rootless, ")
    assert engine["facts"]["version"] == stand_in.version
    assert checks["engine in use"]["facts"] == {"engine": "apple", "isolation": "vm", "instead_of": ""}
    assert checks["engine in use"]["verdict"] == "ok"
    assert checks["image container-kernels/python"]["verdict"] == "ok"
    assert checks["kernel container-python"]["verdict"] == "ok"
    assert stand_in.containers() == {}


def test_unnamed_it_is_told_of_and_not_used(stand_in: StandIn, examined: Examined) -> None:
    _, checks = examined("--kernel", "no-such-kernel")
    assert checks["apple"]["verdict"] == "ok"
    assert "Used only where it is named: It needs a Mac with Apple silicon." in checks["apple"]["found"]


def test_unnamed_and_sick_it_is_let_be(stand_in: StandIn, examined: Examined) -> None:
    stand_in.fault(service="down")
    _, checks = examined("--fix", "--kernel", "no-such-kernel")
    assert checks["apple"]["verdict"] == "skipped"
    assert not any(call[:2] == ["system", "start"] for call in stand_in.recorded())


@each_release
def test_a_service_that_is_down(stand_in: StandIn, examined: Examined) -> None:
    stand_in.fault(service="down")
    status, checks = examined("--engine", "apple")
    engine = checks["apple"]
    assert (status, engine["verdict"]) == (1, "failed")
    assert engine["found"] == "the service of `container` does not run."
    assert "`container system start --enable-kernel-install`" in engine["remedy"]
    assert "`jupyter container-kernels doctor --fix --engine apple`" in engine["remedy"]
    assert "not registered" in engine["detail"]
    assert not any(name.startswith("kernel ") for name in checks)


@each_release
def test_it_is_started_where_that_is_asked_for(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """The Linux kernel that is missing comes with it."""
    stand_in.fault(service="down", kernel="missing")
    assert main(["doctor", "--engine", "apple", "--fix", "--json"]) == 0
    printed = capsys.readouterr()
    checks = {check["name"]: check for check in json.loads(printed.out)["checks"]}
    assert checks["apple"]["found"].endswith("its service was started just now")
    assert checks["kernel container-python"]["verdict"] == "ok"
    assert printed.err.startswith("Starting the service of `container`")
    assert "Launching container-apiserver..." in printed.err
    assert stand_in.containers() == {}


def test_a_service_that_cannot_be_started(stand_in: StandIn, examined: Examined) -> None:
    stand_in.fault(service="broken")
    status, checks = examined("--engine", "apple", "--fix")
    engine = checks["apple"]
    assert (status, engine["verdict"]) == (1, "failed")
    assert engine["found"] == "the service of `container` could not be started."
    assert "login session" in engine["remedy"]
    assert engine["detail"]


def test_a_service_that_hangs(stand_in: StandIn, examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apple, "ASKING", 1.5)
    stand_in.fault(hang=["system status"])
    status, checks = examined("--engine", "apple")
    engine = checks["apple"]
    assert (status, engine["verdict"]) == (1, "failed")
    assert engine["found"] == "the service of `container` does not answer."
    assert "`container system stop`" in engine["remedy"]


@each_release
def test_no_linux_kernel(stand_in: StandIn, examined: Examined) -> None:
    stand_in.fault(kernel="missing")
    status, checks = examined("--engine", "apple")
    (sick,) = (check for check in checks.values() if check["verdict"] == "failed")
    assert status == 1
    assert sick["found"] == "apple: no Linux kernel for the virtual machines is installed."
    assert "container system kernel set --recommended" in sick["remedy"]
    assert stand_in.containers() == {}


def test_no_virtual_machines(stand_in: StandIn, examined: Examined) -> None:
    stand_in.fault(virtualization="unavailable")
    status, checks = examined("--engine", "apple")
    (sick,) = (check for check in checks.values() if check["verdict"] == "failed")
    assert status == 1
    assert sick["found"] == "apple: this machine cannot run virtual machines."
    assert "another engine" in sick["remedy"]
    assert stand_in.containers() == {}


def test_a_missing_image(stand_in: StandIn, examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", "container-kernels/none-such")
    status, checks = examined("--engine", "apple")
    image = checks["image container-kernels/none-such"]
    assert (status, image["verdict"], image["found"]) == (1, "failed", "apple does not have it.")
    assert "`jupyter container-kernels build none-such --engine apple`" in image["remedy"]


def test_a_release_that_is_too_old(other_program: Callable[[str], None], examined: Examined) -> None:
    other_program("container CLI version 0.11.0 (build: release, commit: abc1234)")
    status, checks = examined("--engine", "apple")
    engine = checks["apple"]
    assert (status, engine["verdict"]) == (1, "failed")
    assert engine["found"] == "`container` 0.11.0 is too old; 0.12.0 or newer is needed."
    assert "https://github.com/apple/container/releases" in engine["remedy"]


def test_another_program_of_that_name(other_program: Callable[[str], None], examined: Examined) -> None:
    other_program("shipping container 3.1")
    status, checks = examined("--engine", "apple")
    engine = checks["apple"]
    assert (status, engine["verdict"]) == (1, "failed")
    assert engine["found"] == "the command `container` is not Apple's, or does not work."
    assert "shipping container 3.1" in engine["detail"]


def test_it_is_not_installed(examined: Examined, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, checks = examined("--engine", "apple")
    engine = checks["apple"]
    assert (status, engine["verdict"]) == (1, "failed")
    assert engine["remedy"] == "It needs a Mac with Apple silicon."


def test_a_report(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "ROUNDS", 1)
    target = tmp_path / "report.md"
    assert main(["doctor", "--engine", "apple", "--report", str(target)]) == 0, capsys.readouterr()
    text = target.read_text()
    for case in ("cold", "warm", "local, without a container"):
        assert f"    {case}: median" in text
    for call in ("container --version", "container system status", "container run --detach", "container image inspect"):
        assert f"       {call}" in text
    assert f"container CLI version {stand_in.version}" in text
    for secret in (str(stand_in.directory), str(Path.cwd())):
        assert secret not in text
    assert stand_in.containers() == {}
