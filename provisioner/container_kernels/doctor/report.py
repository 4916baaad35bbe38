"""What a person whose machine we do not have sends us: a text, cleared of what is private."""

from __future__ import annotations

import itertools
import os
import platform
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import psutil

from .. import __version__
from ..command import Call
from ..config import home, host_environment, read_spec
from ..engines.protocol import Progress
from ..errors import ContainerKernelError, SpecError
from ..kernelspecs import installed
from .check import Check, would_start
from .private import Private
from .rounds import Measured, measured

ROUNDS = 5  # of each kind of start
KEPT = 3000  # characters of each stream, from its beginning and its end

DISTRIBUTIONS = ("jupyter_client", "jupyter_server", "jupyterlab", "notebook", "ipykernel", "pyzmq", "traitlets")

HEAD = """# A report of `jupyter container-kernels doctor`

Read it before you send it. Your names, your directories, secrets, the values of variables and public addresses should have been
replaced, as by <user>, <path> or <secret>: a program cannot know everything that is private.
"""


def check_target(path: Path) -> None:
    """A report may be written there. Raises SpecError."""
    if path.exists() or path.is_symlink():
        raise SpecError(f"There is {path} already.", hint="Name another file, or remove this one.")
    if not path.parent.is_dir():
        raise SpecError(f"There is no directory {path.parent}.", hint="Make it, or name another file.")


async def write(path: Path, kernel: str, checks: Sequence[Check], calls: Sequence[Call], progress: Progress) -> None:
    """The file is there, and new: with these checks and commands, and with starts of the kernel, which are measured now."""
    starts: Measured | ContainerKernelError | None = None
    engine = next((check.facts.get("engine") for check in checks if check.name == "engine in use"), None)
    if engine and would_start(checks):
        unmounted = any(check.name == "working directory" and check.verdict == "warning" for check in checks)
        variables = {"CONTAINER_KERNELS_WORKDIR": "none"} if unmounted else {}
        try:
            starts = await measured(kernel, str(engine), ROUNDS, variables=variables, progress=progress)
        except ContainerKernelError as error:
            starts = error
    private = Private.of_this_person(_directories())
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(Report(private, checks, calls, starts).text())
    except OSError as error:
        raise ContainerKernelError(f"The report could not be written: {error}.", hint="Name another file.") from None


def _directories() -> set[str]:
    """Where the person works: here, and what the kernels' settings mount."""
    found: set[str] = set()
    for each in installed():
        try:
            spec = read_spec(each.config, {})
        except SpecError:
            continue
        for mount in spec.mounts:
            found |= {mount.source.replace("~", home(), 1) if mount.source[:1] == "~" else mount.source, mount.target}
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        return found
    return found if here == home() else {*found, here}


@dataclass(frozen=True)
class Report:
    private: Private
    checks: Sequence[Check]
    calls: Sequence[Call]
    starts: Measured | ContainerKernelError | None

    def text(self) -> str:
        sections = [
            HEAD,
            _section("Versions", map(self.private.text, _versions())),
            _section("Variables that are set", _variables(host_environment()) or ["none"]),
            _section("Checks", self._checked()),
            _section("Seconds from a kernel's start to its first reply", self._started()),
            "\n".join(["## Commands", "", *self._called(self.calls)]),
        ]
        if isinstance(self.starts, Measured):
            title = (
                "## Commands of the measured starts: the first of each kind, and those that failed, with what they said"
            )
            sections.append("\n".join([title, "", *self._called(self.starts.calls, briefly=True)]))
        return "\n".join(sections)

    def _checked(self) -> Iterator[str]:
        for check in self.checks:
            yield self.private.text(f"{check.verdict:<8}  {check.name}: {check.found}")
            for line in (check.remedy, *check.detail.splitlines()):
                if line:
                    yield f"{'':8}    {self.private.text(line)}"

    def _started(self) -> Iterator[str]:
        if isinstance(self.starts, Measured):
            for name, case in self.starts.cases.items():
                yield self.private.text(f"{name}: {case}")
        else:
            yield self.private.text(str(self.starts or "No kernel would start."))

    def _called(self, calls: Sequence[Call], *, briefly: bool = False) -> Iterator[str]:
        """`briefly`: what is as it was before is told by its first words only."""
        known: set[tuple[str, ...]] = set()
        for number, call in enumerate(calls, start=1):
            ended = "ended by us" if call.output is None else f"status {call.output.status}"
            what = verb(call.argv)
            yield f"{number}. `{self.private.text(' '.join(what))}`: {ended}, {call.seconds:.3f} s"
            if not (briefly and what in known and call.output is not None and call.output.ok):
                yield from self._in_full(call)
            known.add(what)
        yield ""

    def _in_full(self, call: Call) -> Iterator[str]:
        yield ""
        yield from _indented(shlex.join(self.private.words(call.argv)))
        if call.output is not None:
            for name, said in (("stdout", call.output.stdout), ("stderr", call.output.stderr)):
                if said.strip():
                    yield f"   {name}:"
                    yield from _indented(trimmed(self.private.answer(said).strip()))
        yield ""


def verb(argv: Sequence[str]) -> tuple[str, ...]:
    """The program, and the words that say what it does."""
    words = itertools.takewhile(lambda word: re.fullmatch(r"[a-z]+", word), argv[1:3])
    return (Path(argv[0]).name, *words)


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"    {line}" for line in lines), ""])


def _indented(text: str) -> list[str]:
    return [f"       {line}" for line in text.splitlines()]


def trimmed(text: str) -> str:
    """Its beginning and its end."""
    if len(text) <= KEPT:
        return text
    half = KEPT // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters]\n{text[-half:]}"


def _versions() -> Iterator[str]:
    yield f"at {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    yield f"container-kernels {__version__}"
    yield f"Python {platform.python_version()}, {platform.python_implementation()}, for {platform.machine()}"
    kernel = os.uname()
    yield f"{kernel.sysname} {kernel.release}, {kernel.version}"
    if mac := platform.mac_ver()[0]:
        yield f"macOS {mac}"
    memory = psutil.virtual_memory().total / (1 << 30)
    yield f"{os.cpu_count()} processors, {memory:.0f} GiB of memory"
    for name in DISTRIBUTIONS:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} is not installed"


def _variables(environ: Mapping[str, str]) -> list[str]:
    """Their names only."""
    return sorted(name for name in environ if name.startswith(("CONTAINER", "DOCKER_")))
