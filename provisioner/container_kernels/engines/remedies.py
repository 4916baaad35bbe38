"""What a person does about an engine's trouble, where more than one face tells it."""

from __future__ import annotations


def missing_image(image: str, engine: str) -> str:
    if image.startswith("container-kernels/"):
        name = image.removeprefix("container-kernels/")
        return f"Build it: `jupyter container-kernels build {name} --engine {engine}`."
    return f"Pull it (`{engine} pull {image}`), import it, or build it with `jupyter container-kernels build --tag {image}`."
