"""Images: those of the engine underneath, under the names that Apple's references have."""

from __future__ import annotations

from typing import Any

from . import under
from .errors import AppleError
from .world import World


def fetched(world: World, reference: str, architecture: str | None = None) -> dict[str, Any]:
    """The image, pulled if it is not here for the architecture that is asked for."""
    found = under.image(world, reference)
    if found is None or (architecture and architecture != under.architecture(world, reference)):
        return pull(world, reference, architecture)
    return found


def pull(world: World, reference: str, architecture: str | None = None) -> dict[str, Any]:
    """From the registry that `registry.json` is. What it lacks is answered as registries do: some do not even say "not found"."""
    full = under.normal(reference)
    known = {under.normal(name): local for name, local in world.read("registry.json").items()}
    if full not in known or (architecture and architecture != under.architecture(world, reference)):
        domain, _, rest = full.partition("/")
        path, _, tag = rest.rpartition(":")
        status = world.faults().get("registry", "401 Unauthorized" if domain == under.REGISTRY else "404 Not Found")
        raise AppleError(
            "notFound" if status.startswith("404") else "unknown",
            f"HTTP request to https://{domain}/v2/{path}/manifests/{tag} failed with response: {status}",
        )
    tag_image(world, known[full], full)
    found = under.image(world, reference)
    assert found is not None
    return found


def tag_image(world: World, source: str, target: str) -> None:
    image = under.image(world, source)
    if image is None:
        raise AppleError("notFound", f"image not found: {source}")
    name = under.names(world, target)[0]
    under.must(world, "tag", image["name"], name)
    made(world, name)


def made(world: World, name: str) -> None:
    """The state's end takes this name away."""
    world.change("images.json", lambda content: content | {name: True})
