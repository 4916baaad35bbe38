"""What a person does about an engine's trouble, where more than one face tells it."""

from __future__ import annotations

# How a person says it to an engine whose command and verbs are not its name and Docker's.
_SAID = {
    ("apple", "pull"): "container image pull",
    ("apple", "load"): "container image load --input",
    ("apple", "run"): "container run",
}


def said(engine: str, verb: str) -> str:
    """The words of a command line that `pull`s or `load`s an image, or `run`s a container."""
    return _SAID.get((engine, verb), f"{engine} {verb}")


def missing_image(image: str, engine: str) -> str:
    if image.startswith("container-kernels/"):
        name = image.removeprefix("container-kernels/")
        return f"Build it: `jupyter container-kernels build {name} --engine {engine}`."
    return f"Pull it (`{said(engine, 'pull')} {image}`), import it, or build it with `jupyter container-kernels build --tag {image}`."
