"""How `container` says that it failed: these forms hold for 0.10 and later.

The code of an error is printed in causes and by stop, kill and delete only; everywhere else its message stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence

GONE = "a Mac that is no more"
START_HINT = "Ensure container system service has been started with `container system start`."


class Failed(Exception):
    """The command ends with this text after `Error: ` on stderr, and this status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class Usage(Failed):
    """What the argument parser refuses: 64, and a line of usage."""

    def __init__(self, text: str, command: str) -> None:
        name = f"container {command}".strip()
        usage = f"Usage: {name} [<options>]\n  See '{name} --help' for more information."
        super().__init__(f"{text}\n{usage}", 64)


class NotPlayed(Failed):
    """The real one would do it. That the stand-in does not must never look like an answer of the real one."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the stand-in does not play this: {what}", 70)


class AppleError(Failed):
    """An error with a code, as the services throw it."""

    def __init__(self, code: str, message: str, cause: AppleError | None = None) -> None:
        self.code = code
        self.message = message
        self.cause = cause
        super().__init__(message + self._because())

    def _because(self) -> str:
        return f' (cause: "{self.cause.full()}")' if self.cause else ""

    def full(self) -> str:
        return f'{self.code}: "{self.message}"{self._because()}'


class Several(Failed):
    """What stop, kill and delete say, also of one failure: a line for each."""

    def __init__(self, errors: Sequence[AppleError]) -> None:
        super().__init__("\n".join(error.full() for error in errors))


def no_service(doing: str, what: str = "Connection invalid") -> Failed:
    """The service is down, or was lost during the call."""
    cause = AppleError("interrupted", f"XPC connection error: {what}")
    return Failed(f"{AppleError('internalError', doing, cause).full()}\n{START_HINT}")
