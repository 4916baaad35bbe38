"""Images with Apple's `container`: pulled, built, loaded, imported, and unpacked before a kernel needs them."""

from __future__ import annotations

import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_kernels.engines import ENGINES
from container_kernels.errors import BuildError, ImageError

from ..apple.stand_in.faults import StandIn
from ..conftest import RELEASES, said_by_hand

IMAGE = "container-kernels/python"

pytestmark = pytest.mark.parametrize("stand_in", RELEASES, indirect=True)


@pytest.fixture
def tag(stand_in: StandIn) -> Iterator[str]:
    """The name of an image, which is gone afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    said_by_hand("image", "delete", name)


def unpacked(stand_in: StandIn, tag: str) -> bool:
    """Whether a container of the image was created, and none is left."""
    created = [argv for argv in stand_in.recorded() if argv[0] == "create"]
    return [argv[-2:] for argv in created] == [[tag, "true"]] and not stand_in.containers().keys() - {"buildkit"}


async def test_pull(stand_in: StandIn, tag: str) -> None:
    stand_in.registry(tag, IMAGE)
    told: list[str] = []
    await ENGINES["apple"].pull(tag, told.append)
    assert await ENGINES["apple"].image(tag) is not None
    assert any("Unpacking" in line for line in told)
    assert unpacked(stand_in, tag)


async def test_pull_of_what_is_not_there(stand_in: StandIn) -> None:
    with pytest.raises(ImageError, match="could not pull") as raised:
        await ENGINES["apple"].pull("example.org/there-is-none", lambda _: None)
    assert raised.value.detail


async def test_build(stand_in: StandIn, tag: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {IMAGE}\nARG WORD\nRUN echo $WORD > /word\n")
    engine = ENGINES["apple"]
    await engine.build(tmp_path, tag=tag, arguments={"WORD": "built"}, labels={"a": "b"}, progress=lambda _: None)
    info = await engine.image(tag)
    assert info is not None
    assert info.labels["a"] == "b"
    assert unpacked(stand_in, tag)
    assert await engine.output(tag, ["cat", "/word"]) == "built\n"


async def test_build_of_what_cannot_be_built(stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {IMAGE}\nRUN false\n")
    with pytest.raises(BuildError, match="could not build"):
        await ENGINES["apple"].build(tmp_path, tag="no", arguments={}, labels={}, progress=lambda _: None)


async def test_import_of_a_root_file_system(stand_in: StandIn, tag: str, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hello")
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(tmp_path / "hello", "hello")
    await ENGINES["apple"].import_tar(tmp_path / "root.tar", tag=tag)
    info = await ENGINES["apple"].image(tag)
    assert info is not None
    assert info.size > 0


async def test_load_of_what_is_no_layout(stand_in: StandIn, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "classic.tar", "w") as tar:
        (tmp_path / "manifest.json").write_text("[]")
        tar.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(ImageError, match="could not load") as raised:
        await ENGINES["apple"].load(tmp_path / "classic.tar", lambda _: None)
    assert "oci-archive" in raised.value.hint
