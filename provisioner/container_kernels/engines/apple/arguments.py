"""A request in the words of `container run`: what every release from the oldest on accepts, everything of ours before the image.

Others' defaults are not relied on: ports are bound to all addresses unless one is named, and a person's config.toml sets cpus and memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import EngineError, SpecError, WorkdirError
from ..protocol import ContainerRequest, Mount, Port

LOOPBACK = "127.0.0.1"
LEAST_MEMORY = 200  # MiB


def run_arguments(request: ContainerRequest, platform: str) -> list[str]:
    """What follows `container`: a detached container that removes itself. `platform` is that of the image's variant.

    Raises SpecError for too little memory, WorkdirError for a mount that its words cannot name, and EngineError for further groups, which
    it cannot give.
    """
    if mebibytes(request.memory) < LEAST_MEMORY:
        raise SpecError(
            f"memory = {mebibytes(request.memory)} MiB is less than a virtual machine needs.",
            hint=f"Allowed with this engine: from {LEAST_MEMORY}m on.",
        )
    if request.groups:
        raise EngineError(
            "apple cannot give a container's user further groups.", hint="Use user = 'auto', 'root' or 'uid:gid'."
        )
    program, *rest = request.command
    arguments = ["run", "--detach", "--rm", "--progress", "none", "--platform", platform]
    arguments += ["--name", request.name]
    arguments += ["--cpus", str(whole_cpus(request.cpus)), "--memory", f"{mebibytes(request.memory)}m"]
    # It has no limit for a container's processes. This one counts those of a user, and root has none.
    arguments += ["--ulimit", f"nproc={request.pids}"]
    if request.user is not None:
        arguments += ["--user", request.user]
    for mount in request.mounts:
        arguments += mount_arguments(mount)
    for published in ranges(request.ports):
        arguments += ["--publish", published]
    arguments += pairs("--env", request.environment)
    arguments += pairs("--label", {name: label_value(value) for name, value in request.labels.items()})
    arguments += request.engine_args
    return [*arguments, "--workdir", "/", "--entrypoint", program, request.image, *rest]


def whole_cpus(cpus: float) -> int:
    """A VM has whole processors: rounded up."""
    return max(1, math.ceil(cpus))


def mebibytes(memory: int) -> int:
    """Rounded up; a bare number would be bytes, and what is no whole MiB would be cut off."""
    return math.ceil(memory / (1 << 20))


def mount_arguments(mount: Mount) -> list[str]:
    """`--volume` cannot name a path with a colon, and `--mount` none with a comma or an equals sign."""
    paths = mount.source + mount.target
    if Path(mount.source).exists() and not Path(mount.source).is_dir():
        raise WorkdirError(
            f"apple cannot mount {mount.source}: it is no directory.", hint="Mount the directory that it is in."
        )
    if ":" not in paths:
        return ["--volume", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    if "," in paths or "=" in paths:
        raise WorkdirError(
            f"apple cannot mount {mount.source}: it takes no path with a colon together with a comma or an equals sign.",
            hint="Rename the directory, or mount one above it.",
        )
    words = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    return ["--mount", ",".join([*words, "readonly"] if mount.read_only else words)]


def ranges(ports: Iterable[Port]) -> list[str]:
    """Values of `--publish`, on the loopback: neighbours that lead to neighbours are one range."""
    runs: list[list[Port]] = []
    for port in sorted(ports, key=lambda port: port.guest):
        if runs and Port(port.host - 1, port.guest - 1) == runs[-1][-1]:
            runs[-1].append(port)
        else:
            runs.append([port])
    return [f"{LOOPBACK}:{_span([p.host for p in run])}:{_span([p.guest for p in run])}" for run in runs]


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def label_value(text: str) -> str:
    """An equals sign in a label's value is refused by every release: it is written as in a URL, as what reads it expects."""
    return text.replace("%", "%25").replace("=", "%3D")


def pairs(option: str, values: Mapping[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (option, f"{name}={value}")]
