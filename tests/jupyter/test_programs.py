"""Jupyter's command-line programs with a kernel in a container: each calls the provisioner in a way of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import nbclient
import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient

from ..conftest import EngineUnderTest, eventually
from .conftest import Program, none_left

WHERE = f"import os, socket; print(os.getcwd(), socket.gethostname() != {os.uname().nodename!r})"


def notebook(path: Path, *cells: str) -> Path:
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "container-python", "display_name": "any", "language": "python"}},
    )
    nbformat.write(made, path)
    return path


def printed(path: Path) -> list[str]:
    """What each cell of an executed notebook has printed."""
    cells = json.loads(path.read_text())["cells"]
    return ["".join("".join(output.get("text", "")) for output in cell["outputs"]).strip() for cell in cells]


def test_console(start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path) -> None:
    """It tells the kernel to shut down, and nobody else: the container ends by itself."""
    program = start_program(
        "console", "--simple-prompt", "--kernel=container-python", stdin=b"x = 6 * 7\nprint('x is', x)\nexit()\n"
    )
    assert program.ends() == 0, program.output
    assert "x is 42" in program.output
    assert "died" not in program.output
    assert none_left(engine, timeout=20)


def test_kernel_is_another_programs_to_use(
    start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path
) -> None:
    """By the connection file that `jupyter kernel` names; which goes with the kernel."""
    program = start_program("kernel", "--kernel=container-python")
    connection_file = Path(program.says("--existing").partition("Connection file: ")[2].split()[0])
    client = BlockingKernelClient(connection_file=str(connection_file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        assert client.execute("1 + 1", reply=True, timeout=30)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
    program.process.send_signal(signal.SIGINT)
    assert program.ends() == 0, program.output
    assert "Traceback" not in program.output
    assert none_left(engine)
    assert not connection_file.exists()


def test_run(start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path) -> None:
    """Exactly the program's output: nothing of a kernel's notes on its parent, on signals, or on plain text."""
    (notebook_directory / "a file.py").write_text("import sys\nprint('hello', sys.argv[-1])\n")
    program = start_program("run", "--kernel=container-python", "a file.py")
    assert program.ends() == 0, program.output
    assert program.output == "hello a file.py\n"
    assert none_left(engine)


def test_run_of_a_file_that_fails(
    start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path
) -> None:
    (notebook_directory / "fails.py").write_text("import os; os._exit(3)")
    program = start_program("run", "--kernel=container-python", "fails.py")
    assert program.ends() != 0
    assert "exited with code 3" in program.output
    assert none_left(engine)


def test_execute(start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path) -> None:
    path = notebook(notebook_directory / "a.ipynb", WHERE, "print(open('beside.txt').read())")
    (notebook_directory / "beside.txt").write_text("beside")
    program = start_program("execute", "--inplace", str(path), cwd="/")
    assert program.ends() == 0, program.output
    assert printed(path) == [f"{notebook_directory} True", "beside"]
    assert none_left(engine)


def test_nbconvert_of_a_relative_path(
    start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path
) -> None:
    (notebook_directory / "sub").mkdir()
    notebook(notebook_directory / "sub" / "a.ipynb", WHERE)
    program = start_program("nbconvert", "--to=notebook", "--execute", "--inplace", "sub/a.ipynb")
    assert program.ends() == 0, program.output
    assert printed(notebook_directory / "sub" / "a.ipynb") == [f"{notebook_directory / 'sub'} True"]
    assert none_left(engine)


@pytest.mark.parametrize("cwd", ["", "elsewhere"])
def test_papermill(
    cwd: str, start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path
) -> None:
    """With `--cwd` it changes its own directory, and passes none; without, the notebook runs where papermill does."""
    (notebook_directory / "sub").mkdir()
    (notebook_directory / "elsewhere").mkdir()
    notebook(notebook_directory / "sub" / "a.ipynb", WHERE)
    options = [f"--cwd={cwd}"] if cwd else []
    program = start_program("sub/a.ipynb", "out.ipynb", *options, run="papermill")
    assert program.ends() == 0, program.output
    assert printed(notebook_directory / "out.ipynb")[0] == f"{notebook_directory / cwd} True"
    assert none_left(engine)


def nbclient_of(directory: Path, *cells: str) -> nbclient.NotebookClient:
    made = nbformat.read(notebook(directory / "a.ipynb", *cells), as_version=4)
    return nbclient.NotebookClient(made, timeout=60, resources={"metadata": {"path": str(directory)}})


def output_of(executed: nbformat.NotebookNode) -> str:
    return str(executed.cells[0].outputs[0].text).strip()


@pytest.mark.apple
def test_nbclient(engine: EngineUnderTest, notebook_directory: Path) -> None:
    assert output_of(nbclient_of(notebook_directory, WHERE).execute()) == f"{notebook_directory} True"
    assert none_left(engine)


@pytest.mark.apple
async def test_nbclient_in_a_loop_that_runs(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """Its blocking interface, as from a cell of another notebook: it moves to a thread with a loop of its own."""
    assert output_of(nbclient_of(notebook_directory, WHERE).execute()) == f"{notebook_directory} True"
    assert await asyncio.to_thread(none_left, engine)


async def test_a_manager_within_a_kernel(
    engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel's own JPY_PARENT_PID is in the environment there, and would end the kernel in the container at once."""
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getppid()))
    seen = "import os; print(os.environ.get('JPY_PARENT_PID'))"
    assert output_of(await nbclient_of(notebook_directory, seen).async_execute()) in ("None", "1")
    assert await asyncio.to_thread(none_left, engine)


@pytest.mark.apple
def test_nbclient_is_told_why_a_start_fails(
    engine: EngineUnderTest, notebook_directory: Path, write_kernelspec: Callable[..., str]
) -> None:
    client = nbclient_of(notebook_directory, WHERE)
    client.kernel_name = write_kernelspec("missing", {"image": "container-kernels/no-such-image"})
    with pytest.raises(Exception, match="container-kernels/no-such-image"):
        client.execute()
    assert engine.containers() == []


@pytest.mark.apple
def test_kernel_ends_with_its_program(
    start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path
) -> None:
    """SIGTERM is as good as SIGINT."""
    kernel = start_program("kernel", "--kernel=container-python")
    kernel.says("--existing")
    assert eventually(engine.containers, bool)
    kernel.process.send_signal(signal.SIGTERM)
    assert kernel.ends() == 0, kernel.output
    assert none_left(engine)


def test_kernelspecs_are_listed(start_program: Callable[..., Program]) -> None:
    """Both come with the package."""
    program = start_program("kernelspec", "list")
    assert program.ends() == 0
    assert {"container-python", "container-data"} <= set(program.output.split())
