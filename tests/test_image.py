"""Images: what is decided without an engine, and one built on each real one."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pytest

from container_kernels import engines, image
from container_kernels.cli import build as build_command
from container_kernels.engines.protocol import Engine, EngineInfo, ImageInfo, Progress
from container_kernels.errors import BuildError, EngineError, ImageError, SpecError
from container_kernels.image import Report, base, debian, wheels
from container_kernels.image.cache import KEPT, Cache
from container_kernels.image.interpreter import Interpreter, interpreter, read
from container_kernels.image.recipe import digest
from container_kernels.image.report import silent

from .conftest import EngineUnderTest, eventually

SILENT = Report(silent)

PYTHON_311 = {
    "abiflags": "",
    "libc": ["glibc", "2.36"],
    "markers": {
        "implementation_name": "cpython",
        "platform_machine": "x86_64",
        "python_version": "3.11",
        "sys_platform": "linux",
    },
}


# -- Recipes


INPUTS: dict[str, Any] = {
    "recipe": image.Recipe("a", ("ipykernel", "numpy")),
    "base": "sha256:1",
    "python": None,
    "containerfile": "FROM x",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe", image.Recipe("a", ("ipykernel",))),
        ("base", "sha256:2"),
        ("python", "3.13"),
        ("containerfile", "FROM y"),
    ],
)
def test_the_digest_changes_with_each_input(name: str, value: Any) -> None:
    assert digest(**INPUTS) == digest(**INPUTS)
    assert digest(**{**INPUTS, name: value}) != digest(**INPUTS)


def test_the_digest_does_not_know_the_tag() -> None:
    assert digest(**{**INPUTS, "recipe": image.Recipe("b", ("ipykernel", "numpy"))}) == digest(**INPUTS)


@pytest.mark.parametrize(
    "package",
    [
        "--index-url=http://example.invalid",
        "-e .",
        "-r other.txt",
        "numpy --hash=sha256:0",
        "numpy\n--index-url=http://example.invalid",
        "numpy @ http://example.invalid/numpy.whl",
        "numpy @ file:///numpy.whl",
        "./numpy.whl",
        "",
    ],
)
def test_what_is_no_package_is_refused(package: str) -> None:
    with pytest.raises(SpecError, match="--package"):
        image.recipe(packages=[package])


def test_a_requirements_file_adds_its_packages(tmp_path: Path) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("# of the course\npolars>=1  # frames\n\nduckdb ; python_version >= '3.10'\n")
    known = image.RECIPES["python"].requirements
    made = image.recipe("python", packages=["six"], requirements=wanted, tag="course:2026")
    assert made.tag == "course:2026"
    assert made.requirements == (*known, "six", "polars>=1", 'duckdb; python_version >= "3.10"')


def test_a_line_that_is_refused_is_named(tmp_path: Path) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("polars\n--extra-index-url http://example.invalid\n")
    with pytest.raises(SpecError, match=r"requirements\.txt, line 2"):
        image.recipe(requirements=wanted)


def test_a_missing_requirements_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.txt"):
        image.recipe(requirements=tmp_path / "absent.txt")


@pytest.mark.parametrize("tag", ["--help", "", "two words", "-f", "a\nb"])
def test_a_tag_that_is_no_reference_is_refused(tag: str) -> None:
    with pytest.raises(SpecError, match="--tag"):
        image.recipe(tag=tag)


@pytest.mark.parametrize("python", ["3", "2.7", "3.13.1", "3.13-slim@sha256:0", "../x"])
def test_a_python_that_is_no_version_is_refused(python: str) -> None:
    with pytest.raises(SpecError, match="--python"):
        image.python_version(python)


# -- The Python of a base, and the wheels that fit it


def answer(**changes: Any) -> str:
    facts = {**PYTHON_311, **changes}
    return json.dumps({**facts, "markers": {**PYTHON_311["markers"], **changes.get("markers", {})}})  # type: ignore[dict-item]


def test_wheels_of_the_newest_glibc_come_first() -> None:
    python = read(answer())
    platforms = list(python.platforms())
    assert (python.python, python.abi) == ("3.11", "cp311")
    assert platforms[0] == "manylinux_2_36_x86_64"
    assert platforms.index("manylinux_2_17_x86_64") < platforms.index("manylinux2014_x86_64")
    assert platforms[-1] == "manylinux1_x86_64"


def test_musl_takes_wheels_of_its_own() -> None:
    assert list(read(answer(libc=["", ""])).platforms()) == ["musllinux_1_2_x86_64", "musllinux_1_1_x86_64"]


def test_a_free_threaded_python_takes_wheels_of_its_own() -> None:
    assert read(answer(abiflags="t", markers={"python_version": "3.13"})).abi == "cp313t"


@pytest.mark.parametrize(
    "said",
    [
        answer(markers={"implementation_name": "pypy"}),
        answer(markers={"python_version": "3.8"}),
        answer(markers={"python_version": "3.11 --dest /"}),
        answer(markers={"platform_machine": "x86 64"}),
        answer(abiflags="../"),
        "Segmentation fault",
        "[]",
        "",
    ],
)
async def test_a_base_without_a_fitting_python_is_refused(said: str) -> None:
    fake = FakeEngine(answers={"alpha": said})
    with pytest.raises(ImageError, match="alpha has no Python that can run a kernel"):
        await interpreter(cast("Engine", fake), "alpha")


async def test_a_base_without_python_is_refused() -> None:
    with pytest.raises(ImageError, match="alpha has no Python that runs"):
        await interpreter(cast("Engine", FakeEngine()), "alpha")


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts wheels into the only place where pip may look."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))

    def put(name: str, *requires: str, tag: str = "py3-none-any") -> None:
        about = f"{name}-1.dist-info"
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        with zipfile.ZipFile(directory / f"{name}-1-{tag}.whl", "w") as wheel:
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{needs}")
            wheel.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
            wheel.writestr(f"{about}/RECORD", "")

    return put


async def download(python: Interpreter, tmp_path: Path, *requirements: str) -> set[str]:
    await wheels.download(requirements, python, tmp_path / "wheels", silent)
    return {wheel.name.split("-")[0] for wheel in (tmp_path / "wheels").glob("*.whl")}


async def test_markers_are_those_of_the_image(tmp_path: Path, local_index: Callable[..., None]) -> None:
    python = read(answer(libc=["", ""], markers={"python_version": "3.9", "platform_machine": "riscv64"}))
    local_index("course", "old; python_version < '3.10'", "here; platform_machine != 'riscv64'")
    local_index("old", tag="cp39-cp39-musllinux_1_1_riscv64")
    assert await download(python, tmp_path, "course") == {"course", "old"}


async def test_a_package_without_a_wheel_is_named(tmp_path: Path, local_index: Callable[..., None]) -> None:
    local_index("course", "elsewhere>=1")
    local_index("elsewhere", tag="cp311-cp311-win_amd64")
    with pytest.raises(BuildError, match=r"no wheel of 'elsewhere>=1' for Python 3\.11 on x86_64"):
        await download(read(answer()), tmp_path, "course")


# -- The base


@dataclass
class FakeEngine:
    """Has images, and pulls those of its registry; it can do nothing else, so nothing else can be asked of it."""

    images: set[str] = field(default_factory=set)
    registry: set[str] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)
    imported: list[Path] = field(default_factory=list)
    name: str = "fake"

    async def probe(self) -> EngineInfo:
        return EngineInfo("fake", "1", "container", False, False, "x86_64", 1, "")

    async def image(self, reference: str) -> ImageInfo | None:
        if reference not in self.images:
            return None
        return ImageInfo(reference, f"sha256:{reference}", "amd64", datetime.now(timezone.utc), 1, {})

    async def pull(self, reference: str, progress: Progress) -> None:
        if reference not in self.registry:
            raise ImageError("no such host")
        self.images.add(reference)

    async def output(self, image: str, command: Sequence[str]) -> str:
        if image not in self.answers:
            raise EngineError("executable file not found")
        return self.answers[image]

    async def import_tar(self, archive: Path, *, tag: str) -> None:
        self.imported.append(archive)
        self.images.add(tag)
        self.answers[tag] = answer()


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A machine that can make a base; the list gets a line for each that it makes."""
    made: list[str] = []

    async def archive(cache: Cache, report: Report) -> Path:
        made.append("base")
        return tmp_path / "base.tar"

    monkeypatch.setattr(debian, "refusal", lambda architecture: None)
    monkeypatch.setattr(debian, "archive", archive)
    return made


async def choose(engine: FakeEngine, tmp_path: Path, python: str | None = None) -> str:
    return (await base.default(cast("Engine", engine), python, Cache(tmp_path / "cache"), SILENT)).reference


@pytest.mark.parametrize("python", [None, "3.12"])
async def test_a_present_slim_image_is_the_base(python: str | None, packages: list[str], tmp_path: Path) -> None:
    slim = f"python:{python or base.PYTHON}-slim"
    assert await choose(FakeEngine(images={slim, debian.TAG}), tmp_path, python) == slim
    assert packages == []


async def test_a_present_base_of_packages_comes_before_a_pull(packages: list[str], tmp_path: Path) -> None:
    assert (
        await choose(FakeEngine(images={debian.TAG}, registry={f"python:{base.PYTHON}-slim"}), tmp_path) == debian.TAG
    )


async def test_a_present_base_of_another_python_does_not_do(packages: list[str], tmp_path: Path) -> None:
    engine = FakeEngine(images={debian.TAG}, registry={"python:3.12-slim"}, answers={debian.TAG: answer()})
    assert await choose(engine, tmp_path, "3.12") == "python:3.12-slim"
    assert await choose(engine, tmp_path, "3.11") == debian.TAG


async def test_a_slim_image_is_pulled(packages: list[str], tmp_path: Path) -> None:
    slim = f"python:{base.PYTHON}-slim"
    assert await choose(FakeEngine(registry={slim}), tmp_path) == slim
    assert packages == []


async def test_without_a_registry_the_base_is_made_of_packages(packages: list[str], tmp_path: Path) -> None:
    engine = FakeEngine()
    assert await choose(engine, tmp_path) == debian.TAG
    assert (packages, engine.imported) == (["base"], [tmp_path / "base.tar"])


async def test_a_base_of_packages_with_another_python_is_refused(packages: list[str], tmp_path: Path) -> None:
    engine = FakeEngine()
    with pytest.raises(ImageError, match=r"no image with Python 3\.13"):
        await choose(engine, tmp_path, "3.13")
    with pytest.raises(ImageError, match=r"fake pull python:3\.13-slim"):
        await choose(engine, tmp_path, "3.13")
    assert packages == ["base"], "it was made twice"


async def test_without_registry_and_packages_the_way_out_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(debian, "refusal", lambda architecture: f"this is not Debian on {architecture}")
    with pytest.raises(ImageError) as refused:
        await choose(FakeEngine(), tmp_path)
    assert f"fake pull python:{base.PYTHON}-slim" in refused.value.hint
    assert "no such host" in refused.value.detail
    assert "this is not Debian on x86_64" in refused.value.detail


async def test_a_registry_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, packages: list[str], tmp_path: Path
) -> None:
    class Silent(FakeEngine):
        async def pull(self, reference: str, progress: Progress) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(base, "PULLING", 0.01)
    assert await choose(Silent(), tmp_path) == debian.TAG


async def test_a_named_base_is_pulled_only_if_it_is_absent() -> None:
    engine = FakeEngine(images={"mine"}, registry={"theirs"})
    for reference in ("mine", "theirs"):
        assert (await base.named(cast("Engine", engine), reference, SILENT)).reference == reference
    with pytest.raises(ImageError):
        await base.named(cast("Engine", engine), "nobodys", SILENT)


# -- What is kept for the next build


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def fail() -> None:
        with cache.scratch() as scratch:
            (scratch / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(cache.directory.iterdir()) == []


def test_an_entry_is_replaced(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for content in ("old", "new"):
        with cache.scratch() as scratch:
            (scratch / "context").mkdir()
            (scratch / "context" / "file").write_text(content)
            cache.keep(scratch / "context", "context-1")
    found = cache.find("context-1")
    assert found is not None
    assert (found / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [found]


def test_an_old_entry_is_gone(tmp_path: Path) -> None:
    entry = tmp_path / "context-1"
    entry.mkdir()
    os.utime(entry, (0, time.time() - KEPT - 1))
    assert Cache(tmp_path).find("context-1") is None
    assert not entry.exists()


@pytest.fixture
def debootstrap(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands for debootstrap; the list gets what it packs."""
    packed: list[Path] = []

    async def make(codename: str, scratch: Path, report: Report) -> Path:
        packed.append(scratch / "root.tar")
        packed[-1].write_text(f"the root of {codename}")
        return packed[-1]

    monkeypatch.setattr(debian, "_release", lambda: {"ID": "debian", "VERSION_CODENAME": "sid"})
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(debian, "_make", make)
    return packed


async def test_a_base_is_made_once_for_all_engines(debootstrap: list[Path], tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first, second = [await debian.archive(cache, SILENT) for _ in range(2)]
    assert first == second
    assert first.read_text() == "the root of sid"
    assert len(debootstrap) == 1


async def test_a_damaged_base_is_made_again(debootstrap: list[Path], tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (await debian.archive(cache, SILENT)).write_text("the roo")
    assert (await debian.archive(cache, SILENT)).read_text() == "the root of sid"
    assert len(debootstrap) == 2


# -- The command


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    build_command.configure(parser)
    return parser.parse_args(words)


async def test_one_tag_cannot_name_two_images() -> None:
    with pytest.raises(SpecError, match="--tag names one image"):
        await build_command.run(parsed("python", "data", "--tag", "x"))


async def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(SpecError, match="'rust'"):
        await build_command.run(parsed("rust"))


# -- Real engines


def removes(engine: str, tag: str) -> bool:
    """Podman refuses for a moment after `run --rm`: the container is out of its database, and still named by the image."""
    done = subprocess.run([engine, "image", "rm", tag], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


async def test_an_image_is_built_once_and_serves_any_user(
    engine: EngineUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = f"container-kernels-test/{uuid.uuid4().hex}"
    real = engines.ENGINES[engine.name]
    try:
        results = []
        for _ in range(2):
            assert await build_command.run(parsed("--engine", engine.name, "--tag", tag, "--json")) == 0
            results += json.loads(capsys.readouterr().out)
        assert [result["status"] for result in results] == ["built", "unchanged"]
        assert {(result["engine"], result["tag"]) for result in results} == {(engine.name, tag)}
        code = "import os, ipykernel, debugpy, sys; print(os.access(sys.prefix, os.W_OK), sys.prefix)"
        ran = engine.run("run", "--rm", "--network=none", "--user=1234:1234", "--entrypoint=python3", tag, "-c", code)
        assert ran.split() == ["True", "/opt/venv"]
        assert (await interpreter(real, tag)).python == results[0]["python"]
    finally:
        assert eventually(lambda: removes(engine.name, tag), bool)


async def test_a_user_installs_into_the_image(
    engine: EngineUnderTest, tmp_path: Path, local_index: Callable[..., None]
) -> None:
    local_index("course")
    script = "pip install --no-index --find-links /index --no-cache-dir course && pip uninstall --yes course"
    mount = f"{tmp_path / 'index'}:/index:ro"
    words = ["run", "--rm", "--network=none", "--user=1234:1234", "--volume", mount, "--entrypoint=sh"]
    assert "Successfully installed course-1" in engine.run(*words, "container-kernels/python", "-c", script)
