"""What `docker` and `podman` would be asked, how their answers are read, and what their errors mean.

The answers and errors are the engines' own, taken down from Docker 20.10 to 29, Docker Desktop and Podman 4 to 5.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from container_kernels.engines import docker, podman
from container_kernels.engines.docker import Docker, container_state, instant, mount_argument, read_usage, run_arguments
from container_kernels.engines.podman import Podman
from container_kernels.engines.protocol import ContainerRequest, Mount, Port
from container_kernels.errors import (
    ContainerKernelError,
    EngineError,
    EngineUnavailable,
    ImageError,
    PortTaken,
    WorkdirError,
)

REQUEST = ContainerRequest(
    name="container-kernels-0123",
    image="container-kernels/python",
    command=("python3", "-c", "import this"),
    cpus=1.5,
    memory=512 << 20,
    pids=100,
)


# -- The arguments


def test_the_least() -> None:
    assert run_arguments(REQUEST) == [
        "run", "--detach", "--rm", "--pull", "never", "--name", "container-kernels-0123",
        "--cpus", "1.5", "--memory", "536870912", "--memory-swap", "536870912", "--pids-limit", "100", "--stop-timeout", "0",
        "--security-opt", "no-new-privileges", "--security-opt", "label=disable",
        "--workdir", "/", "--entrypoint", "python3", "container-kernels/python", "-c", "import this",
    ]  # fmt: skip


def test_everything() -> None:
    request = replace(
        REQUEST,
        user="1000:1000",
        groups=(27, 2000),
        mounts=(Mount("/home/ada/work", "/home/ada/work"), Mount("/data", "/data", read_only=True)),
        ports=(Port(40001, 61801), Port(40002, 61802)),
        environment={"A": "1", "B": "x=y, 'z'\n"},
        labels={"io.container-kernels": "1.0", "io.container-kernels.owner": "1:2:host"},
        engine_args=("--gpus", "all"),
    )
    arguments = run_arguments(request)
    tail = [
        "--gpus",
        "all",
        "--workdir",
        "/",
        "--entrypoint",
        "python3",
        "container-kernels/python",
        "-c",
        "import this",
    ]
    assert arguments[arguments.index("--user") :] == [
        "--user", "1000:1000", "--group-add", "27", "--group-add", "2000",
        "--mount", "type=bind,source=/home/ada/work,target=/home/ada/work",
        "--mount", "type=bind,source=/data,target=/data,readonly",
        "--publish", "127.0.0.1:40001:61801", "--publish", "127.0.0.1:40002:61802",
        "--env", "A=1", "--env", "B=x=y, 'z'\n",
        "--label", "io.container-kernels=1.0", "--label", "io.container-kernels.owner=1:2:host",
        *tail,
    ]  # fmt: skip


def test_every_port_is_on_the_loopback() -> None:
    arguments = run_arguments(replace(REQUEST, ports=tuple(Port(40000 + n, 61801 + n) for n in range(6))))
    published = [after for word, after in pairwise(arguments) if word == "--publish"]
    assert len(published) == 6
    assert all(value.startswith("127.0.0.1:") for value in published)


@pytest.mark.parametrize(("cpus", "word"), [(2.0, "2"), (0.5, "0.5"), (0.01, "0.01"), (128.0, "128"), (1.25, "1.25")])
def test_cpus_are_a_plain_number(cpus: float, word: str) -> None:
    arguments = run_arguments(replace(REQUEST, cpus=cpus))
    assert arguments[arguments.index("--cpus") + 1] == word


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        ("/plain", "type=bind,source=/plain,target=/plain"),
        ("/with space", "type=bind,source=/with space,target=/with space"),
        ("/a,b", 'type=bind,"source=/a,b","target=/a,b"'),
        ('/the "quoted"', 'type=bind,"source=/the ""quoted""","target=/the ""quoted"""'),
        ("/co:lon", "type=bind,source=/co:lon,target=/co:lon"),
        ("/größe=1", "type=bind,source=/größe=1,target=/größe=1"),
        ("/it's", "type=bind,source=/it's,target=/it's"),
        ("/line\nbreak", 'type=bind,"source=/line\nbreak","target=/line\nbreak"'),
    ],
)
def test_mounts_are_lines_of_csv(path: str, argument: str) -> None:
    assert mount_argument(Mount(path, path)) == argument
    (fields,) = csv.reader([argument] if "\n" not in argument else argument.splitlines(keepends=True))
    assert fields == ["type=bind", f"source={path}", f"target={path}"]


# -- The answers

STATE = {
    "Name": "/container-kernels-0123",
    "Created": "2025-06-01T10:26:08.077394714Z",
    "Image": "sha256:580828aa5340d642acd7d754e30875bba770ecf149884fcbeac60518c60471a3",
    "State": {"Status": "running", "Running": True, "Paused": False, "OOMKilled": False, "Pid": 19808, "ExitCode": 0},
    "Config": {
        "Image": "container-kernels/python",
        "Labels": {"io.container-kernels": "0.1.0"},
        "Entrypoint": ["python3"],
    },
}


def test_a_container_of_docker() -> None:
    state = container_state(STATE)
    assert (state.name, state.image) == ("container-kernels-0123", "container-kernels/python")
    assert (state.running, state.status, state.exit_code) == (True, "running", None)
    assert state.created == datetime(2025, 6, 1, 10, 26, 8, tzinfo=timezone.utc)
    assert state.labels == {"io.container-kernels": "0.1.0"}


def test_a_container_of_podman_that_has_ended() -> None:
    state = container_state(
        {
            "Name": "container-kernels-0123",
            "Created": "2025-06-01T12:26:11.962437358+02:00",
            "ImageName": "localhost/container-kernels/python:latest",
            "State": {"OciVersion": "1.0.2-dev", "Status": "exited", "Running": False, "ConmonPid": 0, "ExitCode": 137},
            "Config": {"Image": "localhost/container-kernels/python:latest", "Labels": None, "Entrypoint": "python3"},
        }
    )
    assert (state.name, state.running, state.status, state.exit_code) == (
        "container-kernels-0123",
        False,
        "exited",
        137,
    )
    assert state.created == datetime(2025, 6, 1, 10, 26, 11, tzinfo=timezone.utc)
    assert state.labels == {}


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("2025-06-01T10:26:08.077394714Z", 0),
        ("2025-06-01T10:26:08Z", 0),
        ("2025-06-01T10:26:08.1+02:00", 2),
        ("2025-06-01 10:26:08.077394714 -0330 NDT", -3.5),
        ("2025-06-01 10:26:08 +0000 UTC", 0),
    ],
)
def test_instants(text: str, offset: float) -> None:
    assert instant(text) == datetime(2025, 6, 1, 10, 26, 8, tzinfo=timezone(timedelta(hours=offset)))


def test_what_is_no_instant() -> None:
    with pytest.raises(EngineError, match="'yesterday' is not a time"):
        instant("yesterday")


DOCKER_INFO: Mapping[str, Any] = {
    "ServerVersion": "20.10.24+dfsg1",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "Architecture": "x86_64",
    "NCPU": 2,
    "SecurityOptions": ["name=seccomp,profile=default"],
    "ServerErrors": None,
}


@pytest.mark.parametrize(
    ("changes", "rootless", "keeps_owner", "description"),
    [
        ({}, False, False, "Debian GNU/Linux 12 (bookworm)"),
        ({"SecurityOptions": None}, False, False, "Debian GNU/Linux 12 (bookworm)"),
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]}, True, True, "Debian GNU/Linux 12 (bookworm), rootless"),
        ({"SecurityOptions": ["name=apparmor", "name=userns"]}, False, False, "Debian GNU/Linux 12 (bookworm)"),
        ({"OperatingSystem": "Docker Desktop", "Architecture": "aarch64"}, False, True, "Docker Desktop"),
    ],
)  # fmt: skip
def test_dockers_info(changes: Mapping[str, Any], rootless: bool, keeps_owner: bool, description: str) -> None:
    info = Docker()._info({**DOCKER_INFO, **changes})
    assert (info.engine, info.version, info.isolation, info.cpus) == ("docker", "20.10.24+dfsg1", "container", 2)
    assert (info.rootless, info.keeps_owner, info.description) == (rootless, keeps_owner, description)
    assert info.architecture == changes.get("Architecture", "x86_64")


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, ()),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, ("--userns", "host")),
        ({"SecurityOptions": ["name=rootless"]}, ()),
        ({"OperatingSystem": "Docker Desktop", "SecurityOptions": ["name=userns"]}, ()),
    ],
)
def test_a_daemon_that_remaps_users_is_told_not_to(changes: Mapping[str, Any], options: tuple[str, ...]) -> None:
    """Else `--user uid:gid` would be a subordinate uid on the host, and could write none of the caller's files."""
    assert Docker()._info({**DOCKER_INFO, **changes}).user_options == options


PODMAN_HOST: Mapping[str, Any] = {
    "arch": "amd64",
    "cpus": 2,
    "os": "linux",
    "distribution": {"distribution": "debian", "version": "12", "codename": "bookworm"},
    "security": {"rootless": False, "selinuxEnabled": False},
    "serviceIsRemote": False,
}


@pytest.mark.parametrize(
    ("changes", "rootless", "keeps_owner", "architecture", "description"),
    [
        ({}, False, False, "x86_64", "debian"),
        ({"security": {"rootless": True}}, True, True, "x86_64", "debian, rootless"),
        ({"serviceIsRemote": True, "arch": "arm64", "distribution": {"distribution": "fedora", "variant": "coreos"}}, False, False, "aarch64", "fedora"),
        ({"distribution": None, "arch": "riscv64"}, False, False, "riscv64", "linux"),
    ],
)  # fmt: skip
def test_podmans_info(
    changes: Mapping[str, Any], rootless: bool, keeps_owner: bool, architecture: str, description: str
) -> None:
    info = Podman()._info({"host": {**PODMAN_HOST, **changes}, "version": {"APIVersion": "4.3.1", "Version": "4.3.1"}})
    assert (info.engine, info.version, info.isolation, info.cpus) == ("podman", "4.3.1", "container", 2)
    assert (info.rootless, info.keeps_owner) == (rootless, keeps_owner)
    assert (info.architecture, info.description) == (architecture, description)


@pytest.mark.parametrize("on_a_mac", [True, False])
def test_a_remote_podman_keeps_owners_on_a_mac_only(monkeypatch: pytest.MonkeyPatch, on_a_mac: bool) -> None:
    """On Linux it may be this machine's own rootful service."""
    monkeypatch.setattr(podman, "ON_A_MAC", on_a_mac)
    info = Podman()._info({"host": {**PODMAN_HOST, "serviceIsRemote": True}, "version": {"Version": "5.2.0"}})
    assert info.keeps_owner is on_a_mac


def test_an_image_of_docker() -> None:
    info = docker._image_info("python", {"Id": "sha256:58", "Created": "2025-06-01T10:26:08.07Z", "Architecture": "amd64", "Size": 237137480, "Config": {"Labels": {"a": "b"}}})  # fmt: skip
    assert (info.reference, info.id, info.architecture, info.size, info.labels) == ("python", "sha256:58", "amd64", 237137480, {"a": "b"})  # fmt: skip


def test_an_image_of_podman_without_labels() -> None:
    info = docker._image_info("python", {"Id": "a67c", "Created": "2025-06-01T10:26:08Z", "Architecture": "arm64", "Config": None, "Labels": None})  # fmt: skip
    assert (info.id, info.size, info.labels) == ("a67c", 0, {})


def test_usage_of_docker() -> None:
    line = '{"BlockIO":"0B / 0B","CPUPerc":"151.30%","Container":"x","ID":"ae44d82ad57d","MemPerc":"0.00%","MemUsage":"424.5KiB / 23.54GiB","Name":"x","NetIO":"382B / 0B","PIDs":"12"}'
    usage = read_usage(json.loads(line))
    assert usage is not None
    assert (usage.name, usage.cpu_percent, usage.memory, usage.pids) == ("x", 151.3, 434688, 12)
    assert usage.memory_limit == int(23.54 * (1 << 30))


def test_usage_of_a_container_that_has_ended() -> None:
    gone = {"CPUPerc": "--", "MemPerc": "--", "MemUsage": "-- / --", "Name": "--", "PIDs": "--"}
    assert read_usage(gone) is None
    empty = read_usage({"CPUPerc": "0.00%", "MemUsage": "0B / 0B", "Name": "x", "PIDs": "0"})
    assert empty is not None
    assert (empty.memory, empty.memory_limit, empty.pids) == (0, 0, 0)


async def test_usage_of_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    # Podman counts in powers of 1000.
    answer = '[{"id":"20f4","name":"x","cpu_time":"38.9ms","cpu_percent":"52.47%","mem_usage":"512.5kB / 25.28GB","pids":"3"}]'

    async def asked(self: Podman, *arguments: str, doing: str) -> str:
        assert arguments == ("stats", "--no-stream", "--format", "json")
        return answer

    monkeypatch.setattr(Podman, "_ask", asked)
    (item,) = await Podman()._stats()
    usage = read_usage(item)
    assert usage is not None
    assert (usage.name, usage.cpu_percent, usage.memory, usage.memory_limit, usage.pids) == ("x", 52.47, 512500, 25280000000, 3)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("12B", 12), ("1.5kB", 1500), ("2MB", 2000000), ("1.5MiB", 1572864), ("2GiB", 1 << 31)],
)
def test_quantities(text: str, size: int) -> None:
    assert docker._quantity(text) == size


def test_what_is_no_quantity() -> None:
    with pytest.raises((EngineError, ValueError)):
        docker._quantity("much")


# -- The errors

HELP = "\n\nRun 'docker run --help' for more information"
RUN_ERRORS: list[tuple[str, type[ContainerKernelError], str]] = [
    # ports
    ("docker: Error response from daemon: driver failed programming external connectivity on endpoint x (02b9): Bind for 127.0.0.1:42705 failed: port is already allocated" + HELP, PortTaken, "port"),
    ("docker: Error response from daemon: driver failed programming external connectivity on endpoint x (02b9): Error starting userland proxy: listen tcp4 127.0.0.1:42705: bind: address already in use" + HELP, PortTaken, "port"),
    ("docker: Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint x (02b9): failed to bind host port for 127.0.0.1:42705:172.17.0.2:61801/tcp: address already in use" + HELP, PortTaken, "port"),
    ("docker: Error response from daemon: Ports are not available: exposing port TCP 127.0.0.1:5001 -> 0.0.0.0:0: listen tcp 127.0.0.1:5001: bind: address already in use.", PortTaken, "port"),
    ("Error: cannot listen on the TCP port: listen tcp4 127.0.0.1:42483: bind: address already in use", PortTaken, "port"),
    ("Error: rootlessport listen tcp 127.0.0.1:42483: bind: address already in use", PortTaken, "port"),
    # images
    ("docker: Error response from daemon: No such image: nosuch/image:latest" + HELP, ImageError, "no image"),
    ("Unable to find image 'nosuch/image:latest' locally\ndocker: Error response from daemon: pull access denied for nosuch/image", ImageError, "no image"),
    ("Error: nosuch/image: image not known", ImageError, "no image"),
    ("Error: short-name \"nosuch\" did not resolve to an alias; nosuch does not resolve to an image", ImageError, "no image"),
    # processors
    ("docker: Error response from daemon: image with reference x was found but does not match the specified platform: wanted linux/arm64, actual: linux/amd64", ImageError, "processor"),
    ("exec /usr/bin/python3: exec format error", ImageError, "processor"),
    ("Error: runc: runc create failed: unable to start container process: exec: \"python3\": exec format error: OCI runtime error", ImageError, "processor"),
    # programs
    ("docker: Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"python3\": executable file not found in $PATH: unknown" + HELP, ImageError, "has no python3"),
    ("docker: Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"/nosuch/prog\": stat /nosuch/prog: no such file or directory: unknown" + HELP, ImageError, "has no python3"),
    ("Error: runc: runc create failed: unable to start container process: exec: \"python3\": executable file not found in $PATH: OCI runtime attempted to invoke a command that was not found", ImageError, "has no python3"),
    ("Error: runc: runc create failed: unable to start container process: exec: \"/nosuch/prog\": stat /nosuch/prog: no such file or directory: OCI runtime attempted to invoke a command that was not found", ImageError, "has no python3"),
    ("Error: crun: executable file `python3` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command that was not found", ImageError, "has no python3"),
    # disks
    ("docker: Error response from daemon: mkdir /var/lib/docker/overlay2/ab-init: no space left on device.", EngineError, "no space left"),
    ("Error: creating container storage: mkdir /home/ada/.local/share/containers/storage/overlay/ab: disk quota exceeded", EngineError, "no space left"),
    # mounts
    ("docker: Error response from daemon: invalid mount config for type \"bind\": bind source path does not exist: /gone" + HELP, WorkdirError, "cannot mount /work"),
    ("Error: statfs /gone: no such file or directory", WorkdirError, "cannot mount /work"),
    ("Error: statfs /locked/away: permission denied", WorkdirError, "cannot mount /work"),
    ("docker: Error response from daemon: Mounts denied: \nThe path /opt/work is not shared from the host and is not known to Docker.\nYou can configure shared paths from Docker -> Preferences... -> Resources -> File Sharing.\nSee https://docs.docker.com/go/mac-file-sharing/ for more info.", WorkdirError, "cannot mount /work"),
    # the engine itself
    ("docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?" + HELP, EngineUnavailable, "does not work"),
    ("docker: failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory" + HELP, EngineUnavailable, "does not work"),
    ("error during connect: this error may indicate that the docker daemon is not running: Head \"http://%2F%2F.%2Fpipe%2FdockerDesktopLinuxEngine/_ping\": open //./pipe/dockerDesktopLinuxEngine: The system cannot find the file specified.", EngineUnavailable, "does not work"),
    ("docker: permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Head \"http://%2Fvar%2Frun%2Fdocker.sock/_ping\": dial unix /var/run/docker.sock: connect: permission denied" + HELP, EngineUnavailable, "permission denied"),
    ("docker: Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Post \"http://x\": dial unix /var/run/docker.sock: connect: permission denied.", EngineUnavailable, "permission denied"),
    ("Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`, or try `podman machine init` and `podman machine start` to manage a new Linux VM\nError: unable to connect to Podman socket: failed to connect: dial tcp 127.0.0.1:54333: connect: connection refused", EngineUnavailable, "does not work"),
    # the rest
    ("docker: Error response from daemon: Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available" + HELP, EngineError, "could not run"),
    ("docker: Error response from daemon: Minimum memory limit allowed is 6MB" + HELP, EngineError, "could not run"),
    ("docker: Error response from daemon: Conflict. The container name \"/x\" is already in use by container \"339e\". You have to remove (or rename) that container to be able to reuse that name." + HELP, EngineError, "could not run"),
    ("docker: Error response from daemon: unable to find user nosuchuser: no matching entries in passwd file" + HELP, EngineError, "could not run"),
    ("docker: Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]]", EngineError, "could not run"),
]  # fmt: skip


@pytest.mark.parametrize("engine", [Docker(), Podman()], ids=["docker", "podman"])
@pytest.mark.parametrize(("said", "kind", "words"), RUN_ERRORS, ids=[said[:60] for said, _, _ in RUN_ERRORS])
def test_what_an_error_means(engine: Docker, said: str, kind: type[ContainerKernelError], words: str) -> None:
    error = engine._run_error(replace(REQUEST, mounts=(Mount("/work", "/work"),)), said)
    assert type(error) is kind
    assert words in error.message
    assert said.strip() in str(error)  # the engine's own words are told, always


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        ("container-kernels/data", "`jupyter container-kernels build data --engine podman`"),
        ("registry.example/jupyter/base", "`podman pull registry.example/jupyter/base`"),
    ],
)
def test_a_missing_image_is_told_with_the_remedy(image: str, hint: str) -> None:
    error = Podman()._run_error(replace(REQUEST, image=image), f"Error: {image}: image not known")
    assert hint in error.hint
    assert image in error.message
