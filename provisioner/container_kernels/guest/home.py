"""Where a kernel is at home: directories that exist wherever the image lets this user write."""

from __future__ import annotations

import os
import sys

from .settings import Settings


def prepare(settings: Settings) -> None:
    """The private directory exists, with a home in it, and this process has the host's umask. Raises OSError where the directory exists already."""
    os.umask(0o022)
    os.makedirs(settings.scratch, exist_ok=True)
    os.mkdir(settings.private, 0o700)
    home = os.path.join(settings.private, "home")
    # In place before Python looks for it: what `pip install --user` brings is then found after a restart.
    packages = os.path.join(home, ".local", "lib", "python{}.{}".format(*sys.version_info), "site-packages")
    os.makedirs(packages)
    os.umask(settings.umask)
    os.environ.update(HOME=home, PWD=home)
    os.environ.setdefault("USER", "kernel")
    os.environ.setdefault("LOGNAME", os.environ["USER"])
    in_virtual_environment = sys.prefix != sys.base_prefix
    if not in_virtual_environment and packages not in sys.path:
        sys.path.append(packages)
