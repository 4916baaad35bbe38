"""`doctor`: each verdict with its cause, and a kernel that really starts and leaves nothing."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from container_kernels import doctor, engines, kernelspecs, owner
from container_kernels.cli import main
from container_kernels.doctor import Check, would_start
from container_kernels.engines.memory import Clock, MemoryEngine
from container_kernels.engines.protocol import LABEL, ContainerRequest
from container_kernels.kernelspecs import Kernelspec
from container_kernels.spec import Spec

from ..conftest import EngineUnderTest, eventually

Answer = Callable[..., tuple[int, Any]]
Checks = dict[str, dict[str, Any]]


@pytest.fixture
def examined(answer: Answer) -> Callable[..., tuple[int, Checks]]:
    """The exit status, and each check by its name."""

    def run(*arguments: str) -> tuple[int, Checks]:
        status, said = answer("doctor", *arguments)
        assert said["would_start"] is (status == 0)
        return status, {check["name"]: check for check in said["checks"]}

    return run


def write_kernelspec(directory: Path, name: str, config: Mapping[str, Any]) -> None:
    stanza = {"provisioner_name": "container-kernels", "config": config}
    content = {"argv": ["x"], "display_name": name, "language": "python", "metadata": {"kernel_provisioner": stanza}}
    (directory / name).mkdir(parents=True)
    (directory / name / "kernel.json").write_text(json.dumps(content))


# -- With real engines


def test_a_kernel_starts(
    engine: EngineUnderTest, notebook_directory: Path, examined: Callable[..., tuple[int, Checks]]
) -> None:
    status, checks = examined()
    assert status == 0
    assert checks[engine.name]["facts"]["version"]
    assert checks["engine in use"]["facts"] == {"engine": engine.name, "isolation": "container"}
    assert checks["provisioner"]["verdict"] == "ok"
    assert str(notebook_directory) in checks["working directory"]["found"]
    image = checks["image container-kernels/python"]["facts"]
    kernel = checks["kernel container-python"]["facts"]
    assert (image["python"], image["ipykernel"]) == (kernel["python"], kernel["ipykernel"])
    assert kernel["host"] != platform.node()
    assert 0 < kernel["started"] < kernel["replied"] < 60
    assert kernel["stopped"] > 0
    assert list(checks)[-1] == "kernel container-python"
    assert engine.containers() == []


def test_for_people(engine: EngineUnderTest, notebook_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("ok        kernel container-python: started in ")


def test_an_image_that_is_missing(
    engine: EngineUnderTest,
    notebook_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"none-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", f"container-kernels/{name}")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert f"failed    image container-kernels/{name}: {engine.name} does not have it." in said
    assert f"jupyter container-kernels build {name} --engine {engine.name}" in said
    assert said.splitlines()[-1] == "failed    No kernel would start here."


def test_a_kernel_that_does_not_start(
    engine: EngineUnderTest,
    notebook_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    examined: Callable[..., tuple[int, Checks]],
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_ARGV", '["no-such-program", "{connection_file}"]')
    status, checks = examined()
    assert status == 1
    assert checks["kernel container-python"]["verdict"] == "failed"
    assert "no-such-program" in json.dumps(checks["kernel container-python"])
    assert engine.containers() == []


def test_a_directory_that_is_not_mounted_is_no_reason_not_to_start(
    engine: EngineUnderTest,
    notebook_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    examined: Callable[..., tuple[int, Checks]],
) -> None:
    monkeypatch.setenv("HOME", str(notebook_directory))
    status, checks = examined()
    assert status == 0
    assert checks["working directory"]["verdict"] == "warning"
    assert "home directory" in checks["working directory"]["found"]


def test_a_directory_that_is_gone(memory: MemoryEngine, notebook_directory: Path) -> None:
    notebook_directory.rmdir()
    check = doctor._workdir(Spec())
    assert (check.verdict, check.remedy) == ("failed", "Change to another.")


def test_interrupted_it_leaves_nothing(
    engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted once its container is there, by a kernel that never becomes ready."""
    monkeypatch.setenv("CONTAINER_KERNELS_ARGV", '["sleep", "1000"]')
    code = "import sys; from container_kernels.cli import main; sys.exit(main(['doctor']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert eventually(engine.containers, bool, timeout=60)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert errors == ""
    assert engine.containers() == []


async def test_what_a_provisioner_leaves_is_removed(engine: EngineUnderTest) -> None:
    """Only of the kernel that was tried, and only this process's."""
    used = engines.ENGINES[engine.name]
    spec = Spec()
    kernelspec = Kernelspec("mine", Path("/nowhere"), "Mine", "python", {})
    trial = doctor._Trial(kernelspec, used, {}, spec.startup_timeout)
    label, value = engine.label.split("=")

    async def leave(kernel_id: str, belongs_to: str) -> str:
        name = f"container-kernels-test-{uuid.uuid4().hex[:12]}"
        labels = {LABEL: "test", label: value, f"{LABEL}.kernel": kernel_id, f"{LABEL}.owner": belongs_to}
        await used.run(
            ContainerRequest(
                name=name, image=spec.image, command=("sleep", "120"), cpus=1, memory=64 << 20, pids=20, labels=labels
            )
        )
        return name

    ours = await owner.this_process()
    await leave(trial.kernel_id, ours)
    others = [await leave("another", ours), await leave(trial.kernel_id, "1:0:another-host")]
    await trial._stop(AsyncKernelManager(kernel_name="container-python"))
    assert sorted(engine.containers()) == sorted(others)
    for name in others:
        await used.remove(name)


def test_an_engine_that_is_not_running(
    monkeypatch: pytest.MonkeyPatch, notebook_directory: Path, examined: Callable[..., tuple[int, Checks]]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    status, checks = examined("--engine", "docker")
    assert status == 1
    assert checks["docker"]["verdict"] == "failed"
    assert "127.0.0.1:1" in checks["docker"]["detail"]
    assert "{" not in checks["docker"]["detail"]  # what the command printed for programs
    assert "Start Docker" in checks["docker"]["remedy"]
    assert not any(name.startswith("kernel ") for name in checks)
    engines.forget()


# -- What is decided


@pytest.fixture
def second(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """Another engine, of less preference."""
    engine = MemoryEngine(clock=Clock())
    monkeypatch.setitem(engines.ENGINES, "second", engine)
    return engine


@pytest.mark.parametrize(
    ("stopped", "named", "verdicts"),
    [
        ([], None, ["ok", "ok"]),
        (["memory"], None, ["warning", "ok"]),
        (["memory"], "memory", ["failed", "ok"]),
        (["memory"], "second", ["warning", "ok"]),
        (["memory", "second"], None, ["failed", "failed"]),
    ],
)
async def test_an_engine_fails_where_it_is_needed(
    second: MemoryEngine, stopped: list[str], named: str | None, verdicts: list[str]
) -> None:
    for name in stopped:
        engine = engines.ENGINES[name]
        assert isinstance(engine, MemoryEngine)
        engine.stopped = "it is switched off"
    checks = await doctor._engines(named)
    assert [check.verdict for check in checks] == verdicts
    assert all((check.detail == "it is switched off") == (check.verdict != "ok") for check in checks)


async def test_an_environment_that_is_stronger_than_the_option_is_told(memory: MemoryEngine) -> None:
    info = await memory.probe()
    assert doctor._engine_in_use(info, "memory").verdict == "ok"
    assert doctor._engine_in_use(info, None).verdict == "ok"
    told = doctor._engine_in_use(info, "docker")
    assert told.verdict == "warning"
    assert "CONTAINER_KERNELS_ENGINE" in told.remedy


def test_kernelspecs(kernelspec_directory: Path) -> None:
    write_kernelspec(kernelspec_directory, "good", {"image": "some/image"})
    write_kernelspec(kernelspec_directory, "bad", {"memory": "1x"})
    (kernelspec_directory / "broken").mkdir()
    (kernelspec_directory / "broken" / "kernel.json").write_text("{")
    installed = kernelspecs.installed()
    verdicts = {check.name: check.verdict for check in doctor._kernelspecs(installed, "Good", {})}
    assert verdicts["kernelspec good"] == "ok"
    assert verdicts["kernelspec bad"] == "warning"
    assert verdicts["kernelspec container-python"] == "ok"
    assert "kernelspec broken" not in verdicts
    assert "kernelspec python3" not in verdicts
    verdicts = {check.name: check.verdict for check in doctor._kernelspecs(installed, "bad", {})}
    assert verdicts["kernelspec bad"] == "failed"
    missing = list(doctor._kernelspecs(installed, "broken", {}))[-1]
    assert (missing.name, missing.verdict) == ("kernelspec broken", "failed")
    assert "install --name" in missing.remedy


def test_a_bad_setting_is_told_by_its_name(
    kernelspec_directory: Path, memory: MemoryEngine, examined: Callable[..., tuple[int, Checks]]
) -> None:
    write_kernelspec(kernelspec_directory, "bad", {"memory": "1x"})
    status, checks = examined("--kernel", "bad")
    assert status == 1
    assert checks["kernelspec bad"]["verdict"] == "failed"
    assert checks["kernelspec bad"]["found"].startswith("kernel.json: memory = '1x'")
    assert list(checks)[-1].startswith("kernelspec ")


def test_the_tried_image_is_looked_at_last(kernelspec_directory: Path) -> None:
    """The others are told of in any case."""
    write_kernelspec(kernelspec_directory, "a", {"image": "tried"})
    write_kernelspec(kernelspec_directory, "b", {"image": "tried"})
    write_kernelspec(kernelspec_directory, "c", {"memory": "1x"})
    images = [spec.image for spec in doctor._images(kernelspecs.installed(), Spec(image="tried"), {})]
    assert images[-1] == "tried"
    assert sorted(images) == ["container-kernels/data", "container-kernels/python", "tried"]


@pytest.mark.parametrize(
    ("printed", "verdict", "said"),
    [
        ('{"python": "3.12.1", "ipykernel": "7.1.0"}', "ok", "Python 3.12.1, ipykernel 7.1.0"),
        ('{"python": "3.12.1", "ipykernel": null}', "failed", "no ipykernel"),
        ("[]", "failed", "no ipykernel"),
        ("Welcome!", "failed", "no ipykernel"),
    ],
)
async def test_an_image_is_what_its_python_says(memory: MemoryEngine, printed: str, verdict: str, said: str) -> None:
    memory.add_image("some/image", {"python3": lambda _: printed})
    check = await doctor._image(memory, Spec(image="some/image"), "failed")
    assert check.verdict == verdict
    assert said in check.found


async def test_an_image_without_python(memory: MemoryEngine) -> None:
    memory.add_image("some/image", ["R"])
    assert (await doctor._image(memory, Spec(image="some/image"), "failed")).verdict == "failed"
    with_argv = Spec(image="some/image", argv=("R", "{connection_file}"))
    assert (await doctor._image(memory, with_argv, "failed")).verdict == "ok"


async def test_an_image_that_is_missing_is_pulled_unless_it_is_ours(memory: MemoryEngine) -> None:
    ours = await doctor._image(memory, Spec(image="container-kernels/data"), "failed")
    assert ours.verdict == "failed"
    assert "build data" in ours.remedy
    theirs = await doctor._image(memory, Spec(image="some/other"), "failed")
    assert theirs.verdict == "warning"
    assert "pulls it" in theirs.found


def test_only_a_failure_keeps_a_kernel_from_starting() -> None:
    fine, doubtful, failed = Check("a", "ok", ""), Check("b", "warning", ""), Check("c", "failed", "")
    assert would_start([fine, doubtful])
    assert not would_start([fine, failed])
