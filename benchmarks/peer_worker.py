"""Run in a peer's own environment: starts its kernel for each line that is read, and prints what came of it as a line of JSON."""

from __future__ import annotations

import json
import sys

from kernels import managed


def main(kernel_name: str, reconnect: int) -> None:
    for _ in sys.stdin:
        try:
            # Not at once: one that is killed leaves its container behind.
            with managed(kernel_name, reconnect, now=False) as kernel:
                answer: dict[str, object] = {"seconds": kernel.start()}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
