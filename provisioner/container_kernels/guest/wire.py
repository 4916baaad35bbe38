"""What the host and the supervisor say to each other: JSON objects, one a line, over one TCP connection.

The supervisor speaks first: `{"event": "greeting", "protocol": 1}`. The host asks whose it is, `{"op": "prove", "protocol": 1, "nonce": …}`,
and is told `{"event": "proof", "proof": …}`: a program that has got hold of the port does not know the token's digest, and is told nothing
more. Then the host shows the token, `{"op": "hello", "protocol": 1, "token": …}`, and is let in: `{"event": "welcome", "kernel": …}`.
Then the host sends requests, `{"op": …, "id": n, …}`, each answered by `{"id": n, …}` or `{"id": n, "error": {"kind", "message"}}`;
events, `{"event": …}`, come at any time. Either side closes the connection on anything else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import signal as signals
from typing import Any, Dict, List, NamedTuple, Optional

PROTOCOL = 1  # raised whenever the two sides must be of the same release

# Fixed in the container, above Linux's ephemeral range, so that nothing else there takes them by chance.
KERNEL_PORTS = {"shell_port": 61801, "iopub_port": 61802, "stdin_port": 61803, "control_port": 61804, "hb_port": 61805}
SUPERVISOR_PORT = 61806

MAX_MESSAGE = 4 << 20  # bytes of a line; a claim carries an environment
MAX_STRANGER = 4 << 10  # before the token was shown

Message = Dict[str, Any]


class WireError(Exception):
    """The other side does not keep to the protocol."""


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Decoder:
    """Bytes in, whole messages out. Raises WireError for a line that is too long, or no JSON object."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self.limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> List[Message]:
        first, *others = data.split(b"\n")  # only what is new is searched: a long line may come in many pieces
        self._rest += first
        lines = []
        for piece in others:
            lines.append(self._rest)
            self._rest = bytearray(piece)
        if any(len(line) > self.limit for line in (*lines, self._rest)):
            raise WireError(f"a message is longer than {self.limit} bytes")
        return [_decode(line) for line in lines]


def _decode(line: bytearray) -> Message:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise WireError("a message is not JSON") from None
    if not isinstance(message, dict):
        raise WireError("a message is not an object")
    return message


def digest(token: str) -> str:
    """What the container may know of the token that opens it: its own environment is no secret."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def opens(token: object, expected_digest: str) -> bool:
    return isinstance(token, str) and hmac.compare_digest(digest(token), expected_digest)


def proof(expected_digest: str, nonce: str) -> str:
    """What only a supervisor that was made for the token can say."""
    return hmac.new(expected_digest.encode(), nonce.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def proves(said: object, token: str, nonce: str) -> bool:
    return isinstance(said, str) and hmac.compare_digest(
        said.encode(errors="replace"), proof(digest(token), nonce).encode()
    )


class Ending(NamedTuple):
    """How a kernel ended: an exit code or a signal, and whether the container's memory limit (bytes) did it."""

    exit_code: Optional[int] = None
    signal: Optional[int] = None
    out_of_memory: bool = False
    memory_limit: Optional[int] = None

    @property
    def code(self) -> int:
        """As `subprocess` spells it: negative for a signal."""
        if self.signal is not None:
            return -self.signal
        return 0 if self.exit_code is None else self.exit_code

    @property
    def reason(self) -> str:
        """A sentence for a person."""
        if self.out_of_memory:
            limit = f" of {size_text(self.memory_limit)}" if self.memory_limit else ""
            return f"The kernel ran out of memory: it was killed at the container's limit{limit}."
        if self.signal is not None:
            return f"The kernel was killed by {_signal_name(self.signal)}."
        return f"The kernel exited with code {self.code}."

    @classmethod
    def from_message(cls, message: Message) -> Ending:
        """Raises WireError for a field of the wrong kind: what a container says is not trusted."""
        values = {name: message.get(name) for name in ("exit_code", "signal", "memory_limit")}
        if any(not isinstance(value, (int, type(None))) for value in values.values()):
            raise WireError("an ending is no number")
        return cls(out_of_memory=message.get("out_of_memory") is True, **values)


def size_text(size: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << power:
            return f"{round(size / (1 << power), 1):g} {unit}"
    return f"{size} bytes"


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
