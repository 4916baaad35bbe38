"""What an engine's command leaves when it fails or is ended: with a `docker` on a path of the test's own, that keeps its containers in a
directory and knows no other words than those that it should be told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from container_kernels.engines import aftermath, docker
from container_kernels.engines.docker import Docker
from container_kernels.errors import CommandTimeout, EngineError

from ..conftest import eventually_async
from .test_arguments import REQUEST

DISK_FULL = (
    "docker: Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable to start "
    "container process: error during container init: error setting cgroup config for procHooks process: write "
    "/var/lib/docker/containers/0123/config.v2.json: no space left on device: unknown.\n"
    "See 'docker run --help'.\n"
)

# `late` is how long a container takes to be there, in a daemon that goes on when its client is ended.
SCRIPT = """#!/bin/sh
cd '{directory}'
echo "$*" >> asked
case "$*" in
  "run "*" --name "*)
    rest="${{*#* --name }}"
    name="${{rest%% *}}"
    if [ '{late}' ]; then (sleep '{late}'; : > "containers/$name") > /dev/null 2>&1 &
    else : > "containers/$name"
    fi
    if [ '{hangs}' ]; then exec sleep 600; fi
    cat said >&2
    exit 125;;
  "rm --force --volumes "*)
    if [ -e "containers/$4" ]; then rm "containers/$4"; echo "$4"
    else echo "Error: No such container: $4" >&2; exit 1
    fi;;
  *) echo "unexpected: $*" >&2; exit 64;;
esac
"""


@dataclass(frozen=True)
class Fake:
    directory: Path

    def containers(self) -> list[str]:
        return [path.name for path in (self.directory / "containers").iterdir()]

    def asked(self) -> list[str]:
        path = self.directory / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def put(self, *, says: str = "", hangs: bool = False, late: str = "") -> None:
        (self.directory / "said").write_text(says)
        script = SCRIPT.format(directory=self.directory, hangs="yes" if hangs else "", late=late)
        (self.directory / "bin" / "docker").write_text(script)
        (self.directory / "bin" / "docker").chmod(0o755)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    for name in ("bin", "containers"):
        (tmp_path / name).mkdir()
    for tool in ("cat", "rm", "sleep", "env", "ps"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Fake(tmp_path)


async def test_a_full_disk_leaves_no_container_and_is_named(fake: Fake) -> None:
    fake.put(says=DISK_FULL)
    with pytest.raises(EngineError) as raised:
        await Docker().run(REQUEST)
    assert raised.value.message == "docker has no space left on its disk."
    assert "docker system df" in raised.value.hint
    assert raised.value.detail == DISK_FULL.strip()
    ran, removed = fake.asked()
    assert ran.startswith("run --detach ")
    assert removed == f"rm --force --volumes {REQUEST.name}"
    assert fake.containers() == []


@pytest.mark.parametrize("late", ["", "0.6"], ids=["at once", "late"])
async def test_a_run_that_passes_its_time_leaves_no_container(fake: Fake, late: str) -> None:
    fake.put(hangs=True, late=late)
    with pytest.raises(CommandTimeout, match=r"^`docker run` did not end within 0\.4 seconds"):
        await Docker().run(replace(REQUEST, engine_args=("--env", "PASSWORD=secret")), timeout=0.4)
    assert fake.asked()[-1] == f"rm --force --volumes {REQUEST.name}"
    assert fake.containers() == []


async def test_the_time_of_a_run_is_the_callers(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "LATE", (0.0,))
    fake.put(hangs=True)
    with pytest.raises(CommandTimeout, match=r"within 0\.3 seconds"):
        await asyncio.wait_for(Docker().run(REQUEST, timeout=0.3), 20)


async def test_a_command_s_output_that_passes_its_time_leaves_no_container(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "RUNNING", 0.4)
    fake.put(hangs=True)
    with pytest.raises(CommandTimeout):
        await Docker().output("image", ["python3", "--version"])
    assert "--label io.container-kernels=output --label io.container-kernels.owner=" in fake.asked()[0]
    assert fake.asked()[-1].startswith("rm --force --volumes container-kernels-")
    assert fake.containers() == []


async def test_a_command_s_output_that_nobody_waits_for_leaves_no_container(fake: Fake) -> None:
    fake.put(hangs=True)
    task = asyncio.create_task(Docker().output("image", ["python3", "--version"]))
    assert await eventually_async(fake.containers, bool)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.containers() == []


async def test_what_keeps_it_from_being_removed_does_not_hide_the_timeout(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Docker, name: str) -> bool:
        raise EngineError("the engine is stuck")

    monkeypatch.setattr(Docker, "_removed", fails)
    monkeypatch.setattr(aftermath, "LATE", (0.0, 0.01))
    fake.put(hangs=True)
    with pytest.raises(CommandTimeout):
        await Docker().run(REQUEST, timeout=0.3)
