"""What is said to Apple's `container`, and how its answers are read, in the shapes of each release."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from container_kernels import engines
from container_kernels.engines import remedies
from container_kernels.engines.aftermath import told
from container_kernels.engines.apple import Apple, answers, archive, boots, said
from container_kernels.engines.apple.arguments import label_value, mount_arguments, ranges, run_arguments, whole_cpus
from container_kernels.engines.apple.releases import NEWEST_READ, Release
from container_kernels.engines.protocol import ContainerRequest, Mount, Port
from container_kernels.errors import (
    CommandTimeout,
    ContainerKernelError,
    EngineError,
    EngineUnavailable,
    ImageError,
    PortTaken,
    ServiceStopped,
    SpecError,
    WorkdirError,
)
from container_kernels.ports import Ports

REQUEST = ContainerRequest(
    name="container-kernels-0123456789ab",
    image="container-kernels/python",
    command=("python3", "-c", "pass"),
    cpus=1.5,
    memory=(1 << 30) + 1,
    pids=512,
    user="0:0",
    mounts=(Mount("/guest", "/opt/guest", read_only=True), Mount("/work", "/work")),
    ports=(Port(54003, 61803), Port(54001, 61801), Port(54002, 61802), Port(60000, 61806)),
    environment={"A": "b = c"},
    labels={"io.container-kernels": "1", "io.container-kernels.owner": "1:2:host = 100 %"},
    engine_args=("--dns", "192.0.2.1"),
)


def test_a_run() -> None:
    assert run_arguments(REQUEST, "linux/arm64") == [
        "run", "--detach", "--rm", "--progress", "none", "--platform", "linux/arm64",
        "--name", "container-kernels-0123456789ab",
        "--cpus", "2", "--memory", "1025m", "--ulimit", "nproc=512", "--user", "0:0",
        "--volume", "/guest:/opt/guest:ro", "--volume", "/work:/work",
        "--publish", "127.0.0.1:54001-54003:61801-61803", "--publish", "127.0.0.1:60000:61806",
        "--env", "A=b = c",
        "--label", "io.container-kernels=1", "--label", "io.container-kernels.owner=1:2:host %3D 100 %25",
        "--dns", "192.0.2.1",
        "--workdir", "/", "--entrypoint", "python3", "container-kernels/python", "-c", "pass",
    ]  # fmt: skip


def test_the_ports_of_a_kernel_are_one_range() -> None:
    assert len(ranges(Ports.choose().published)) == 1


@pytest.mark.parametrize(("cpus", "whole"), [(0.01, 1), (1.0, 1), (1.01, 2), (4.0, 4)])
def test_processors_are_whole(cpus: float, whole: int) -> None:
    assert whole_cpus(cpus) == whole


def test_further_groups_are_refused() -> None:
    with pytest.raises(EngineError, match="further groups"):
        run_arguments(replace(REQUEST, groups=(5,)), "linux/arm64")


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("/a b,c=d", "/x", ["--volume", "/a b,c=d:/x"]),
        ("/a:b", "/x", ["--mount", "type=bind,source=/a:b,target=/x"]),
        ("/a", "/x:y", ["--mount", "type=bind,source=/a,target=/x:y"]),
    ],
)
def test_mounts(source: str, target: str, words: list[str]) -> None:
    assert mount_arguments(Mount(source, target)) == words
    read_only = mount_arguments(Mount(source, target, read_only=True))
    assert read_only == [words[0], words[1] + (":ro" if words[0] == "--volume" else ",readonly")]


@pytest.mark.parametrize("source", ["/a:b,c", "/a:b=c"])
def test_a_mount_that_its_words_cannot_name(source: str) -> None:
    with pytest.raises(WorkdirError, match="colon together with"):
        mount_arguments(Mount(source, "/x"))


def test_a_file_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match="is no directory"):
        mount_arguments(Mount(str(tmp_path / "file"), "/x"))


# -- Answers

IMAGE = {
    "reference": "registry.example.org/container-kernels/python:latest",
    "descriptor": {"digest": "sha256:a1", "size": 1},
}


def configuration(**changes: Any) -> dict[str, Any]:
    return {"id": "kernel-1", "image": IMAGE, "labels": {"a": label_value("b = 100 %")}, **changes}


OLD = {
    "status": "running",
    "configuration": configuration(),
    "networks": [{"network": "default", "ipv4Address": "192.168.64.3/24", "ipv4Gateway": "192.168.64.1"}],
    "startedDate": 807789600.25,
}
NEW = {
    "id": "kernel-1",
    "configuration": configuration(creationDate="2026-08-07T10:00:00Z"),
    "status": {"state": "running", "networks": OLD["networks"], "startedDate": "2026-08-07T10:00:01Z"},
}


@pytest.mark.parametrize(
    ("item", "created"),
    [
        (OLD, datetime(2026, 8, 7, 10, 0, 0, 250000, tzinfo=timezone.utc)),
        (NEW, datetime(2026, 8, 7, 10, tzinfo=timezone.utc)),
    ],
    ids=["until 0.12.3", "since 1.0.0"],
)
def test_a_containers_state(item: Mapping[str, Any], created: datetime) -> None:
    state = answers.container_state(item)
    assert (state.name, state.image, state.running, state.status) == ("kernel-1", IMAGE["reference"], True, "running")
    assert (state.exit_code, state.created, state.labels) == (None, created, {"a": "b = 100 %"})
    assert answers.address(item) == "192.168.64.3"


@pytest.mark.parametrize(
    "item",
    [
        {"status": "stopped", "configuration": configuration(), "networks": []},
        {"status": {"state": "stopped", "networks": []}, "configuration": configuration(creationDate="2026-08-07T10:00:00Z")},
    ],
    ids=["until 0.12.3", "since 1.0.0"],
)  # fmt: skip
def test_one_that_was_never_started(item: Mapping[str, Any]) -> None:
    state = answers.container_state(item)
    assert (state.running, state.status) == (False, "stopped")
    assert state.created <= datetime.now(timezone.utc)
    assert answers.address(item) is None


def test_an_older_address() -> None:
    assert answers.address({"status": "running", "networks": [{"address": "192.168.64.3/24"}]}) == "192.168.64.3"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"status": "running"}]', "[{}]", "null"])
def test_an_answer_that_is_not_understood(text: str) -> None:
    if text == "{}":  # an object is no array, and has nothing in it
        assert answers.items(text, answers.container_state, what="it") == []
        return
    with pytest.raises(EngineError, match="is not understood") as raised:
        answers.items(text, answers.container_state, what="it")
    assert text in raised.value.detail


def test_counters_may_be_missing() -> None:
    complete = {"id": "a", "cpuUsageUsec": 5, "memoryUsageBytes": 6, "memoryLimitBytes": 7, "numProcesses": 8}
    assert answers.counters(complete) == answers.Counters("a", 5, 6, 7, 8)
    for key in set(complete) - {"id"}:
        assert answers.counters({name: value for name, value in complete.items() if name != key}) is None


def variant(
    architecture: str, *, system: str = "linux", created: str = "2026-07-01T00:00:00.123456789Z"
) -> dict[str, Any]:
    platform = {"os": system, "architecture": architecture}
    config = {"architecture": architecture, "os": system, "created": created, "config": {"Labels": {"a": "b"}}}
    return {"platform": platform, "size": 48100000, "config": config}


def images(*variants: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    descriptor = {"digest": "sha256:a1", "size": 10}
    old = {"name": IMAGE["reference"], "index": descriptor, "variants": variants}
    new = {"id": "a1", "configuration": {"name": IMAGE["reference"], "descriptor": descriptor, "creationDate": "2026-07-02T00:00:00Z"}, "variants": variants}  # fmt: skip
    return [old, new]


def test_an_image() -> None:
    for item in images(variant("unknown", system="unknown"), variant("amd64"), variant("arm64")):
        found = answers.image("python", "aarch64", item)
        assert (found.info.reference, found.info.id, found.info.architecture) == ("python", "sha256:a1", "aarch64")
        assert (found.info.size, found.info.labels) == (48100000, {"a": "b"})
        assert found.info.created == datetime(2026, 7, 1, tzinfo=timezone.utc)
        assert sorted(found.architectures) == ["aarch64", "x86_64"]


def test_an_image_for_another_processor() -> None:
    for item in images(variant("amd64")):
        found = answers.image("python", "aarch64", item)
        assert (found.info.architecture, list(found.architectures)) == ("x86_64", ["x86_64"])


# -- Releases


@pytest.mark.parametrize(
    ("line", "version", "too_old", "newer"),
    [
        ("container CLI version 0.11.0 (build: release, commit: abc1234)\n", "0.11.0", True, False),
        ("container CLI version 0.12.0 (build: release, commit: abc1234)\n", "0.12.0", False, False),
        ("container CLI version 1.0.0 (build: release, commit: unspeci)\n", "1.0.0", False, False),
        ("container CLI version 1.10.0 (build: release, commit: abc1234)\n", "1.10.0", False, True),
        ("container CLI version 0.0.0 (build: debug, commit: x)\n", str(NEWEST_READ), False, False),
    ],
)
def test_releases(line: str, version: str, too_old: bool, newer: bool) -> None:
    release = Release.from_line(line)
    assert release is not None
    assert (str(release.version), release.is_too_old, release.is_newer_than_read) == (version, too_old, newer)


@pytest.mark.parametrize("line", ["", "Docker version 20.10", "container 1.0.0", "my container CLI version 1.0.0"])
def test_another_program_of_that_name(line: str) -> None:
    assert Release.from_line(line) is None


@pytest.mark.parametrize(("version", "has"), [("0.12.3", False), ("1.0.0", True), ("1.2.2", True)])
def test_what_a_release_has(version: str, has: bool) -> None:
    release = Release.from_line(f"container CLI version {version} (build: release, commit: abc1234)")
    assert release is not None
    assert release.has("a forced deletion gives the address back") is has


# -- Errors: by the message alone, in the forms of all releases

WORDS = {
    "image": "IMAGE", "program": "PROGRAM", "sources": "SOURCES", "missing_image": "HINT", "memory": "128", "name": "NAME",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('Error: failed to list containers (cause: "interrupted: "XPC connection error: Connection invalid"")\nEnsure container system service has been started with `container system start`.', ServiceStopped, "service of `container` does not run"),
        ('Error: interrupted: "internalError: "failed to list containers" (cause: "interrupted: "XPC connection error: Connection invalid"")"', ServiceStopped, "service of `container` does not run"),
        ("Error: default kernel not configured for architecture arm64, please use the `container system kernel set` command to configure it", EngineUnavailable, "no Linux kernel"),
        ("Error: Virtualization is not available on this hardware", EngineUnavailable, "cannot run virtual machines"),
        ('Error: failed to bootstrap container (cause: "interrupted: "Connection interrupted"")', EngineUnavailable, "was lost meanwhile"),
        ('Error: failed to bootstrap container (cause: "internalError: "no free indices are available for allocation"")', EngineError, "all addresses"),
        ('Error: failed to bootstrap container (cause: "unknown: "bind(descriptor:ptr:bytes:): Address already in use (errno: 48)"")', PortTaken, "A port was taken"),
        ("Error: minimum memory amount allowed is 200 MiB (got 134217728 bytes)", SpecError, "memory = 128 MiB"),
        ("Error: path '/gone' does not exist", WorkdirError, "cannot mount SOURCES"),
        ('Error: failed to bootstrap container (cause: "notFound: "mount source path \'/gone\' does not exist"")', WorkdirError, "cannot mount SOURCES"),
        ("Error: path '/file' is not a directory", WorkdirError, "cannot mount SOURCES"),
        ("Error: container with id NAME already exists", EngineError, "'NAME' is in use"),
        ('Error: failed to create container (cause: "exists: "container already exists: NAME"")', EngineError, "'NAME' is in use"),
        ("Error: hostname(s) already exist: [\"NAME\"]", EngineError, "'NAME' is in use"),
        ('Error: failed to start process (cause: "internalError: "failed to find target executable PROGRAM"")', ImageError, "has no PROGRAM"),
    ],
)  # fmt: skip
def test_what_a_failed_run_means(text: str, error: type[ContainerKernelError], message: str) -> None:
    found = told(said.RUN_ERRORS, text, WORDS)
    assert type(found) is error
    assert message in found.message
    assert found.detail == text
    assert found.hint or error is PortTaken


@pytest.mark.parametrize(
    "text",
    [
        "Error: container with ID kernel-1 not found",
        "Error: get failed: container kernel-1 not found",
        "Error: container not found: kernel-1",
        'Error: notFound: "container with ID kernel-1 not found"',
        'Error: failed to delete one or more containers: ["kernel-1"]\ncontainer not found: kernel-1',
        "Error: no such container: kernel-1",
    ],
)
def test_a_container_that_is_unknown(text: str) -> None:
    assert said.NO_CONTAINER.search(text)


def test_an_unknown_program_is_no_unknown_container() -> None:
    assert not said.NO_CONTAINER.search('Error: failed to find target executable in container "kernel-1"')


# -- Boots


async def test_one_boot_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    inside = most = 0

    async def boot() -> None:
        nonlocal inside, most
        async with boots.turn(time.monotonic() + 20):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(boot() for _ in range(5)))
    assert most == 1


async def test_a_turn_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    async with boots.turn(time.monotonic() + 20):
        with pytest.raises(CommandTimeout, match="No turn to boot"):
            async with boots.turn(time.monotonic()):
                raise AssertionError
    async with boots.turn(time.monotonic()):
        pass


async def test_without_a_lock_the_services_own_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    async with boots.turn(time.monotonic()):
        pass


# -- Which machine


@pytest.mark.parametrize(
    ("system", "machine", "darwin", "lacking"),
    [
        ("linux", "aarch64", "6.1.0", "It needs a Mac"),
        ("darwin", "x86_64", "25.0.0", "It needs Apple silicon"),
        ("darwin", "arm64", "24.6.0", "It needs macOS 26"),
        ("darwin", "arm64", "25.0.0", ""),
        ("darwin", "arm64", "26.1.0", ""),
    ],
)
def test_what_a_machine_lacks(
    system: str, machine: str, darwin: str, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_kernels.engines.apple.sys.platform", system)
    monkeypatch.setattr("container_kernels.engines.apple.platform.machine", lambda: machine)
    monkeypatch.setattr("container_kernels.engines.apple.os.uname", lambda: type("U", (), {"release": darwin}))
    assert Apple().unsuited().startswith(lacking)
    assert bool(Apple().unsuited()) == bool(lacking)


# -- An archive


def test_a_layout(tmp_path: Path) -> None:
    """Each blob is what its name says, and each is reached from the index."""
    root = tmp_path / "root.tar"
    root.write_bytes(b"content" * 1000)
    archive.write_layout(root, tmp_path / "image.tar", name="base:latest", architecture="arm64")
    with tarfile.open(tmp_path / "image.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    blobs = {name.rpartition("/")[2]: data for name, data in members.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())
    assert json.loads(members["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (manifest,) = json.loads(members["index.json"])["manifests"]
    assert manifest["annotations"]["org.opencontainers.image.ref.name"] == "base:latest"
    content = json.loads(blobs[manifest["digest"].partition(":")[2]])
    config = json.loads(blobs[content["config"]["digest"].partition(":")[2]])
    assert blobs[content["layers"][0]["digest"].partition(":")[2]] == root.read_bytes()
    assert config["rootfs"]["diff_ids"] == [content["layers"][0]["digest"]]
    assert {each["size"] for each in (manifest, content["config"])} <= {len(data) for data in blobs.values()}


@pytest.mark.parametrize(
    ("verb", "words"),
    [("pull", "container image pull"), ("load", "container image load --input"), ("run", "container run")],
)
def test_hints_are_in_its_own_words(verb: str, words: str) -> None:
    assert remedies.said("apple", verb) == words
    assert remedies.said("docker", verb) == f"docker {verb}"
    assert "`container image pull some/image`" in remedies.missing_image("some/image", "apple")


def test_apple_is_preferred() -> None:
    assert next(iter(engines.ENGINES)) == "apple"
