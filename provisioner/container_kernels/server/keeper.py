"""The pool's keeper as a thread of the server, with a loop of its own: Jupyter's is never kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from typing import Any

from .. import kernelspecs
from ..config import configured, host_environment, read_spec
from ..engines import ENGINES
from ..errors import ContainerKernelError
from ..pool.asking import encrypts, wish
from ..pool.keeping import keep
from ..pool.ledger import Ledger

NICE = 19


class Keeper:
    """Keeps warm what this server's kernels will want: first what its root directory needs, then what is started."""

    def __init__(self, config: Any, root: str, log: logging.Logger) -> None:
        self.log = log
        self.root = os.path.abspath(os.path.expanduser(root))
        self.traits = configured(config)

    def start(self) -> None:
        threading.Thread(target=self._run, name="container-kernels pool", daemon=True).start()

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            asyncio.run(self._keep())
        except (ContainerKernelError, OSError) as error:
            self.log.warning("The pool of warm containers is not kept: %s", error)
        except Exception:  # the server goes on
            self.log.exception("The pool of warm containers is not kept.")

    async def _keep(self) -> None:
        ledger = Ledger.of_this_user()
        for kernelspec in kernelspecs.installed():
            try:
                await self._wish(ledger, kernelspec)
            except ContainerKernelError as error:
                self.log.info("No container is kept warm for %s: %s", kernelspec.name, error)
        budget = read_spec({}, self.traits).pool_memory_budget
        await keep(ledger, host_environment(), budget, self.log)

    async def _wish(self, ledger: Ledger, kernelspec: kernelspecs.Kernelspec) -> None:
        """A kernelspec whose image is not there is none that anybody uses."""
        wanted = await wish(ledger, kernelspec.config, self.traits, cwd=self.root, root=self.root, encrypts=encrypts())
        if wanted is not None:
            request = wanted.recipe.request
            if await ENGINES[wanted.recipe.engine].image(request.image) is None:
                ledger.forget(wanted.key)
