"""Where a kernel is at home: directories that exist wherever the image lets this user write."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .settings import Settings


def prepare(settings: Settings) -> None:
    """The private directory exists, with a home in it, and this process has the host's umask. Raises OSError where the directory exists already."""
    os.umask(0o022)
    Path(settings.scratch).mkdir(parents=True, exist_ok=True)
    settings.private.mkdir(mode=0o700)
    home = settings.private / "home"
    # In place before Python looks for it: what `pip install --user` brings is then found after a restart.
    packages = home / ".local" / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    packages.mkdir(parents=True)
    os.umask(settings.umask)
    home_text = str(home)
    os.environ.update(HOME=home_text, PWD=home_text)
    os.environ.setdefault("USER", "kernel")
    os.environ.setdefault("LOGNAME", os.environ["USER"])
    in_virtual_environment = sys.prefix != sys.base_prefix
    if not in_virtual_environment and str(packages) not in sys.path:
        sys.path.append(str(packages))
