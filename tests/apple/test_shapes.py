"""What is printed as JSON, key by key, in the shape of each release."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import IMAGE, fails, free_port, ok
from .stand_in.faults import StandIn
from .stand_in.grammar import VERSIONS, number
from .stand_in.under import HOST, image

pytestmark = pytest.mark.xdist_group("docker")
VERSIONED = pytest.mark.parametrize("version", VERSIONS)
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SINCE_2001 = 978307200
FULL = "registry.example.org/container-kernels/python:latest"
IS_NEW = {version: number(version) >= (1, 0) for version in VERSIONS}


def is_now(version: str, value: Any) -> bool:
    """A moment of the last minute, as the release has it."""
    if not IS_NEW[version]:
        return isinstance(value, float) and abs(value + SINCE_2001 - time.time()) < 60
    return isinstance(value, str) and ISO.fullmatch(value) is not None


def plain(text: str) -> Any:
    """What it says; a slash is never written as it is."""
    assert "/" not in text.replace("\\/", "")
    return json.loads(text)


@VERSIONED
def test_a_container(stand_in: StandIn, version: str, tmp_path: Path) -> None:
    port = free_port()
    ok(
        stand_in, "run", "-d", "--name", "kernel-1", "-p", f"127.0.0.1:{port}:5555", "-v", f"{tmp_path}:/nb:ro", "--tmpfs", "/scratch",
        "-l", "owner=me", "-l", "empty", "-e", "A=1", "-w", "/nb", "-u", "1000", "--cpus", "2", "-m", "2g", "--init",
        "--ulimit", "nofile=1024", "--cap-drop", "net_raw", IMAGE, "python3", "-c", "import time; time.sleep(1000)",
    )  # fmt: skip
    (found,) = plain(ok(stand_in, "list", "--format", "json"))
    assert plain(ok(stand_in, "inspect", "kernel-1")) == [found]
    configuration, status = found.pop("configuration"), found.pop("status")
    if IS_NEW[version]:
        assert found == {"id": "kernel-1"}
        assert set(status) == {"state", "networks", "startedDate"}
        shown, (network,), started = status["state"], status["networks"], status["startedDate"]
        assert is_now(version, configuration.pop("creationDate"))
    else:
        assert set(found) == {"networks", "startedDate"}
        shown, (network,), started = status, found["networks"], found["startedDate"]
    assert (shown, is_now(version, started)) == ("running", True)
    assert re.fullmatch(r"[0-9.]+/\d+", network.pop("ipv4Address"))
    assert re.fullmatch(r"[0-9.]+", network.pop("ipv4Gateway"))
    assert re.fullmatch(r"[0-9a-f:]{17}", network.pop("macAddress"))
    reserved = {"variant": "reserved"} if number(version) >= (1, 1) else {}
    assert network == {"network": "default", "hostname": "kernel-1", "mtu": 1280, **reserved}
    of_image = image(stand_in.world, IMAGE)
    assert of_image is not None
    process = configuration.pop("initProcess")
    assert set(process.pop("environment")) == {*of_image["Config"]["Env"], "A=1"}
    assert process == {
        "executable": "python3",
        "arguments": ["-c", "import time; time.sleep(1000)"],
        "workingDirectory": "/nb",
        "terminal": False,
        "user": {"raw": {"userString": "1000"}},
        "supplementalGroups": [],
        "rlimits": [{"limit": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
    }
    descriptor = configuration["image"].pop("descriptor")
    assert descriptor["digest"] == of_image["Id"]
    assert configuration == {
        "id": "kernel-1",
        "image": {"reference": FULL},
        "mounts": [
            {"type": {"virtiofs": {}}, "source": str(tmp_path), "destination": "/nb", "options": ["ro"]},
            {"type": {"tmpfs": {}}, "source": "tmpfs", "destination": "/scratch", "options": []},
        ],
        "publishedPorts": [
            {"hostAddress": "127.0.0.1", "hostPort": port, "containerPort": 5555, "proto": "tcp", "count": 1}
        ],
        "publishedSockets": [],
        "labels": {"owner": "me", "empty": ""},
        "sysctls": {},
        "networks": [{"network": "default", "options": {"hostname": "kernel-1", "mtu": 1280}}],
        "dns": {"nameservers": [], "searchDomains": [], "options": []},
        "rosetta": False,
        "platform": {"os": "linux", "architecture": HOST},
        "resources": {"cpus": 2, "memoryInBytes": 2 << 30} | ({"cpuOverhead": 1} if IS_NEW[version] else {}),
        "runtimeHandler": "container-runtime-linux",
        "virtualization": False,
        "ssh": False,
        "readOnly": False,
        "useInit": True,
        "capAdd": [],
        "capDrop": ["CAP_NET_RAW"],
    }


@VERSIONED
def test_lists_are_compact_and_inspect_is_not(stand_in: StandIn, version: str) -> None:
    for name in ("ab", "cd"):
        ok(stand_in, "create", "--name", name, IMAGE, "true")
    assert len(ok(stand_in, "list", "-a", "--format", "json").splitlines()) == 1
    shown = ok(stand_in, "inspect", "cd", "ab", "cd")
    assert [item["configuration"]["id"] for item in json.loads(shown)] == ["ab", "cd"], "in the list's order, and once"
    assert (len(shown.splitlines()) > 1) == IS_NEW[version]
    assert ok(stand_in, "list", "--format", "json") == "[]\n", "none runs"
    assert ok(stand_in, "list", "-a", "-q") == "ab\ncd\n"


@VERSIONED
def test_images(stand_in: StandIn, version: str) -> None:
    (found,) = plain(ok(stand_in, "image", "inspect", IMAGE))
    listed = plain(ok(stand_in, "image", "list", "--format", "json"))
    of_engine = image(stand_in.world, IMAGE)
    assert of_engine is not None
    digest = of_engine["Id"]
    (variant,) = found["variants"]
    assert variant["platform"]["architecture"] == HOST
    assert set(variant["config"]["config"]) <= {
        "User",
        "Env",
        "Entrypoint",
        "Cmd",
        "WorkingDir",
        "Labels",
        "StopSignal",
    }
    assert variant["config"]["config"]["Labels"] == of_engine["Config"]["Labels"]
    if IS_NEW[version]:
        assert set(found) == {"id", "configuration", "variants"}
        assert set(variant) == {"platform", "digest", "size", "config"}
        assert set(found["configuration"]) == {"name", "creationDate", "descriptor"}
        assert (found["id"], found["configuration"]["name"]) == (digest.removeprefix("sha256:"), FULL)
        assert found in listed
    else:
        assert set(found) == {"name", "index", "variants"}
        assert set(variant) == {"platform", "size", "config"}
        assert (found["name"], found["index"]["digest"]) == (FULL, digest)
        (item,) = [item for item in listed if item["reference"] == FULL]
        assert set(item) == {"reference", "fullSize", "descriptor"}


@VERSIONED
def test_an_image_that_is_not_there(stand_in: StandIn, version: str) -> None:
    done = stand_in.run("image", "inspect", "no-such-image")
    said = "Error: image not found: no-such-image\n" if IS_NEW[version] else "no-such-image: Image not found\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


@VERSIONED
def test_stats_take_two_seconds(stand_in: StandIn, version: str) -> None:
    for name in ("ab", "cd"):
        ok(stand_in, "run", "-d", "--name", name, "-m", "256m", IMAGE, "sleep", "1000")
    begin = time.monotonic()
    found = plain(ok(stand_in, "stats", "--no-stream", "--format", "json"))
    assert time.monotonic() - begin >= 2
    assert sorted(item["id"] for item in found) == ["ab", "cd"]
    sample = found[0]
    assert set(sample) == {
        "id", "memoryUsageBytes", "memoryLimitBytes", "cpuUsageUsec", "networkRxBytes", "networkTxBytes", "blockReadBytes",
        "blockWriteBytes", "numProcesses",
    }  # fmt: skip
    assert (sample["memoryLimitBytes"], sample["numProcesses"]) == (256 << 20, 1)
    assert 0 < sample["memoryUsageBytes"] < 256 << 20
    ok(stand_in, "stop", "-t", "0", "ab")
    assert fails(stand_in, "stats", "--format", "json", "ab") == "no such container: ab"


@VERSIONED
def test_the_service(stand_in: StandIn, version: str) -> None:
    shown = plain(ok(stand_in, "system", "status", "--format", "json"))
    keys = "status appRoot installRoot apiServerVersion apiServerCommit apiServerBuild apiServerAppName"
    assert set(shown) == set(keys.split())
    assert shown["status"] == "running"
    assert shown["apiServerVersion"].startswith(f"container-apiserver version {version} (build: ")
    command, server = plain(ok(stand_in, "system", "version", "--format", "json"))
    assert (command["appName"], command["version"]) == ("container", version)
    assert server["version"] == shown["apiServerVersion"], "a whole line"
    for fault, status in (("down", "unregistered"), ("mute", "not running")):
        stand_in.fault(service=fault)
        done = stand_in.run("system", "status", "--format", "json")
        down = plain(done.stdout)
        assert (done.returncode, down.pop("status")) == (1, status)
        assert set(down.values()) == {""}
    assert plain(ok(stand_in, "system", "version", "--format", "json")) == [command]


@VERSIONED
def test_networks(stand_in: StandIn, version: str) -> None:
    (found,) = plain(ok(stand_in, "network", "list", "--format", "json"))
    assert set(found["status"]) == {"ipv4Subnet", "ipv4Gateway"}
    if IS_NEW[version]:
        assert set(found) == {"id", "configuration", "status"}
        keys = {"name", "creationDate", "mode", "labels", "plugin", "options"}
        assert (set(found["configuration"]), found["configuration"]["mode"]) == (keys, "nat")
        assert fails(stand_in, "network", "inspect", "no-one") == "network not found: no-one"
    else:
        assert set(found) == {"id", "state", "config", "status"}
        assert set(found["config"]) == {"id", "creationDate", "mode", "labels", "pluginInfo"}
        assert ok(stand_in, "network", "inspect", "no-one") == "[]\n"
    ok(stand_in, "network", "inspect", "default")


@VERSIONED
def test_no_builder(stand_in: StandIn, version: str) -> None:
    """No JSON, and no failure."""
    assert ok(stand_in, "builder", "status", "--format", "json") == "builder is not running\n"


def test_a_table_is_for_people(stand_in: StandIn) -> None:
    ok(stand_in, "run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    head, row = ok(stand_in, "list").splitlines()
    assert head.split() == ["ID", "IMAGE", "OS", "ARCH", "STATE", "ADDR"]
    assert row.split()[:5] == ["ab", FULL, "linux", HOST, "running"]
