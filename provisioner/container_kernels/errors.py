"""Every error that a person can meet: what went wrong, what to do, and what the engine said."""

from __future__ import annotations


class ContainerKernelError(Exception):
    """One problem, told once.

    `str()` gives the message, then the hint on its own line, then the detail (an engine's stderr, a log's tail):
    JupyterLab shows that text in its dialog, headless runs carry it in their exception.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail.strip()

    def __str__(self) -> str:
        return "\n".join(part for part in (self.message, self.hint, self.detail) if part)


# The caller asked wrongly.


class SpecError(ContainerKernelError):
    """A setting has an unknown name or a value that is not allowed."""

    exit_code = 2


class WorkdirError(ContainerKernelError):
    """The working directory is gone, unreadable, or may not be mounted."""

    exit_code = 3


# The machine is not ready.


class EngineUnavailable(ContainerKernelError):
    """An engine is absent, stopped, or denies permission."""

    exit_code = 4


class ServiceStopped(EngineUnavailable):
    """An engine is there, and its service could be started."""


class ImageError(ContainerKernelError):
    """An image is missing, or cannot run this kernel."""

    exit_code = 5


class BuildError(ContainerKernelError):
    """An image could not be built."""

    exit_code = 6


# The engine or the kernel misbehaved.


class EngineError(ContainerKernelError):
    """An engine's command failed."""

    exit_code = 7


class PortTaken(EngineError):
    """Somebody else listens on a port that was free when it was chosen."""


class CommandTimeout(EngineError):
    """A command passed its time limit, and was ended."""


class GuestError(ContainerKernelError):
    """The supervisor in the container does not answer, or answers in another protocol."""

    exit_code = 8


class KernelStartError(ContainerKernelError):
    """The container runs, and the kernel in it does not start; `kind` is the supervisor's word for why."""

    exit_code = 9

    def __init__(self, message: str, *, kind: str = "", hint: str = "", detail: str = "") -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.kind = kind
