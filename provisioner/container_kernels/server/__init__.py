"""The Jupyter Server's side: while a server runs, the pool is kept as it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What Jupyter Server looks for in a module that it is to load."""
    return [{"module": "container_kernels.server"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    """The server's own loop is not used, and it does not wait for the pool when it ends."""
    from .keeper import Keeper

    Keeper(server.config, server.root_dir, server.log).start()
