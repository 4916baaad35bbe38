"""`scripts/engine`, on a Mac that is played: which engine it takes, and that it starts its service."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "scripts" / "engine"

UNAME = """#!/bin/sh
case $1 in
  -m) echo "$MACHINE" ;;
  -r) echo "$RELEASE" ;;
  *) echo Darwin ;;
esac
"""
CONTAINER = """#!/bin/sh
echo "$*" >>"$STATE/said"
case "$*" in
  "system status") test -e "$STATE/runs" ;;
  "system start --enable-kernel-install") test ! -e "$STATE/sick" && touch "$STATE/runs" ;;
  *) exit 64 ;;
esac
"""
DOCKER = """#!/bin/sh
echo 28.0.0
"""


class Mac:
    """Its programs lie in `directory`; what they remember as well."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine, self.release = "arm64", "25.1.0"
        self.has("uname", UNAME)
        self.has("container", CONTAINER)

    def has(self, name: str, program: str) -> None:
        path = self.directory / name
        path.write_text(program)
        path.chmod(0o755)

    def said(self) -> list[str]:
        path = self.directory / "said"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        mine = {"MACHINE": self.machine, "RELEASE": self.release, "STATE": str(self.directory)}
        # Of this machine's own programs, those that the script itself needs.
        for tool in ("bash", "dirname", "sh", "touch", "tail", "id", "grep", "mktemp", "cp", "rm", "head"):
            if not (self.directory / tool).exists():
                (self.directory / tool).symlink_to(str(shutil.which(tool)))
        environment = {**os.environ, **mine, "PATH": str(self.directory)}
        return subprocess.run([ENGINE, name], env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    return Mac(tmp_path)


@pytest.mark.parametrize("name", ["apple", "any"])
def test_apples_service_is_started_where_it_does_not_run(mac: Mac, name: str) -> None:
    mac.has("docker", DOCKER)
    done = mac.run(name)
    assert (done.returncode, done.stdout) == (0, "apple\n"), done.stderr
    assert done.stderr.startswith("==> Starting the service of Apple's container")
    assert "system start --enable-kernel-install" in mac.said()


def test_a_service_that_runs_is_let_be(mac: Mac) -> None:
    (mac.directory / "runs").touch()
    done = mac.run("any")
    assert (done.stdout, done.stderr) == ("apple\n", "")
    assert mac.said() == ["system status"]


def test_a_service_that_does_not_start_is_an_error(mac: Mac) -> None:
    (mac.directory / "sick").touch()
    done = mac.run("apple")
    assert (done.returncode, done.stdout) == (1, "")
    assert "container system start" in done.stderr


@pytest.mark.parametrize(("machine", "release"), [("x86_64", "25.1.0"), ("arm64", "24.6.0")])
def test_another_mac_has_another_engine(mac: Mac, machine: str, release: str) -> None:
    mac.machine, mac.release = machine, release
    mac.has("docker", DOCKER)
    assert mac.run("any").stdout == "docker\n"
    done = mac.run("apple")
    assert (done.returncode, mac.said()) == (1, [])
    assert "macOS 26" in done.stderr


def test_what_is_missing_is_told(mac: Mac) -> None:
    (mac.directory / "container").unlink()
    done = mac.run("apple")
    assert done.returncode == 1
    assert "https://github.com/apple/container/releases" in done.stderr
