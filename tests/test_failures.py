"""Bad input and faults: each gives one clear error, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from container_kernels import errors, kernel_container, ports
from container_kernels.engines.docker import Docker
from container_kernels.engines.protocol import ContainerRequest
from container_kernels.spec import Spec

from .conftest import EngineUnderTest, RunningKernel


@pytest.fixture
def kernelspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a kernelspec with the given settings, and gives its name."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    def write(**config: Any) -> str:
        folder = tmp_path / "jupyter" / "kernels" / "a-test"
        folder.mkdir(parents=True, exist_ok=True)
        provisioner = {"provisioner_name": "container-kernels", "config": config}
        spec = {
            "argv": ["python"],
            "display_name": "A test",
            "language": "python",
            "metadata": {"kernel_provisioner": provisioner},
        }
        (folder / "kernel.json").write_text(json.dumps(spec))
        return "a-test"

    return write


async def failure(kernel_name: str, **kwargs: Any) -> errors.ContainerKernelError:
    """The error of a start that must fail; nothing of it is alive."""
    manager = AsyncKernelManager(kernel_name=kernel_name)
    with pytest.raises(errors.ContainerKernelError) as raised:
        await manager.start_kernel(**kwargs)
    assert not await manager.is_alive()
    return raised.value


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"memroy": "2g"}, ["memroy", "memory"]),
        ({"memory": "lots"}, ["memory", "lots", "512m"]),
        ({"cpus": -1}, ["cpus", "-1"]),
        ({"workdir": "home"}, ["workdir", "home", "notebook"]),
        ({"mounts": [{"sorce": "/data"}]}, ["mounts", "source"]),
        ({"network": "none"}, ["network", "not available yet"]),
        ({"engine": "dokcer"}, ["dokcer", "docker", "podman"]),
    ],
)
async def test_wrong_settings(
    config: dict[str, Any],
    words: list[str],
    kernelspec: Callable[..., str],
    notebook_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CONTAINER_KERNELS_ENGINE", raising=False)
    error = await failure(kernelspec(**config))
    assert isinstance(error, errors.SpecError)
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize(
    ("containerfile", "words"),
    [
        (
            "RUN cd /opt/venv/bin && rm -f python3 && echo x >python3 && chmod 755 python3",
            ["ended before", "--version"],
        ),
        ("RUN rm /usr/bin/python3", ["has no python3", "jupyter container-kernels build"]),
        ("ENV PATH=/usr/bin:/bin", ["cannot import ipykernel", "jupyter container-kernels build"]),
        ("RUN /opt/venv/bin/pip uninstall --yes -q ipykernel", ["cannot import ipykernel"]),
        (
            "ENV PYTHONPATH=/old\nRUN mkdir -p /old/ipykernel && echo '__version__ = \"5.1.0\"' > /old/ipykernel/__init__.py",
            ["5.1.0", "6.0"],
        ),
    ],
    ids=["no-program", "no-python", "no-ipykernel-on-path", "no-ipykernel", "old-ipykernel"],
)
async def test_images_that_cannot_serve(
    containerfile: str,
    words: list[str],
    engine: EngineUnderTest,
    notebook_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = "ENV PATH=/usr/bin:/bin\n" if words[0].startswith("has no") else ""
    image = build(engine, tmp_path, f"FROM container-kernels/python\n{base}{containerfile}\n")
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", image)
    try:
        error = await failure("container-python")
    finally:
        engine.remove_image(image)
    assert isinstance(error, (errors.ImageError, errors.EngineError))
    for word in words:
        assert word in str(error)


async def test_an_image_for_another_processor(
    engine: EngineUnderTest, notebook_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python3").write_bytes(b"a program of another machine")
    (tmp_path / "python3").chmod(0o755)
    image = build(engine, tmp_path, "FROM scratch\nCOPY python3 /bin/python3\nENV PATH=/bin\n")
    saved, changed = tmp_path / "saved.tar", tmp_path / "changed.tar"
    engine.run("save", "--output", str(saved), image)
    engine.remove_image(image)
    change_architecture(saved, changed)
    loaded = engine.run("load", "--input", str(changed)).split()[-1]
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", loaded)
    try:
        error = await failure("container-python")
    finally:
        engine.remove_image(loaded)
    assert isinstance(error, errors.ImageError)
    assert "made for another processor: s390x" in error.message


def change_architecture(saved: Path, changed: Path) -> None:
    """The same image in a tar, made for a mainframe."""
    with tarfile.open(saved) as old, tarfile.open(changed, "w") as new:
        files = {member.name: content.read() for member in old if (content := old.extractfile(member))}
        manifest = json.loads(files["manifest.json"])
        config = json.loads(files[manifest[0]["Config"]])
        text = json.dumps({**config, "architecture": "s390x"}).encode()
        del files[manifest[0]["Config"]]
        manifest[0]["Config"] = f"{hashlib.sha256(text).hexdigest()}.json"
        files[manifest[0]["Config"]] = text
        files["manifest.json"] = json.dumps(manifest).encode()
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))


def build(engine: EngineUnderTest, tmp_path: Path, containerfile: str) -> str:
    image = f"container-kernels-test/{uuid.uuid4().hex}"
    (tmp_path / "Containerfile").write_text(containerfile)
    engine.run("build", "--quiet", "--tag", image, "--file", str(tmp_path / "Containerfile"), str(tmp_path))
    return image


async def test_a_missing_image_of_ours_says_how_to_build_it(
    engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", "container-kernels/absent")
    error = await failure("container-python")
    assert isinstance(error, errors.ImageError)
    assert "jupyter container-kernels build" in error.hint


async def test_a_missing_image_of_a_registry_is_pulled(
    engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", "localhost:1/nobody/has-this:1")
    with caplog.at_level(logging.INFO):
        error = await failure("container-python")
    assert "could not pull" in error.message
    assert "Pulling the image localhost:1/nobody/has-this:1" in caplog.text


@pytest.mark.parametrize(
    ("directory", "words"),
    [("/", "part of the system"), ("~", "home directory"), ("gone", "does not exist")],
)
async def test_directories_that_are_not_mounted(
    directory: str, words: str, engine: EngineUnderTest, notebook_directory: Path
) -> None:
    cwd = {"~": str(Path.home()), "gone": str(notebook_directory / "gone")}.get(directory, directory)
    error = await failure("container-python", cwd=cwd)
    assert isinstance(error, errors.WorkdirError)
    assert words in str(error)
    assert error.hint


async def test_ports_taken_between_choice_and_use(
    start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first choice fails in the engine, for real; the second succeeds."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        choose, taken = ports.Ports.choose, held.getsockname()[1]
        choices: list[ports.Ports] = []

        def choose_badly_first(wanted: Any = {}) -> ports.Ports:  # noqa: B006
            chosen = choose(wanted)
            if not choices:
                chosen = ports.Ports({**chosen.kernel, "hb_port": taken}, chosen.supervisor)
            choices.append(chosen)
            return chosen

        monkeypatch.setattr(ports.Ports, "choose", choose_badly_first)
        kernel: RunningKernel = await start_kernel()
        assert len(choices) == 2
        assert await kernel.run("print('alive')") == "alive"


async def test_a_port_that_was_asked_for_and_is_taken(
    engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(kernel_container, "SETTLING", 0.5)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        manager = AsyncKernelManager(kernel_name="container-python", shell_port=held.getsockname()[1])
        with pytest.raises(errors.PortTaken, match="in use by another program"):
            await manager.start_kernel()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ('["no-such-kernel", "{connection_file}"]', "no-such-kernel: No such file"),
        ('["sh", "-c", "exit 7"]', "exited with code 7"),
    ],
)
async def test_an_argv_that_does_not_start(
    argv: str, words: str, engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_ARGV", argv)
    error = await failure("container-python")
    assert isinstance(error, errors.KernelStartError)
    assert words in str(error)


async def test_an_argv_kernel(start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_ARGV", '["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]')
    kernel = await start_kernel()
    assert await kernel.run("print('by its argv')") == "by its argv"
    await kernel.manager.restart_kernel(now=True)
    await kernel.client.wait_for_ready(timeout=30)
    assert await kernel.run("print('again')") == "again"


async def test_noise_and_a_missing_preload_do_no_harm(
    start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, engine: EngineUnderTest
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_PRELOAD", "no_such_module,json.tool")
    kernel = await start_kernel()
    noise = "import os, sys\nfor line in range(200): os.write(2, b'noise ' * 200 + b'\\n')"
    await kernel.run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {noise!r}], stderr=None)")
    assert await kernel.run("print('alive')") == "alive"
    log = await kernel.provisioner._container.engine.logs(engine.the_container(), tail=10_000)
    assert "preload: no_such_module is left out" in log


async def test_an_unreadable_directory(
    engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access  # root may read anything, so it must be told that it may not
    monkeypatch.setattr(os, "access", lambda path, *rest: path != str(notebook_directory) and access(path, *rest))
    error = await failure("container-python")
    assert isinstance(error, errors.WorkdirError)
    assert "may not be read" in error.message


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            "docker: Error response from daemon: mkdir /var/lib/docker/overlay2/x: no space left on device.",
            errors.EngineError,
            "no space left",
        ),
        ("exec /usr/bin/python3: exec format error", errors.ImageError, "another processor"),
    ],
)
def test_what_cannot_be_provoked_here(said: str, kind: type[errors.ContainerKernelError], words: str) -> None:
    request = ContainerRequest(name="x", image="an/image", command=("python3",), cpus=1, memory=1 << 30, pids=100)
    error = Docker()._run_error(request, said)
    assert isinstance(error, kind)
    assert re.search(words, str(error))
    assert error.hint
    assert said in error.detail


async def test_a_deleted_directory(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """Also the process's own: Podman's commands would not start in it."""
    notebook_directory.rmdir()
    error = await failure("container-python")
    assert isinstance(error, errors.WorkdirError)
    assert "does not exist any more" in error.message
    kept = notebook_directory.parent / "kept"
    kept.mkdir()
    manager = AsyncKernelManager(kernel_name="container-python")
    await manager.start_kernel(cwd=str(kept))
    await manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("patience", [0.0, 60.0])
async def test_a_supervisor_that_does_not_greet(
    patience: float, engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another container is tried, once, while there is time; its ports are others."""
    launch, tries = kernel_container.KernelContainer.launch, []

    async def deaf_at_first(*args: Any, **kwargs: Any) -> kernel_container.KernelContainer:
        tries.append(kwargs["deadline"])
        if len(tries) == 1:
            raise errors.GuestError("It did not greet.")
        return await launch(*args, **kwargs)

    monkeypatch.setattr(kernel_container.KernelContainer, "launch", deaf_at_first)
    if not patience:
        monkeypatch.setattr(
            "container_kernels.provisioner.read_spec", lambda *_: Spec(startup_timeout=0, engine=engine.name)
        )
        assert isinstance(await failure("container-python"), errors.GuestError)
        assert len(tries) == 1
        return
    manager = AsyncKernelManager(kernel_name="container-python")
    await manager.start_kernel()
    await manager.shutdown_kernel(now=True)
    assert len(tries) == 2
