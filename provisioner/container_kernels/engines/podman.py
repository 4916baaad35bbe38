"""Podman: the same words as Docker's for nearly everything, so only the differences stand here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import platformdirs

from .docker import Docker
from .protocol import LABEL, ContainerState, EngineInfo

ON_A_MAC = sys.platform == "darwin"


class Podman(Docker):
    """The `podman` command line, rootful or rootless, native or by its machine."""

    name: ClassVar[str] = "podman"
    install_hint: ClassVar[str] = "Install Podman, or choose another engine."
    start_hint: ClassVar[str] = (
        "Start its machine: `podman machine start`." if ON_A_MAC else "See what `podman info` says."
    )

    def _info(self, info: Mapping[str, Any]) -> EngineInfo:
        host = info["host"]
        rootless = bool(host["security"]["rootless"])
        remote = bool(host.get("serviceIsRemote"))
        distribution = host.get("distribution") or {}
        # A Mac's Podman is always remote: its machine shares files by a process of the caller's, whose they all are. On Linux, remote
        # tells nothing: behind the socket may be the same machine's own rootful service, and what its root writes is root's. The
        # caller's uid:gid is right there, and right in a machine too, where the caller's files bear these numbers.
        keeps_owner = rootless or (remote and ON_A_MAC)
        return EngineInfo(
            engine=self.name,
            version=str(info["version"]["Version"]),
            isolation=self.isolation,
            rootless=rootless,
            keeps_owner=keeps_owner,
            architecture={"amd64": "x86_64", "arm64": "aarch64"}.get(host["arch"], str(host["arch"])),
            cpus=int(host["cpus"]),
            description=f"{distribution.get('distribution', host['os'])}{', rootless' if rootless else ''}",
        )

    async def list(self) -> list[ContainerState]:
        # `ps --external` containers, such as a build's, have no Config to inspect: ask for ours only.
        return [state for state in await super().list() if LABEL in state.labels]

    async def _stats(self) -> Iterable[Mapping[str, Any]]:
        answer = await self._ask("stats", "--no-stream", "--format", "json", doing="measure containers")
        return [_as_docker_has_it(item) for item in json.loads(answer or "[]")]

    def _run_directory(self) -> Path:
        # conmon stays in the directory it was started in, and leaves a file `oom` there when memory runs out.
        directory = platformdirs.user_cache_path("container-kernels", appauthor=False) / "podman"
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _build_options(self) -> Iterable[str]:
        # Docker's own image format: Podman's default drops nothing that we use, yet warns of it.
        return ("--pull=never", "--format", "docker", "--layers=false", "--network", "none")


def _as_docker_has_it(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "Name": item["name"],
        "MemUsage": item["mem_usage"],
        "CPUPerc": item["cpu_percent"],
        "PIDs": item["pids"],
    }
