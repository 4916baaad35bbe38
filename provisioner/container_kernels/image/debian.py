"""A base image from Debian's or Ubuntu's packages, for a machine that reaches its package mirror and no registry."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from .. import command
from ..errors import BuildError, ImageError
from .cache import Cache
from .report import Report

TAG = "container-kernels/base"

_PACKAGES = "python3,ca-certificates,netbase,tzdata"
_NOT_PACKED = "dev proc sys run tmp var/cache/apt var/lib/apt/lists usr/share/doc usr/share/man"  # what is in them

ASKING = 30.0  # seconds
INSTALLING = 600.0
MAKING = 1800.0
PACKING = 300.0


def refusal(architecture: str) -> str | None:
    """Why no base for that architecture can be made here; None when it can."""
    if _release() is None:
        return "this is not Debian or Ubuntu"
    if os.geteuid() != 0:
        return "debootstrap needs root"
    if architecture != platform.machine():
        return f"the engine runs {architecture}, and this machine is {platform.machine()}"
    return None


async def archive(cache: Cache, report: Report) -> Path:
    """A tar file of this machine's release, with Python: a sound one from the cache, or a new one."""
    release = _release()
    assert release is not None
    name = f"base-{release['VERSION_CODENAME']}-{platform.machine()}"
    if (found := cache.find(f"{name}-*.tar")) is not None:
        if found.stem == f"{name}-{await asyncio.to_thread(_sha256, found)}":
            return found
        found.unlink()
    await _require_debootstrap(report)
    report.doing(f"Making a base from the packages of {release.get('PRETTY_NAME', release['ID'])}")
    with cache.scratch() as scratch:
        packed = await _make(release["VERSION_CODENAME"], scratch, report)
        return cache.keep(packed, f"{name}-{await asyncio.to_thread(_sha256, packed)}.tar")


def _release() -> Mapping[str, str] | None:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return release if release["ID"] in ("debian", "ubuntu") and "VERSION_CODENAME" in release else None


async def _require_debootstrap(report: Report) -> None:
    if shutil.which("debootstrap"):
        return
    report.doing("Installing debootstrap with apt-get")
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "debootstrap"]):
        argv = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *words]
        done = await command.run(argv, timeout=INSTALLING, on_line=report.line)
        if not done.ok:
            hint = "Try `apt-get install debootstrap`."
            raise ImageError("debootstrap could not be installed.", hint=hint, detail=done.said[-4000:])


async def _make(codename: str, scratch: Path, report: Report) -> Path:
    root, packed = scratch / "root", scratch / "root.tar"
    # In namespaces of its own, all that it started and mounted ends with it, however it ends.
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    argv += [
        "debootstrap",
        "--variant=minbase",
        f"--include={_PACKAGES}",
        codename,
        str(root),
        *await _mirror(codename),
    ]
    made = await command.run(argv, timeout=MAKING, on_line=report.line)
    if not made.ok:
        hint = "Check that apt's mirror can be reached."
        raise BuildError("debootstrap could not make a base.", hint=hint, detail=made.said[-4000:])
    argv = ["tar", "--create", "--file", str(packed), "--directory", str(root), "--numeric-owner"]
    argv += [f"--exclude=./{directory}/*" for directory in _NOT_PACKED.split()]
    done = await command.run([*argv, "."], timeout=PACKING)
    if not done.ok:
        raise BuildError("The base could not be packed.", detail=done.said[-4000:])
    return packed


async def _mirror(codename: str) -> list[str]:
    """The mirror of this machine's own packages; nothing leaves the choice to debootstrap."""
    argv = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Identifier: Packages", "Component: main"]
    targets = await command.run(argv, timeout=ASKING)
    for line in targets.stdout.splitlines():
        suite, _, address = line.partition(" ")
        if suite == codename and address.startswith(("http://", "https://")):
            return [address]
    return []


def _sha256(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()
