"""`doctor`: each verdict with its cause, and a kernel that really starts and leaves nothing."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from container_kernels import engines, image, kernelspecs, owner
from container_kernels.cli import main
from container_kernels.cli.output import reporting
from container_kernels.doctor import Check, kernels, machine, would_start
from container_kernels.doctor.trial import Trial
from container_kernels.engines.memory import Clock, MemoryEngine
from container_kernels.engines.protocol import LABEL, ContainerRequest, ContainerState, EngineInfo, Progress
from container_kernels.errors import BuildError, EngineUnavailable, ServiceStopped
from container_kernels.kernelspecs import Kernelspec
from container_kernels.spec import Spec

from ..conftest import EngineUnderTest, eventually
from .conftest import Checks


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
    assert checks["engine in use"]["facts"] == {"engine": engine.name, "isolation": "container", "instead_of": ""}
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


@pytest.mark.apple
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
    check = kernels.check_workdir(Spec())
    assert (check.verdict, check.remedy) == ("failed", "Change to another.")


@pytest.mark.apple
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


@pytest.mark.apple
async def test_what_a_provisioner_leaves_is_removed(engine: EngineUnderTest) -> None:
    """Only of the kernel that was tried, and only this process's."""
    used = engines.ENGINES[engine.name]
    spec = Spec()
    kernelspec = Kernelspec("mine", Path("/nowhere"), "Mine", "python", {})
    trial = Trial(kernelspec, used, {}, spec.startup_timeout)
    label, value = engine.label.split("=")

    async def leave(kernel_id: str, belongs_to: str) -> str:
        name = f"container-kernels-test-{uuid.uuid4().hex[:12]}"
        labels = {LABEL: "test", label: value, f"{LABEL}.kernel": kernel_id, f"{LABEL}.owner": belongs_to}
        await used.run(
            ContainerRequest(
                name=name, image=spec.image, command=("sleep", "120"), cpus=1, memory=256 << 20, pids=20, labels=labels
            )
        )
        return name

    ours = await owner.this_process()
    await leave(trial.kernel_id, ours)
    others = [await leave("another", ours), await leave(trial.kernel_id, "1:0:another-host")]
    await trial.stop(AsyncKernelManager(kernel_name="container-python"))
    assert sorted(engine.containers()) == sorted(others)
    for name in others:
        await used.remove(name)


async def test_a_container_that_is_still_being_removed_is_waited_for(
    memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal may return while another, such as a container's own, is under way."""
    trial = Trial(Kernelspec("mine", Path("/nowhere"), "Mine", "python", {}), memory, {}, 60)
    labels = {LABEL: "1", f"{LABEL}.kernel": trial.kernel_id, f"{LABEL}.owner": await owner.this_process()}
    await memory.run(
        ContainerRequest(
            name="slow", image="an/image", command=("python3",), cpus=1, memory=1 << 30, pids=20, labels=labels
        )
    )
    looks = 0
    inspect = memory.inspect

    async def remove(name: str) -> None:
        pass

    async def inspect_thrice(name: str) -> ContainerState | None:
        nonlocal looks
        looks += 1
        if looks == 3:
            memory.end(name)
        return await inspect(name)

    monkeypatch.setattr(memory, "remove", remove)
    monkeypatch.setattr(memory, "inspect", inspect_thrice)
    await trial.stop(AsyncKernelManager(kernel_name="container-python"))
    assert memory.containers == {}


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
        (["memory", "second"], "second", ["warning", "failed"]),
    ],
)
async def test_an_engine_fails_where_it_is_needed(
    second: MemoryEngine, stopped: list[str], named: str | None, verdicts: list[str]
) -> None:
    for name in stopped:
        engine = engines.ENGINES[name]
        assert isinstance(engine, MemoryEngine)
        engine.stopped = "it is switched off"
    checks = await machine.check_engines(named)
    assert [check.verdict for check in checks] == verdicts
    assert all((check.detail == "it is switched off") == (check.verdict != "ok") for check in checks)


class Unsuited(MemoryEngine):
    """An engine for other machines than this."""

    def unsuited(self) -> str:
        return "It needs a helicopter."


class Stoppable(MemoryEngine):
    """An engine with a service that does not run until it is started."""

    runs = False

    async def probe(self) -> EngineInfo:
        if not self.runs:
            raise ServiceStopped("stoppable: its service does not run.", hint="Start it: `wake up`.", detail="asleep")
        return replace(await super().probe(), engine="stoppable")

    async def start(self, progress: Progress) -> None:
        await super().start(progress)
        progress("Waking it up.")
        self.runs = True


async def test_an_engine_that_is_not_for_this_machine_alarms_nobody(
    memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Unsuited()
    monkeypatch.setitem(engines.ENGINES, "other", other)
    other.stopped = "there is none"
    checks = {check.name: check for check in await machine.check_engines(None)}
    assert would_start(checks.values())
    assert (checks["other"].verdict, checks["other"].detail) == ("skipped", "")
    assert checks["other"].found == "not for this machine. It needs a helicopter."
    named = {check.name: check for check in await machine.check_engines("other")}
    assert (named["other"].verdict, named["other"].detail) == ("failed", "there is none")


def test_people_read_why_it_is_skipped(
    memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Unsuited()
    other.stopped = "there is none"
    monkeypatch.setitem(engines.ENGINES, "other", other)
    main(["doctor", "--kernel", "none-by-this-name"])
    assert "skipped   other: not for this machine. It needs a helicopter.\n" in capsys.readouterr().out


async def test_an_engine_that_works_where_it_should_not_is_told_of(
    memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.ENGINES, "other", Unsuited())
    _, check = await machine.check_engines(None)
    assert check.verdict == "ok"
    assert check.found.endswith("Used only where it is named: It needs a helicopter.")
    _, named = await machine.check_engines("other")
    assert "helicopter" not in named.found


async def test_it_is_no_engine_for_kernels_that_name_none(
    memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.ENGINES, "other", Unsuited())
    memory.stopped = "it is switched off"
    first, _ = await machine.check_engines(None)
    assert first.verdict == "failed"


@pytest.fixture
def stoppable(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> Stoppable:
    """An engine of more preference than the other, which gives each container a virtual machine."""
    engine = Stoppable(isolation="vm")
    for name in ("memory", "stoppable"):
        monkeypatch.delitem(engines.ENGINES, name, raising=False)
    monkeypatch.setitem(engines.ENGINES, "stoppable", engine)
    monkeypatch.setitem(engines.ENGINES, "memory", memory)
    return engine


async def test_nothing_is_started_unasked(stoppable: Stoppable) -> None:
    check, other = await machine.check_engines(None)
    assert (check.verdict, other.verdict) == ("warning", "ok")
    assert check.found == "its service does not run."
    assert check.remedy.startswith("Start it: `wake up`.")
    assert "`jupyter container-kernels doctor --fix --engine stoppable`" in check.remedy
    assert stoppable.asked == []


@pytest.mark.parametrize("named", [None, "stoppable"])
async def test_what_is_stopped_is_started(
    stoppable: Stoppable, named: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    check, _ = await machine.check_engines(named, reporting)
    assert check.verdict == "ok"
    assert check.found.endswith("its service was started just now")
    assert capsys.readouterr() == ("", "Waking it up.\n")


async def test_what_is_not_wanted_is_not_started(stoppable: Stoppable) -> None:
    check, _ = await machine.check_engines("memory", reporting)
    assert check.verdict == "warning"
    assert stoppable.asked == []


async def test_what_cannot_be_started_says_why(stoppable: Stoppable) -> None:
    stoppable.fail("start", EngineUnavailable("stoppable: could not be started.", hint="Log in.", detail="no session"))
    check, _ = await machine.check_engines("stoppable", reporting)
    assert check == Check("stoppable", "failed", "could not be started.", "Log in.", "no session")


async def test_a_weaker_isolation_than_could_be_is_a_warning(stoppable: Stoppable) -> None:
    _, info = await engines.choose()
    check = machine.engine_in_use(info, None)
    assert check.verdict == "warning"
    assert "stoppable: its service does not run." in check.found
    assert check.facts["instead_of"]
    _, info = await engines.choose("memory")
    assert machine.engine_in_use(info, "memory").verdict == "ok"


def test_the_settings_name_the_engine_as_well(
    stoppable: Stoppable,
    kernelspec_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    examined: Callable[..., tuple[int, Checks]],
) -> None:
    write_kernelspec(kernelspec_directory, "mine", {"image": "an/image", "engine": "stoppable"})
    status, checks = examined("--kernel", "mine")
    assert status == 1
    assert [checks[name]["verdict"] for name in ("stoppable", "memory")] == ["failed", "ok"]


async def test_an_environment_that_is_stronger_than_the_option_is_told(memory: MemoryEngine) -> None:
    info = await memory.probe()
    assert machine.engine_in_use(info, "memory").verdict == "ok"
    assert machine.engine_in_use(info, None).verdict == "ok"
    told = machine.engine_in_use(info, "docker")
    assert told.verdict == "warning"
    assert "CONTAINER_KERNELS_ENGINE" in told.remedy


def test_kernelspecs(kernelspec_directory: Path) -> None:
    write_kernelspec(kernelspec_directory, "good", {"image": "some/image"})
    write_kernelspec(kernelspec_directory, "bad", {"memory": "1x"})
    (kernelspec_directory / "broken").mkdir()
    (kernelspec_directory / "broken" / "kernel.json").write_text("{")
    installed = kernelspecs.installed()
    verdicts = {check.name: check.verdict for check in kernels.check_kernelspecs(installed, "Good", {})}
    assert verdicts["kernelspec good"] == "ok"
    assert verdicts["kernelspec bad"] == "warning"
    assert verdicts["kernelspec container-python"] == "ok"
    assert "kernelspec broken" not in verdicts
    assert "kernelspec python3" not in verdicts
    verdicts = {check.name: check.verdict for check in kernels.check_kernelspecs(installed, "bad", {})}
    assert verdicts["kernelspec bad"] == "failed"
    missing = list(kernels.check_kernelspecs(installed, "broken", {}))[-1]
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
    images = [spec.image for spec in kernels.images(kernelspecs.installed(), Spec(image="tried"), {})]
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
    check = await kernels.check_image(memory, Spec(image="some/image"), "failed")
    assert check.verdict == verdict
    assert said in check.found


async def test_an_image_without_python(memory: MemoryEngine) -> None:
    memory.add_image("some/image", ["R"])
    assert (await kernels.check_image(memory, Spec(image="some/image"), "failed")).verdict == "failed"
    with_argv = Spec(image="some/image", argv=("R", "{connection_file}"))
    assert (await kernels.check_image(memory, with_argv, "failed")).verdict == "ok"


async def test_an_image_that_is_missing_is_pulled_unless_it_is_ours(memory: MemoryEngine) -> None:
    ours = await kernels.check_image(memory, Spec(image="container-kernels/data"), "failed")
    assert ours.verdict == "failed"
    assert "build data" in ours.remedy
    theirs = await kernels.check_image(memory, Spec(image="some/other"), "failed")
    assert theirs.verdict == "warning"
    assert "pulls it" in theirs.found


async def test_an_engine_that_fails_at_an_image_fails_for_all(memory: MemoryEngine) -> None:
    memory.add_image("some/image")
    memory.fail("output", EngineUnavailable("memory: has no kernel for machines.", hint="Install one."))
    check = await kernels.check_image(memory, Spec(image="some/image"), "warning")
    assert (check.verdict, check.remedy) == ("failed", "Install one.")


@pytest.fixture
def builds(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tags that were built: in memory."""
    built = []

    async def build(engine: MemoryEngine, recipe: image.Recipe, *, report: image.Report) -> None:
        report.doing(f"Building {recipe.tag}")
        if "data" in recipe.tag:
            raise BuildError("It could not be built.", detail="no network")
        built.append(recipe.tag)
        engine.add_image(recipe.tag, {"python3": lambda _: '{"python": "3.12.1", "ipykernel": "7.1.0"}'})

    monkeypatch.setattr(image, "build", build)
    return built


async def test_an_image_of_ours_is_built_where_that_is_asked_for(
    memory: MemoryEngine, builds: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ours = Spec(image="container-kernels/python")
    assert (await kernels.check_image(memory, ours, "failed")).verdict == "failed"
    assert builds == []
    check = await kernels.check_image(memory, ours, "failed", reporting)
    assert (check.verdict, builds) == ("ok", [ours.image])
    assert check.found.endswith("built just now")
    assert capsys.readouterr().err == "Building container-kernels/python\n"
    assert (await kernels.check_image(memory, Spec(image="some/other"), "failed", reporting)).verdict == "warning"
    assert builds == [ours.image]


async def test_an_image_that_cannot_be_built_says_why(memory: MemoryEngine, builds: list[str]) -> None:
    check = await kernels.check_image(memory, Spec(image="container-kernels/data"), "warning", reporting)
    assert (check.verdict, check.found, check.detail) == ("warning", "It could not be built.", "no network")


def test_only_a_failure_keeps_a_kernel_from_starting() -> None:
    fine, doubtful, failed = Check("a", "ok", ""), Check("b", "warning", ""), Check("c", "failed", "")
    assert would_start([fine, doubtful, Check("d", "skipped", "")])
    assert not would_start([fine, failed])
