"""`install`: what is written, where, and what is refused with nothing written."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from container_kernels import kernelspecs
from container_kernels.cli import install, main
from container_kernels.errors import ContainerKernelError
from container_kernels.spec import Spec, parse

from ..conftest import EngineUnderTest

SHIPPED = Path(__file__).parents[2] / "kernelspecs"
PNG = b"\x89PNG\r\n\x1a\n"


def read(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "kernel.json").read_text(encoding="utf-8"))
    return content


def config_of(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = read(directory)["metadata"]["kernel_provisioner"]["config"]
    return config


@pytest.fixture
def install_here(tmp_path: Path, kernelspec_directory: Path) -> Callable[..., int]:
    return lambda *arguments: main(["install", "--name", "mine", "--prefix", str(tmp_path), *arguments])


# -- What is written


@pytest.mark.parametrize("name", ["container-python", "container-data"])
def test_it_has_the_shape_of_the_shipped_ones(name: str) -> None:
    shipped = read(SHIPPED / name)
    config = config_of(SHIPPED / name)
    assert kernelspecs.content(shipped["display_name"], "python", config) == shipped


def test_only_what_was_asked_for_is_set(install_here: Callable[..., int], kernelspec_directory: Path) -> None:
    assert install_here() == 0
    assert config_of(kernelspec_directory / "mine") == {}


def test_all_settings(install_here: Callable[..., int], kernelspec_directory: Path) -> None:
    words = (
        "--image registry.example.org/course/r:1 --cpus 0.5 --memory 1g --pids 100 --network full --workdir notebook "
        "--startup-timeout 90 --restart fresh --engine podman --require-vm --container-user 1000:1000 --env A=1 --env B=x=y "
        "--env-passthrough AWS_*,LANG --env-passthrough TERM --preload numpy,pandas"
    )
    assert install_here(*words.split()) == 0
    config = config_of(kernelspec_directory / "mine")
    assert parse(config, {}, {}) == Spec(
        engine="podman", require_vm=True, image="registry.example.org/course/r:1", cpus=0.5, memory=1 << 30, pids=100,
        workdir="notebook", env={"A": "1", "B": "x=y"}, env_passthrough=("AWS_*", "LANG", "TERM"), preload=("numpy", "pandas"),
        user="1000:1000", startup_timeout=90, restart="fresh",
    )  # fmt: skip
    assert config["memory"] == "1g"
    assert config["pids"] == 100


def test_a_kernel_of_another_language(install_here: Callable[..., int], kernelspec_directory: Path) -> None:
    argv = ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"]
    assert install_here("--language", "R", "--kernel-argv", *argv) == 0
    written = read(kernelspec_directory / "mine")
    assert config_of(kernelspec_directory / "mine") == {"argv": argv}
    assert (written["language"], written["interrupt_mode"]) == ("R", "signal")
    # They are promises of ipykernel's.
    assert not {"debugger", "supported_encryption"} & set(written["metadata"])


@pytest.mark.parametrize(
    ("image", "title"),
    [
        ("container-kernels/data", "data (container)"),
        ("registry.example.org:5000/course/stats:2.1", "stats 2.1 (container)"),
        ("stats@sha256:0123", "stats (container)"),
    ],
)
def test_a_title_from_the_image(image: str, title: str) -> None:
    assert kernelspecs.title(image) == title


def test_a_title_of_ones_own(install_here: Callable[..., int], kernelspec_directory: Path) -> None:
    assert install_here("--display-name", "Statistik für alle") == 0
    assert read(kernelspec_directory / "mine")["display_name"] == "Statistik für alle"


def test_it_has_logos(install_here: Callable[..., int], kernelspec_directory: Path) -> None:
    assert install_here() == 0
    assert {path.name for path in (kernelspec_directory / "mine").iterdir()} == {"kernel.json", *kernelspecs.LOGOS}


@pytest.mark.parametrize("name", ["container-python", "container-data"])
@pytest.mark.parametrize("size", [32, 64])
def test_the_shipped_logos_have_their_sizes(name: str, size: int) -> None:
    data = (SHIPPED / name / f"logo-{size}x{size}.png").read_bytes()
    assert data.startswith(PNG)
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (size, size)


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_others_may_read_it(install_here: Callable[..., int], kernelspec_directory: Path, usual_umask: None) -> None:
    assert install_here() == 0
    for path in (kernelspec_directory / "mine", *(kernelspec_directory / "mine").iterdir()):
        assert path.stat().st_mode & stat.S_IROTH, path


# -- Where


@pytest.mark.parametrize(
    ("flags", "in_venv", "where"),
    [
        ([], True, Path(sys.prefix)),
        ([], False, None),
        (["--user"], True, None),
        (["--sys-prefix"], False, Path(sys.prefix)),
        (["--prefix", "/somewhere"], True, Path("/somewhere")),
    ],
)
def test_where_it_goes(flags: list[str], in_venv: bool, where: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "IN_VENV", in_venv)
    parser = argparse.ArgumentParser()
    install.configure(parser)
    assert install._prefix(parser.parse_args(["--name", "mine", *flags])) == where


def test_for_the_person_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    assert main(["install", "--name", "mine", "--user"]) == 0
    assert (tmp_path / "data" / "kernels" / "mine" / "kernel.json").is_file()


def test_it_says_where_and_what_next(
    install_here: Callable[..., int], kernelspec_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install_here("--image", "course/stats") == 0
    directory = kernelspec_directory / "mine"
    assert capsys.readouterr().out.splitlines() == [
        f"Installed the kernelspec 'mine' (stats (container)) in {directory}.",
        "Try it: jupyter container-kernels doctor --kernel mine",
    ]


def test_it_says_when_jupyter_does_not_look_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "--name", "mine", "--prefix", str(tmp_path)]) == 0
    assert f"add {tmp_path}/share/jupyter to JUPYTER_PATH" in capsys.readouterr().out


def test_jupyter_finds_it(install_here: Callable[..., int], kernelspec_directory: Path) -> None:
    assert install_here("--memory", "1g") == 0
    (found,) = (each for each in kernelspecs.installed() if each.name == "mine")
    assert found.directory == kernelspec_directory / "mine"
    assert found.config == {"memory": "1g"}


# -- What is refused


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--memory", "1x"], "memory"),
        (["--memory", "1m"], "64 MiB"),
        (["--cpus", "two"], "cpus"),
        (["--cpus", "0"], "cpus"),
        (["--pids", "1.5"], "pids"),
        (["--network", "none"], "network"),
        (["--workdir", "home"], "workdir"),
        (["--container-user", "me"], "user"),
        (["--startup-timeout", "0"], "startup_timeout"),
        (["--preload", "numpy;os"], "preload"),
        (["--image", "-rf"], "image"),
        (["--env", "A"], "--env"),
        (["--env", "=1"], "env"),
        (["--restart", "never"], "restart"),
    ],
)
def test_a_bad_value_writes_nothing(
    install_here: Callable[..., int],
    kernelspec_directory: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: str,
) -> None:
    # One word each, so that argparse does not take a value for an option.
    assert install_here("=".join(arguments)) == 2
    assert named in capsys.readouterr().err
    assert not kernelspec_directory.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "../mine", "ä"])
def test_a_bad_name_writes_and_removes_nothing(tmp_path: Path, kernelspec_directory: Path, name: str) -> None:
    bystander = kernelspec_directory / "other" / "kernel.json"
    bystander.parent.mkdir(parents=True)
    bystander.write_text("{}")
    for flags in ([], ["--replace"]):
        assert main(["install", f"--name={name}", "--prefix", str(tmp_path), *flags]) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [bystander]


def test_a_name_that_is_taken_is_replaced_only_when_asked(
    install_here: Callable[..., int], kernelspec_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install_here("--memory", "1g") == 0
    assert install_here("--memory", "2g") == 2
    assert str(kernelspec_directory / "mine") in capsys.readouterr().err
    assert config_of(kernelspec_directory / "mine") == {"memory": "1g"}
    assert install_here("--memory", "2g", "--replace") == 0
    assert config_of(kernelspec_directory / "mine") == {"memory": "2g"}


def test_a_bad_value_leaves_the_one_that_was_to_be_replaced(
    install_here: Callable[..., int], kernelspec_directory: Path
) -> None:
    assert install_here("--memory", "1g") == 0
    assert install_here("--memory", "1x", "--replace") == 2
    assert config_of(kernelspec_directory / "mine") == {"memory": "1g"}


def test_a_name_that_would_hide_another_is_refused(
    tmp_path: Path, install_here: Callable[..., int], kernelspec_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are the same in whatever case, and in whatever directory Jupyter looks."""
    assert install_here() == 0
    elsewhere = ["--prefix", str(tmp_path / "elsewhere")]
    assert main(["install", "--name", "MINE", *elsewhere]) == 2
    assert str(kernelspec_directory / "mine") in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_may_not_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["install", "--name", "mine", "--prefix", str(tmp_path / "file")]) == ContainerKernelError.exit_code
    assert "could not be written" in capsys.readouterr().err


# -- A kernel of it


async def test_a_kernel_of_it_runs(
    install_here: Callable[..., int], engine: EngineUnderTest, start_kernel: Callable[..., Any]
) -> None:
    words = ["--memory", "300m", "--env", "COURSE=stats 101", "--preload", "decimal"]
    assert await asyncio.to_thread(install_here, *words) == 0
    kernel = await start_kernel("mine")
    seen = await kernel.run("import os, sys; print(os.environ['COURSE'], 'decimal' in sys.modules)")
    assert seen == "stats 101 True"
    limit = engine.run("container", "inspect", "--format", "{{.HostConfig.Memory}}", engine.the_container())
    assert int(limit) == 300 << 20
