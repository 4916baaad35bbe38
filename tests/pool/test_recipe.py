"""The key has all that is fixed when a container is made, and nothing that a kernel can still set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from container_kernels import kernel_container
from container_kernels.engines.protocol import ContainerRequest, Mount, Port
from container_kernels.pool import recipe as module
from container_kernels.pool.recipe import PLACE, Recipe, guest_digest, place
from container_kernels.spec import Spec
from container_kernels.workdir import Workdir

IMAGE = "sha256:1f"
REQUEST = ContainerRequest(
    name="container-kernels-1",
    image="image",
    command=("python3", "-c", "pass"),
    cpus=2.0,
    memory=1 << 30,
    pids=512,
    user="1:1",
    groups=(5, 6),
    mounts=(Mount("/a", "/b", True), Mount("/c", "/d")),
    ports=(Port(1, 2),),
    environment={"A": "b"},
    labels={"l": "1"},
    engine_args=("--x",),
)
OTHER: dict[str, Any] = {
    "image": "image:2",
    "command": ("python3", "-c", "pass "),
    "cpus": 2.5,
    "memory": 1 << 31,
    "pids": 513,
    "user": None,
    "groups": (5,),
    "mounts": (Mount("/a", "/b"), Mount("/c", "/d")),
    "environment": {"A": "c"},
    "engine_args": ("--x", ""),
}
OF_EACH: dict[str, Any] = {"name": "container-kernels-2", "ports": (Port(3, 2),), "labels": {"l": "2"}}
GUEST = kernel_container.guest_settings(Spec(preload=("numpy",)), Workdir((Mount("/w", "/w"),), "/w"))


def recipe(**changes: Any) -> Recipe:
    given: dict[str, Any] = {
        "engine": "docker",
        "place": {"DOCKER_HOST": "unix:///a", "DOCKER_CONTEXT": "b"},
        "request": REQUEST,
        "settings": GUEST,
        "curve": False,
    }
    return Recipe.of(**{**given, **changes})


def alike(one: Recipe, other: Recipe) -> bool:
    assert (one.key == other.key) == (one.fingerprint(IMAGE) == other.fingerprint(IMAGE))
    return one.key == other.key


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    assert isinstance(value, list)
    return [*value, "x"]


def test_recipes_of_the_same_are_alike() -> None:
    assert alike(recipe(), recipe())
    assert alike(recipe(), recipe(settings=dict(reversed(GUEST.items()))))


@pytest.mark.parametrize("name", [each.name for each in fields(ContainerRequest)])
def test_each_field_of_the_request(name: str) -> None:
    """A field that is new has to be put into OTHER here; into OF_EACH, if containers that differ in it may stand for each other."""
    assert (name in OTHER) != (name in OF_EACH)
    other = recipe(request=replace(REQUEST, **{name: {**OTHER, **OF_EACH}[name]}))
    assert alike(recipe(), other) == (name in OF_EACH)


@pytest.mark.parametrize("name", GUEST)
def test_each_setting_of_the_guest(name: str) -> None:
    other = recipe(settings={**GUEST, name: changed(GUEST[name])})
    assert alike(recipe(), other) == (name == "time_to_live")


def test_a_setting_that_is_new() -> None:
    assert not alike(recipe(), recipe(settings={**GUEST, "new": 1}))


def test_engine_place_and_curve() -> None:
    assert not alike(recipe(), recipe(engine="podman"))
    assert not alike(recipe(), recipe(place={}))
    assert not alike(recipe(), recipe(place={"DOCKER_HOST": "unix:///b", "DOCKER_CONTEXT": "b"}))
    assert not alike(recipe(), recipe(place={"DOCKER_HOST": "b", "DOCKER_CONTEXT": "unix:///a"}))
    assert not alike(recipe(), recipe(curve=True))


def test_another_version_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    old = recipe().key
    monkeypatch.setattr(module, "__version__", "99")
    assert recipe().key != old


def test_another_image_of_the_same_name() -> None:
    assert recipe().fingerprint("sha256:1") != recipe().fingerprint("sha256:2")
    assert recipe().fingerprint("sha256:1") not in (recipe().key, recipe(curve=True).fingerprint("sha256:1"))


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the guest, which the digest is of."""
    copy = tmp_path / "guest"
    shutil.copytree(module.GUEST, copy)
    monkeypatch.setattr(module, "GUEST", copy)
    guest_digest.cache_clear()
    yield copy
    guest_digest.cache_clear()


def test_another_guest(guest: Path) -> None:
    seen = {recipe().key}
    for change in (
        lambda: (guest / "boot.py").write_text("# other"),
        lambda: (guest / "boot.py").rename(guest / "boot2.py"),
        lambda: (guest / "new.py").touch(),
    ):
        change()
        guest_digest.cache_clear()
        seen.add(recipe().key)
    assert len(seen) == 4


def test_what_python_leaves_in_the_guest_is_no_other_guest(guest: Path) -> None:
    before = guest_digest()
    (guest / "__pycache__").mkdir(exist_ok=True)
    (guest / "__pycache__" / "boot.cpython-399.pyc").touch()
    guest_digest.cache_clear()
    assert guest_digest() == before


def test_a_digest_is_of_what_was_there_first(guest: Path) -> None:
    """Files that are replaced under a running process are not the ones that it has imported."""
    before = guest_digest()
    (guest / "boot.py").write_text("# other")
    assert guest_digest() == before


def test_place_is_what_the_command_lines_read() -> None:
    environ = {"PATH": "/bin", "DOCKER_HOST": "ssh://x", "CONTAINERS_CONF": ""}
    assert place(environ) == {"DOCKER_HOST": "ssh://x", "CONTAINERS_CONF": ""}
    assert set(place(dict.fromkeys(PLACE, "1"))) == set(PLACE)


def test_nothing_of_one_container_is_in_it() -> None:
    blank = recipe().request
    assert (blank.name, blank.ports, blank.labels) == ("", (), {})
    assert blank.environment == {"A": "b"}
    assert "time_to_live" not in recipe().settings


def test_it_survives_a_file() -> None:
    for one in (recipe(), recipe(request=replace(REQUEST, user=None, groups=(), mounts=()), place={}, curve=True)):
        again = Recipe.from_json(json.loads(json.dumps(one.to_json())))
        assert again == one
        assert alike(again, one)


def test_paths_that_are_no_unicode_survive() -> None:
    one = recipe(request=replace(REQUEST, mounts=(Mount("/\udcff", "/\udcff"),)))
    assert Recipe.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert not alike(one, recipe(request=replace(REQUEST, mounts=(Mount("/\udcfe", "/\udcfe"),))))


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, {"engine": "docker"}, [{}]])
def test_other_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="Recipe"):
        Recipe.from_json(value)


@pytest.mark.parametrize("name", [each.name for each in fields(Recipe)])
@pytest.mark.parametrize("value", [None, 7, [], {"x": 1}, {1: "x"}, float("nan")])
def test_a_field_of_another_type_is_refused(name: str, value: Any) -> None:
    damaged = {**recipe().to_json(), name: value}
    if (name, value) in (("settings", {"x": 1}), ("sources", [])):
        return
    with pytest.raises(ValueError, match="Recipe"):
        Recipe.from_json(damaged)


@pytest.mark.parametrize("name", [each.name for each in fields(ContainerRequest)])
@pytest.mark.parametrize(
    "value", [True, [7], {"x": 7}, float("inf"), pytest.param(10**400, id="long"), [["a"]], [{"source": "/a"}]]
)
def test_a_field_of_the_request_of_another_type_is_refused(name: str, value: Any) -> None:
    given = recipe().to_json()
    if (name, value) == ("groups", [7]) or (
        isinstance(value, int) and name in ("memory", "pids") and value is not True
    ):
        return
    with pytest.raises(ValueError, match="request"):
        Recipe.from_json({**given, "request": {**given["request"], name: value}})


def test_a_field_too_few_or_too_many_is_refused() -> None:
    given = recipe().to_json()
    for wrong in ({**given, "more": 1}, {name: value for name, value in given.items() if name != "curve"}):
        with pytest.raises(ValueError, match="fields"):
            Recipe.from_json(wrong)
