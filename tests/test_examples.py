"""The examples run as the README says, and leave what they promise."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from .conftest import EngineUnderTest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy, so that nobody else's results are in it."""
    return Path(
        shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("results", "__pycache__"))
    )


def run(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(argv, cwd=script.parent, capture_output=True, text=True, timeout=110, check=False)


def write(path: Path, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "container-python", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path


def outputs(path: Path) -> list[str]:
    """The text of each code cell's last output."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    last = [cell.outputs[-1] if cell.outputs else {} for cell in cells]
    return [str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in last]


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(notebook: Path) -> None:
    for cell in nbformat.read(notebook, as_version=4).cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)


def test_demo(engine: EngineUnderTest, examples: Path) -> None:
    done = run(examples / "demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "As it should be" in done.stdout
    results = examples / "results"
    assert (results / "summary.csv").read_text().startswith("place,tallest_mm,mm_per_day,leaves\nwindow,179,")
    assert "data:image/png;base64," in (results / "hello.html").read_text()
    assert outputs(results / "hello.ipynb")[0].startswith("Hello from ")


def test_demo_fails_where_nothing_is_isolated(examples: Path) -> None:
    """A plain local kernel passes for none in a container."""
    notebook = write(
        examples / "local.ipynb",
        "import json, os, pathlib, socket",
        "here = {'host name': socket.gethostname(), 'pid namespace': os.readlink('/proc/self/ns/pid'), 'user id': 0}",
        "here |= {'cpus': '1', 'memory': '1', 'pids': '1'}",
        "pathlib.Path('results/where.json').write_text(json.dumps(here))",
    )
    document = nbformat.read(notebook, as_version=4)
    document.metadata.kernelspec.name = "python3"
    nbformat.write(document, notebook)
    done = run(examples / "demo.py", notebook)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the host name inside is ours" in done.stdout


def test_headless(engine: EngineUnderTest, examples: Path, tmp_path: Path) -> None:
    good = write(tmp_path / "good.ipynb", "6 * 7")
    bad = write(tmp_path / "bad.ipynb", "kept = 'seen'\nkept", "1 / 0", "'never'")
    dying = write(tmp_path / "dying.ipynb", "import os", "os._exit(3)")
    done = run(examples / "headless.py", good, bad, dying, "--output", tmp_path / "out")
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"ok      {good}" in done.stdout
    assert "cell 2: ZeroDivisionError: division by zero" in done.stdout
    assert "cell 2: KernelDied: The kernel exited with code 3." in done.stdout
    assert outputs(tmp_path / "out" / "good.ipynb") == ["42"]
    assert outputs(tmp_path / "out" / "bad.ipynb")[0] == "'seen'"
    assert outputs(tmp_path / "out" / "bad.ipynb")[2] == ""
    assert (tmp_path / "out" / "dying.ipynb").exists()


def test_headless_with_names_that_are_odd_or_the_same(engine: EngineUnderTest, examples: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = write(tmp_path / "one" / "[red]x[bold].ipynb", "'first'")
    second = write(tmp_path / "two" / "[red]x[bold].ipynb", "'second'")
    done = run(examples / "headless.py", first, second, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok      {first}\n" in done.stdout
    assert f"ok      {second} (copy: [red]x[bold]-2.ipynb)\n" in done.stdout
    assert outputs(tmp_path / "out" / first.name) == ["'first'"]
    assert outputs(tmp_path / "out" / "[red]x[bold]-2.ipynb") == ["'second'"]


@pytest.fixture
def headless() -> ModuleType:
    spec = importlib.util.spec_from_file_location("headless", EXAMPLES / "headless.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("number", "status"), [(0, 0), (3, 3), (125, 125), (256, 125), (300, 125)])
def test_headless_does_not_succeed_for_many_failures(
    headless: ModuleType, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    """A shell sees the lowest eight bits of a status only."""
    monkeypatch.setattr(headless, "execute", lambda source, copy, kernel: "" if source.name == "good" else "bad")
    monkeypatch.setattr("sys.argv", ["headless.py", "good", *["bad"] * number])
    assert headless.main() == status


def test_headless_gives_each_copy_a_name_of_its_own(headless: ModuleType) -> None:
    sources = [Path(name) for name in ("a/x.ipynb", "b/X.ipynb", "x-2.ipynb", "c/x.ipynb", "y.ipynb")]
    names = [name for _, name in headless.named(sources)]
    assert names == ["x.ipynb", "X-2.ipynb", "x-2-2.ipynb", "x-3.ipynb", "y.ipynb"]


def test_headless_says_why_a_kernel_does_not_start(
    engine: EngineUnderTest, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", "container-kernels/there-is-none")
    notebook = write(tmp_path / "any.ipynb", "1")
    done = run(examples / "headless.py", notebook, "--output", tmp_path / "out")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the kernel did not start" in done.stdout
    assert "jupyter container-kernels build" in done.stdout


def test_papermill(engine: EngineUnderTest, examples: Path, tmp_path: Path) -> None:
    done = run(examples / "papermill_parameters.py", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("│")[1:3] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == ["window", "shelf", "cupboard"]
    for place, growth in rows:
        assert outputs(tmp_path / "out" / f"one_bean_{place.strip()}.ipynb")[-1] == growth.strip()
