"""Fetching wheels on the host, for an image's Python: a build then needs no network, no proxy and no certificates."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import command
from ..engines.protocol import Progress
from ..errors import BuildError
from .interpreter import Interpreter

FETCHING = 3600.0  # seconds

_OFFLINE = re.compile(
    r"connection broken by|Max retries exceeded|Failed to establish a new connection|Temporary failure in name"
)
_NO_WHEEL = re.compile(r"No matching distribution found for (?P<requirement>.+)")
_CONFLICT = re.compile(r"ResolutionImpossible|conflicting dependencies")


async def download(requirements: Sequence[str], python: Interpreter, directory: Path, progress: Progress) -> None:
    """`directory` has the wheels that the requirements need, and requirements.txt.

    Raises BuildError, which names the package that has no wheel.
    """
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            "This Python has no pip, which fetches the packages.",
            hint=f"Add it: `{sys.executable} -m ensurepip`, or `uv pip install pip` in an environment of uv.",
        )
    directory.mkdir()
    wanted = directory / "requirements.txt"
    wanted.write_text("".join(f"{requirement}\n" for requirement in requirements), encoding="utf-8")
    output = await command.run(pip_arguments(wanted, python, directory), timeout=FETCHING, on_line=progress)
    if not output.ok:
        raise _failure(output.said, python)


def pip_arguments(wanted: Path, python: Interpreter, directory: Path) -> list[str]:
    """The command that downloads; what the person has configured for pip (an index, a proxy) is in force."""
    pip = str(Path(__file__).with_name("pip_for_image.py"))
    argv = [sys.executable, pip, json.dumps(dict(python.markers)), "download"]
    argv += ["--no-input", "--no-color", "--progress-bar", "off", "--disable-pip-version-check"]
    argv += ["--requirement", str(wanted), "--dest", str(directory), "--only-binary", ":all:"]
    argv += ["--implementation", "cp", "--python-version", python.python, "--abi", python.abi]
    for platform in python.platforms():
        argv += ["--platform", platform]
    return argv


def _failure(said: str, python: Interpreter) -> BuildError:
    message, hint = "pip could not fetch the packages.", ""
    if _OFFLINE.search(said):
        message, hint = "pip cannot reach the package index.", "Check the network, and pip's proxy and index."
    elif match := _NO_WHEEL.search(said):
        package = match["requirement"].split(" (from")[0].strip()
        message = f"There is no wheel of {package!r} for Python {python.python} on {python.machine}."
        hint = (
            "Check the name and the version. Of a package that has no wheels, make one with `pip wheel` into a directory, "
            "and name that in PIP_FIND_LINKS."
        )
    elif _CONFLICT.search(said):
        message, hint = "The packages exclude each other.", "Loosen the versions that were asked for."
    return BuildError(message, hint=hint, detail=said[-4000:])
