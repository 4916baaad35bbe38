"""Docker or Podman underneath: what really runs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

from .errors import AppleError, Failed
from .world import Record, World

LABEL = "stand-in.state"  # our containers' only label: theirs are the stand-in's to remember
REGISTRY = "registry.example.org"  # where a short name leads; the real one has its own
PATIENCE = 120.0  # seconds
HOST = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
OTHER = {"amd64": "arm64", "arm64": "amd64"}[HOST]
NEVER_LISTENS = ("sleep", "2147483647")

Done = subprocess.CompletedProcess[str]


def run(world: World, *arguments: str) -> Done:
    """The engine's command, which is given time. Its working directory is the state's: conmon leaves a file there."""
    return subprocess.run(
        [world.engine, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=PATIENCE, check=False, cwd=world.directory,
    )  # fmt: skip


def must(world: World, *arguments: str) -> str:
    done = run(world, *arguments)
    if done.returncode:
        raise Failed(f"the engine beneath the stand-in failed: {' '.join(arguments)}: {done.stderr.strip()}", 70)
    return done.stdout


def normal(reference: str) -> str:
    """The full form, by which an image is remembered and shown."""
    first, slash, _ = reference.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        reference = f"{REGISTRY}/{'' if slash else 'library/'}{reference}"
    if "@" in reference or ":" in reference.rpartition("/")[2]:
        return reference
    return f"{reference}:latest"


def names(world: World, reference: str) -> list[str]:
    """What the engine may call it: Podman keeps what it has built as `localhost/...`."""
    full = normal(reference)
    if not full.startswith(f"{REGISTRY}/"):
        return [full]
    short = full.removeprefix(f"{REGISTRY}/").removeprefix("library/")
    return [f"localhost/{short}", short] if world.engine == "podman" else [short]


def image(world: World, reference: str) -> dict[str, Any] | None:
    """What the engine says of an image that is here."""
    for name in names(world, reference):
        done = run(world, "image", "inspect", name)
        if done.returncode == 0:
            return dict(json.loads(done.stdout)[0], name=name, reference=normal(reference))
    return None


def foreign(world: World, reference: str) -> bool:
    """The test says that this image is for another architecture."""
    return normal(reference) in {normal(name) for name in world.faults().get("foreign", ())}


def architecture(world: World, reference: str) -> str:
    return OTHER if foreign(world, reference) else HOST


def container(world: World, record: Record) -> dict[str, Any] | None:
    done = run(world, "container", "inspect", record["under"])
    if done.returncode:
        return None
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def runs(world: World, record: Record) -> bool:
    found = container(world, record)
    return found is not None and bool(found["State"]["Running"])


def boot(world: World, record: Record) -> None:
    """The container runs: made anew, or as it was left."""
    if record["made"]:
        done = run(world, "start", record["under"])
    else:
        # Standard input has an end only if it was to be attached, which a detached `run` is not.
        first = ("create",) if record["config"]["interactive"] else ("run", "--detach")
        done = run(world, *first, *_options(world, record), record["under_image"], *record["command"][1:])
        if done.returncode == 0 and first == ("create",):
            done = run(world, "start", record["under"])
    if done.returncode:
        if not record["made"]:
            remove(world, record)
        said = done.stderr.strip()
        raise AppleError("internalError", f"failed to start process: {said}")


def _options(world: World, record: Record) -> list[str]:
    config = record["config"]
    options = [
        "--pull=never", "--name", record["under"], "--hostname", record["id"], "--label", f"{LABEL}={world.digest}",
        "--pids-limit=-1", "--entrypoint", record["command"][0], "--cpus", str(min(config["cpus"], os.cpu_count() or 1)),
        "--memory", str(config["memory"]), "--memory-swap", str(config["memory"]),
    ]  # fmt: skip
    if world.engine == "podman":
        options += ["--log-driver", "k8s-file"]
    if config["network"] == "none":
        options += ["--network", "none"]
    flags = {"init": "--init", "readOnly": "--read-only", "terminal": "--tty", "interactive": "--interactive"}
    options += [option for key, option in flags.items() if config[key]]
    singles = {"workdir": "--workdir", "user": "--user", "shmSize": "--shm-size"}
    options += [word for key, option in singles.items() if config[key] for word in (option, str(config[key]))]
    lists = {"env": "--env", "capAdd": "--cap-add", "capDrop": "--cap-drop", "ulimits": "--ulimit", "dns": "--dns", "dnsSearch": "--dns-search", "dnsOption": "--dns-option", "groups": "--group-add"}  # fmt: skip
    options += [word for key, option in lists.items() for item in config[key] for word in (option, item)]
    return [*options, *_mounts(world, record)]


def _mounts(world: World, record: Record) -> Iterator[str]:
    for mount in record["config"]["mounts"]:
        read_only = "ro" in mount["options"]
        if mount["kind"] == "tmpfs":
            sizes = [item for item in mount["options"] if item != "ro"]
            yield from (
                "--tmpfs",
                ":".join([mount["target"], ",".join([*sizes, "ro"] if read_only else sizes)]).rstrip(":"),
            )
            continue
        source = mount["source"] if mount["kind"] == "virtiofs" else volume(world, mount["source"])
        if mount["kind"] == "volume" or ":" not in source:
            yield from ("--volume", f"{source}:{mount['target']}{':ro' if read_only else ''}")
        else:
            yield from (
                "--mount",
                f"type=bind,source={source},target={mount['target']}{',readonly' if read_only else ''}",
            )


def volume(world: World, name: str) -> str:
    return f"stand-in-{world.digest}-{name}"


def wait(world: World, record: Record) -> list[str]:
    """The command that prints the container's exit status at its end."""
    quickly = ["--interval", "50ms"] if world.engine == "podman" else []
    return [world.engine, "wait", *quickly, record["under"]]


def signal(world: World, record: Record, name: str) -> Done:
    return run(world, "kill", "--signal", name, record["under"])


def remove(world: World, record: Record) -> None:
    run(world, "rm", "--force", record["under"])


def attachment(world: World, record: Record) -> dict[str, Any] | None:
    """The address that the container really has; None if it has ended already."""
    found = container(world, record) or {}
    settings = found.get("NetworkSettings", {})
    for network in (settings, *(settings.get("Networks") or {}).values()):
        if network.get("IPAddress"):
            return {
                "address": network["IPAddress"],
                "prefix": network["IPPrefixLen"],
                "gateway": network["Gateway"],
                "mac": network["MacAddress"],
            }
    return None
