"""The same with Podman underneath: what differs there must not be seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import eventually
from .conftest import ECHO, IMAGE, answer, fails, free_port, listed, ok, state
from .stand_in.faults import StandIn

pytestmark = pytest.mark.xdist_group("podman")


@pytest.fixture
def stand_in(make_stand_in: Callable[..., StandIn]) -> StandIn:
    return make_stand_in(engine="podman")


def test_a_life(stand_in: StandIn) -> None:
    port = free_port()
    publish = ("-p", f"127.0.0.1:{port}:8000")
    ok(stand_in, "run", "-d", "--init", "--name", "ab", "-l", "a=b", *publish, IMAGE, "python3", "-c", ECHO)
    eventually(lambda: ok(stand_in, "logs", "ab"), lambda log: log == "ready\n")
    assert answer("127.0.0.1", port) == b"hello"
    found = listed(stand_in)["ab"]
    assert found["configuration"]["image"]["reference"] == "registry.example.org/container-kernels/python:latest"
    (network,) = found["status"]["networks"]
    assert answer(network["ipv4Address"].partition("/")[0], 8000) == b"hello"
    (sample,) = json.loads(ok(stand_in, "stats", "--format", "json"))
    assert sample["memoryUsageBytes"] > 0
    assert ok(stand_in, "exec", "ab", "hostname") == "ab\n"
    assert fails(stand_in, "exec", "ab", "no-such-program").startswith("failed to start process")
    ok(stand_in, "stop", "ab")
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"
    ok(stand_in, "start", "ab")
    eventually(lambda: ok(stand_in, "logs", "ab"), lambda log: log == "ready\n")
    ok(stand_in, "delete", "-f", "ab")
    assert stand_in.underneath() == []


def test_foreground(stand_in: StandIn) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = stand_in.run("run", "--progress", "none", "--rm", IMAGE, "python3", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert ok(stand_in, "run", "--rm", "-i", IMAGE, "cat", input="hello\n") == "hello\n"
    assert fails(stand_in, "run", IMAGE, "no-such-program").startswith("failed to bootstrap container")
    assert eventually(stand_in.underneath, lambda names: not names) == []


def test_images(stand_in: StandIn, tmp_path: Path) -> None:
    from .test_images import Layout

    ok(stand_in, "image", "inspect", IMAGE)
    reference = f"container-kernels/{tmp_path.name.replace('_', '-')}-{free_port()}"
    assert "401" in fails(stand_in, "run", reference)
    stand_in.registry(reference, IMAGE)
    assert ok(stand_in, "run", "--rm", reference, "echo", "hello") == "hello\n"
    ok(stand_in, "image", "load", "-i", Layout(f"{reference}-loaded").write(tmp_path / "image.tar"))
    ok(stand_in, "image", "inspect", f"{reference}-loaded")
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL only={reference}\nENV A=1\n")
    ok(stand_in, "build", "-t", f"{reference}-built", str(tmp_path))
    assert ok(stand_in, "run", "--rm", f"{reference}-built", "printenv", "A") == "1\n"
    shown = ok(stand_in, "image", "list", "-q").split()
    assert f"registry.example.org/{reference}-built:latest" in shown
    ok(stand_in, "network", "list", "--format", "json")
