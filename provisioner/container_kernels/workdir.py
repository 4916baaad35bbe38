"""Which host directory a kernel sees, and where in it the kernel starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engines.protocol import Mount
from .errors import WorkdirError
from .spec import Spec, WorkdirPolicy

# Mounted, these would show the host's system, or everybody's files, or hide the image's own.
NEVER = frozenset(map(Path, ("/", "/home", "/opt", "/run", "/srv", "/Users", "/var")))
NEVER_BELOW = tuple(
    Path(path)
    for path in (
        "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr",
        "/opt/venv", "/opt/container-kernels",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Workdir:
    """The mounts of a kernel container, and the kernel's working directory; None is the container's own home."""

    mounts: tuple[Mount, ...]
    cwd: str | None

    @classmethod
    def from_persisted(cls, persisted: Mapping[str, Any]) -> Workdir:
        """From what `dataclasses.asdict` gave."""
        return cls(tuple(Mount(**mount) for mount in persisted["mounts"]), persisted["cwd"])


def plan(spec: Spec, *, cwd: str, root: str | None, home: str) -> Workdir:
    """What to mount for a kernel that starts in `cwd`, under a server that serves `root` (None without a server).

    The mount is at the same path in the container. Raises WorkdirError where `cwd` cannot be used, or may not be mounted.
    """
    extra = tuple(_expanded(mount, home) for mount in spec.mounts)
    real = os.path.realpath(cwd)  # as the mounts' sources are
    named = [mount for mount in extra if _within(real, mount.source)]
    if spec.workdir == "none" or named:
        return Workdir(extra, _inside(named[0], real) if named else None)
    _usable(cwd)
    directory = _mounted(spec.workdir, cwd, root, home)
    return Workdir((Mount(os.path.realpath(directory), directory), *extra), cwd)


def _mounted(policy: WorkdirPolicy, cwd: str, root: str | None, home: str) -> str:
    if policy != "notebook" and root is not None and not _refusal(root, home) and _really_within(cwd, root):
        return root
    if policy == "root":
        _insist(root if root is not None else cwd, home)
        return root if root is not None and _really_within(cwd, root) else cwd
    _insist(cwd, home)
    return cwd


def _insist(directory: str, home: str) -> None:
    if refusal := _refusal(directory, home):
        raise WorkdirError(
            f"{directory} may not be mounted into a kernel's container: {refusal}.",
            hint="Move the notebook into a folder of its own; or name the directory in `mounts`; or set workdir = 'none'.",
        )


def _refusal(directory: str, home: str) -> str:
    """Why a directory is not mounted unless it is asked for by its name; empty where nothing speaks against it."""
    real = Path(os.path.realpath(directory))
    for path in (Path(directory), real):
        if _is_system(path):
            return "it is part of the system"
    if _within(os.path.realpath(home), str(real)):
        return "it is the home directory, or holds it"
    return ""


def _is_system(path: Path) -> bool:
    return path in NEVER or any(path.is_relative_to(system) for system in NEVER_BELOW)


def _usable(cwd: str) -> None:
    if not Path(cwd).is_dir():
        raise WorkdirError(
            f"The working directory {cwd} does not exist, or is no directory.",
            hint="Create it, or start the kernel elsewhere.",
        )
    if not os.access(cwd, os.R_OK | os.X_OK):
        raise WorkdirError(
            f"The working directory {cwd} may not be read by you.", hint=f"See its permissions: `ls -ld {cwd}`."
        )


def _within(path: str, directory: str) -> bool:
    return Path(path).is_relative_to(directory)


def _really_within(path: str, directory: str) -> bool:
    """Also where a symbolic link on the way leads elsewhere: in the container it would lead nowhere."""
    return _within(path, directory) and _within(os.path.realpath(path), os.path.realpath(directory))


def _inside(mount: Mount, path: str) -> str:
    return str(Path(mount.target) / Path(path).relative_to(mount.source))


def _expanded(mount: Mount, home: str) -> Mount:
    source, target = (
        home + path[1:] if path == "~" or path.startswith("~/") else path for path in (mount.source, mount.target)
    )
    if not Path(source).exists():
        raise WorkdirError(f"mounts: {source} does not exist.", hint="Create it, or take it out of `mounts`.")
    target = "/" + os.path.normpath(target).lstrip("/")
    if _is_system(Path(target)):
        raise WorkdirError(f"mounts: nothing may be mounted on {target}.", hint="Give the mount another `target`.")
    return Mount(os.path.realpath(source), target, mount.read_only)


def host_path(mounts: tuple[Mount, ...], path: str, cwd: str | None) -> str | None:
    """The host's path for a path as the kernel sees it; None when it is not under a mount, or does not exist."""
    if not path.startswith("/"):
        if cwd is None or path.startswith("~"):
            return None
        path = f"{cwd}/{path}"
    inside = Path(os.path.normpath(path))
    for mount in sorted(mounts, key=lambda mount: len(mount.target), reverse=True):
        if inside.is_relative_to(mount.target):
            return _existing_below(Path(mount.source), inside.relative_to(mount.target))
    return None


def _existing_below(directory: Path, relative: Path) -> str | None:
    found = directory / relative
    return str(found) if found.exists() and _really_within(str(found), str(directory)) else None
