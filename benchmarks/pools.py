"""A pool of the benchmark's own, full and at rest whenever a measurement begins."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from container_kernels.pool.keeping import keeper_lock
from container_kernels.pool.ledger import Ledger

FILLING = 600.0  # seconds


class PoolFailed(Exception):
    """The pool does not serve; its message says why."""


class Miss(Exception):
    """A kernel that should have come from the pool did not; its message says why, as far as the pool knows."""


class Pool:
    """So many warm containers of one kernelspec, in a runtime directory that nobody else knows."""

    def __init__(self, kernel_name: str, size: int, directory: Path) -> None:
        self.kernel_name = kernel_name
        self.size = size
        self.directory = directory
        self._was_filled = False
        with self.in_use():
            self.ledger = Ledger.of_this_user()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """What this process starts comes from this pool."""
        variables = {"JUPYTER_RUNTIME_DIR": str(self.directory), "CONTAINER_KERNELS_POOL_SIZE": str(self.size)}
        with environment(variables):
            yield

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """In use, full before, and full again after: it has been idle for a while when it is used again."""
        with self.in_use():
            self.fill()
            yield
            self.fill()

    def fill(self) -> None:
        self._command("fill", "--kernel", self.kernel_name)
        self._was_filled = True

    def drain(self) -> None:
        if self._was_filled:
            self._command("drain")

    def slots(self) -> list[str]:
        """The names of the warm containers."""
        return [slot.name for slot in self.ledger.slots()]

    def check(self, is_warm: bool) -> None:
        """Raises Miss for a kernel that was started a moment ago, and was not warm."""
        if not is_warm:
            reasons = {reason for counts in self.ledger.counts().values() for reason in counts.misses}
            raise Miss(f"it was not warm: {', '.join(sorted(reasons)) or 'no reason is known'}")

    def is_being_filled(self) -> bool:
        return bool(self.ledger.making())

    @contextmanager
    def kept(self) -> Iterator[None]:
        """No start begins a refill: it takes us for somebody who keeps the pool."""
        with self.ledger.lock(keeper_lock(os.environ)) as ours:
            assert ours
            yield

    def _command(self, *words: str) -> None:
        argv = [str(Path(sys.executable).with_name("container-kernels")), "pool", *words]
        with self.in_use():
            done = subprocess.run(argv, capture_output=True, text=True, timeout=FILLING, check=False)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise PoolFailed(f"`{' '.join(argv[1:])}` failed: {' '.join(last)}")


@contextmanager
def pool(kernel_name: str, size: int, *, refills: bool = False) -> Iterator[Pool]:
    """A pool that is drained when the context ends. It `refills` by itself after a start, as everybody's does, or when it is told to."""
    with tempfile.TemporaryDirectory(prefix="container-kernels-benchmark-") as directory, ExitStack() as stack:
        made = Pool(kernel_name, size, Path(directory))
        if not refills:
            stack.enter_context(made.kept())
        stack.callback(made.drain)
        yield made


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
