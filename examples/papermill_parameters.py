"""One notebook, run once for each value of a parameter, each run in a container of its own.

python examples/papermill_parameters.py [--output results]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import papermill
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent
PLACES = ("window", "shelf", "cupboard")


def growth(place: str, output: Path) -> str:
    """The last output of the notebook: millimetres a day. The executed copy lies in `output`."""
    executed = papermill.execute_notebook(
        FOLDER / "one_bean.ipynb",
        output / f"one_bean_{place}.ipynb",
        parameters={"place": place},
        cwd=FOLDER,  # papermill changes its own directory to it, and the kernel starts there
        progress_bar=False,
    )
    return str(executed.cells[-1].outputs[-1]["data"]["text/plain"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Run examples/one_bean.ipynb with papermill, once for each place.")
    parser.add_argument("--output", type=Path, default=FOLDER / "results", help="where the executed copies go")
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    table = Table("place", "mm a day")
    for place in PLACES:
        table.add_row(place, growth(place, output))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
