"""The medians that `start.py` has measured, as a picture: docs/start.svg.

    python benchmarks/chart.py [results/start.json] [--output docs/start.svg]

Greys and a blue that can be read on white and on black: the file does not know where it is shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from report import RESULTS, read

ROOT = Path(__file__).parent.parent

WIDTH, LABELS, FIGURES = 760, 250, 110  # of the picture, of the names on its left, of the figures on its right
ROW, BAR = 26, 16
TEXT, OTHERS, OURS = "#7d8590", "#8b949e", "#2f81f7"
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', sans-serif\""

# Names in the results, and in the picture; ours are those that run in a container of this project.
STARTS = {
    "container, warm": "Python 3 (container), warm",
    "local ipykernel": "local ipykernel",
    "bare {engine} run": "bare {engine} run",
    "container, cold": "Python 3 (container), cold",
    "gateway_provisioners": "gateway_provisioners",
    "envkernel": "envkernel",
}
RESTARTS = {
    "container, restart": "Python 3 (container)",
    "local, restart": "local ipykernel",
}
DATA = {
    "container-data, warm": "with data packages (container), warm",
    "local ipykernel, data": "local ipykernel",
    "container-data, cold": "with data packages (container), cold",
}


def chart(results: Mapping[str, Any]) -> str:
    """The picture as SVG."""
    engine = results["engine"]["name"]
    groups = [
        ("Start to first reply", STARTS),
        ("Restart to first reply", RESTARTS),
        ("Start until numpy, pandas and matplotlib are imported", DATA),
    ]
    medians = {name: results["median_s"].get(name.format(engine=engine)) for _, names in groups for name in names}
    scale = (WIDTH - LABELS - FIGURES) / max(median for median in medians.values() if median)
    body: list[str] = []
    y = 52
    for title, names in groups:
        times = {shown.format(engine=engine): medians[name] for name, shown in names.items() if medians[name]}
        if times:
            body += [text(0, y + 20, title, 14, weight=600), *bars(times, y + 32, scale)]
            y += 32 + ROW * len(times) + 12
    frame = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img">'
    )
    return "\n".join([frame, f"<title>{escape(heading(results))}</title>", *head(results), *body, "</svg>", ""])


def heading(results: Mapping[str, Any]) -> str:
    return f"Median of {results['rounds']} rounds, in milliseconds: less is better"


def head(results: Mapping[str, Any]) -> list[str]:
    machine, engine = results["machine"], results["engine"]
    where = f"{machine['cpu']}, {machine['cpus']} cores, {engine['name'].capitalize()} {engine['version']}"
    return [text(0, 16, heading(results), 14), text(0, 36, f"{where}; {results['command']}", 11)]


def bars(times: Mapping[str, float], top: int, scale: float) -> Iterator[str]:
    """One below the other, the quickest first; `scale` is what a second is long."""
    ordered: Sequence[tuple[str, float]] = sorted(times.items(), key=lambda item: item[1])
    for number, (name, seconds) in enumerate(ordered):
        y, length = top + ROW * number, max(2, scale * seconds)
        color = OURS if "(container)" in name else OTHERS
        yield text(LABELS - 10, y + BAR - 3, name, 12, anchor="end")
        yield f'<rect x="{LABELS}" y="{y}" width="{length:.0f}" height="{BAR}" rx="2" fill="{color}"/>'
        yield text(round(LABELS + length + 8), y + BAR - 3, f"{1000 * seconds:.0f}", 12, weight=600)


def text(x: int, y: int, content: str, size: int, *, anchor: str = "start", weight: int = 400) -> str:
    style = f'{FONT} font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{TEXT}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(content)}</text>'


def main() -> None:
    options = argparse.ArgumentParser(description="The chart of benchmarks/results/start.json.")
    options.add_argument("results", nargs="?", type=Path, default=RESULTS / "start.json")
    options.add_argument("--output", type=Path, default=ROOT / "docs" / "start.svg")
    arguments = options.parse_args()
    arguments.output.write_text(chart(read(arguments.results)))
    print(arguments.output)


if __name__ == "__main__":
    main()
