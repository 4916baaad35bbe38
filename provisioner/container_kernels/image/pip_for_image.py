"""pip, for an image's Python: `pip_for_image.py MARKERS ARGUMENT...`, where MARKERS is a JSON object.

pip evaluates markers such as `python_version < "3.11"` for the Python that it runs on, whatever `--python-version` says
(https://github.com/pypa/pip/issues/11664).
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from typing import Any


def main() -> None:
    """pip has run, and ended the process."""
    del sys.path[0]  # this directory
    of_image = json.loads(sys.argv.pop(1))
    markers: Any = importlib.import_module("pip._vendor.packaging.markers")
    of_host = markers.default_environment()
    markers.default_environment = lambda: {**of_host, **of_image}
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
