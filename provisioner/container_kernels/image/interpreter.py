"""The Python of a base image, and which wheels fit it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..engines.protocol import Engine
from ..errors import EngineError, ImageError

OLDEST = (3, 9)

_OLDEST_GLIBC = 5  # of manylinux1: 2.5

# Runs in the image, on any Python 3.
_ASK = """
import json, os, platform, sys
version = sys.implementation.version
print(json.dumps({
    "abiflags": sys.abiflags,
    "libc": platform.libc_ver(),
    "markers": {
        "implementation_name": sys.implementation.name,
        "implementation_version": "%d.%d.%d" % version[:3],
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_system": platform.system(),
        "python_full_version": platform.python_version(),
        "python_version": "%d.%d" % sys.version_info[:2],
        "sys_platform": sys.platform,
    },
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython on Linux. `glibc` is the minor version of glibc 2, and None stands for musl."""

    version: tuple[int, int]
    machine: str
    abi: str
    glibc: int | None
    markers: Mapping[str, str]

    @property
    def python(self) -> str:
        return "{}.{}".format(*self.version)

    def platforms(self) -> Iterator[str]:
        """The platform tags of wheels that it can import, the best first."""
        if self.glibc is None:
            yield from (f"musllinux_1_{minor}_{self.machine}" for minor in (2, 1))
            return
        legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        for minor in range(self.glibc, _OLDEST_GLIBC - 1, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
            if minor in legacy:
                yield f"{legacy[minor]}_{self.machine}"


async def interpreter(engine: Engine, image: str) -> Interpreter:
    """The Python in the image. Raises ImageError when there is none that can run a kernel."""
    try:
        answer = await engine.output(image, ("python3", "-I", "-c", _ASK))
    except EngineError as error:
        raise ImageError(
            f"{image} has no Python that runs.", hint="A base needs `python3` on its PATH.", detail=error.detail
        ) from error
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{image} has no Python that can run a kernel: {error}.", detail=answer[-2000:]) from error


def read(answer: str) -> Interpreter:
    """From what an image printed; ValueError, KeyError or TypeError when it is nothing that we can use."""
    facts = json.loads(answer)
    markers = {str(name): str(value) for name, value in facts["markers"].items()}
    machine, python = markers["platform_machine"], markers["python_version"]
    if markers["implementation_name"] != "cpython" or not re.fullmatch(r"3\.\d+", python):
        raise ValueError(f"it is {markers['implementation_name']} {python}")
    version = (3, int(python.removeprefix("3.")))
    if version < OLDEST:
        raise ValueError(f"it is {python}, and kernels need 3.{OLDEST[1]}")
    if not re.fullmatch(r"\w+", machine) or not re.fullmatch(r"[a-z]*", facts["abiflags"]):
        raise ValueError("its answer is not understood")
    libc, libc_version = facts["libc"]
    return Interpreter(
        version=version,
        machine=machine,
        abi=f"cp3{version[1]}{facts['abiflags']}",
        glibc=int(libc_version.split(".")[1]) if libc == "glibc" else None,
        markers=markers,
    )
