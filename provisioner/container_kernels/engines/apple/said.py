"""What `container` says when it fails, and what it means. By the message only: codes and prefixes changed from release to release."""

from __future__ import annotations

import re

from ...errors import EngineError, EngineUnavailable, ImageError, PortTaken, ServiceStopped, SpecError, WorkdirError
from ..aftermath import Known

START = "container system start --enable-kernel-install"


def _says(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


SERVICE_STOPPED = _says("XPC connection error", "Ensure container system service has been started")
NO_CONTAINER = _says(
    r"container with ID \S+ not found", r"container \S+ not found", "container not found:", "no such container:"
)
NO_IMAGE = _says("image not found")
NAME_TAKEN = _says("already exists", r"hostname\(s\) already exist")
STILL_ENDING = _says("is stopping and can not be deleted", "deleteProcess: exec")
RETRY = _says("XPC timeout for request to .*networkList")  # asked before anything is made

ERRORS: tuple[Known, ...] = (
    (
        _says("Connection interrupted"),
        EngineUnavailable,
        "apple: the service of `container` was lost meanwhile.",
        f"It restarts by itself, or by `{START}`; `jupyter container-kernels gc` removes what was left.",
    ),
    (
        SERVICE_STOPPED,
        ServiceStopped,
        "apple: the service of `container` does not run.",
        f"Start it: `{START}`. It needs a login session at the screen.",
    ),
    (
        _says("default kernel not configured"),
        EngineUnavailable,
        "apple: no Linux kernel for the virtual machines is installed.",
        f"Install the recommended one: `{START}`, or `container system kernel set --recommended`.",
    ),
    (
        _says("Virtualization is not available"),
        EngineUnavailable,
        "apple: this machine cannot run virtual machines.",
        "It may be one itself, or a hosted runner: use another engine there.",
    ),
    (
        _says("no free indices are available for allocation"),
        EngineError,
        "apple: all addresses of its network are in use.",
        f"`container list --all` shows who has them. `container system stop`, which ends all containers, then `{START}` frees them.",
    ),
    (
        _says("no space left on device", "not enough (disk )?space"),
        EngineError,
        "apple has no space left on its disk.",
        "Make room: `container system df` shows what takes it.",
    ),
)

RUN_ERRORS: tuple[Known, ...] = (
    (_says("Address already in use"), PortTaken, "A port was taken between its choice and its use.", ""),
    (
        _says("minimum memory amount allowed"),
        SpecError,
        "memory = {memory} MiB is less than a virtual machine needs.",
        "Allowed with this engine: from 200m on.",
    ),
    (
        _says(r"(path|source path) '.*' does not exist", r"path '.*' is not a directory"),
        WorkdirError,
        "apple cannot mount {sources}.",
        "It may be gone, or no directory.",
    ),
    (
        _says("failed to find target executable", "executable .*not found", "no such file or directory"),
        ImageError,
        "The image {image!r} has no {program}.",
        "An image needs Python and ipykernel: `jupyter container-kernels build --base IMAGE` adds them.",
    ),
    (NO_IMAGE, ImageError, "apple has no image {image!r}.", "{missing_image}"),
    (
        NAME_TAKEN,
        EngineError,
        "The name {name!r} is in use by another container.",
        "`container list --all` shows it.",
    ),
    *ERRORS,
)
