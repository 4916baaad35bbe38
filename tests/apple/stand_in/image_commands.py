"""image pull, inspect, list, tag, delete and load."""

from __future__ import annotations

import json
import sys
from typing import Any

from . import images, oci, shapes, under
from .configuration import progress
from .errors import AppleError, Failed, NotPlayed
from .grammar import Parsed
from .showing import emit, only_json
from .world import World


def pull(world: World, parsed: Parsed) -> int:
    """What is here is not asked for again, as long as the registry has nothing else."""
    progress(parsed, "[1/2] Fetching image", "[2/2] Unpacking image")
    reference = parsed.words[0]
    known = {under.normal(name) for name in world.read("registry.json")}
    if under.normal(reference) in known or under.image(world, reference) is None:
        images.pull(world, reference)
    print(under.normal(reference))
    return 0


def inspect(world: World, parsed: Parsed) -> int:
    found = [(name, under.image(world, name)) for name in parsed.words]
    missing = [name for name, image in found if image is None]
    if missing and world.release >= (1, 0):
        raise AppleError("notFound", f"image not found: {missing[0]}")
    shown = [shapes.image(world, image, listed=False) for _, image in found if image]
    if not missing:
        return emit(world, shown, pretty=True)
    if shown:
        emit(world, shown)
    for name in missing:
        print(f"{name}: Image not found", file=sys.stderr)
    return 1


def list_images(world: World, parsed: Parsed) -> int:
    only_json(parsed)
    found = [image for name in _references(world) if (image := under.image(world, name))]
    if parsed.one("--format") == "json":
        return emit(world, [shapes.image(world, image, listed=True) for image in found])
    if parsed.flag("--verbose"):
        raise NotPlayed("image list --verbose")
    for image in found:
        print(image["reference"])
    return 0


def _references(world: World) -> list[str]:
    """Those of the engine, as Apple would write them."""
    printed = under.must(world, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    names = {name for name in printed if "<none>" not in name}
    if world.engine == "podman":
        names = {name.removeprefix("localhost/") for name in names}
    return sorted(under.normal(name) for name in names)


def tag(world: World, parsed: Parsed) -> int:
    source, target = parsed.words
    images.tag_image(world, source, target)
    print(under.normal(target))
    return 0


def delete(world: World, parsed: Parsed) -> int:
    if parsed.flag("--all"):
        raise NotPlayed("image delete --all")
    missing: list[str] = []
    for name in parsed.words:
        image = under.image(world, name)
        if image is None:
            missing.append(name)
            continue
        mine = world.read("images.json")
        if image["name"] not in mine:
            raise NotPlayed(f"deleting an image that was not made here: {name}")
        under.must(world, "rmi", image["name"])
        print(under.normal(name))
    if missing and not parsed.flag("--force"):
        raise Failed(f"failed to delete one or more images: {json.dumps(missing)}")
    return 0


def load(world: World, parsed: Parsed) -> int:
    if not parsed.flag("--input"):
        raise NotPlayed("image load from standard input")
    loaded: list[Any] = oci.load(world, parsed.one("--input"))
    if world.release < (1, 0):
        print("Loaded images:")
    for reference in loaded:
        print(reference)
    return 0
