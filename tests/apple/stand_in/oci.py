"""`image load`: an OCI layout in a tar, and nothing else. The engine underneath may not know that form, and gets its own."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from typing import IO, Any

from . import images, under
from .errors import AppleError, Failed, NotPlayed
from .world import World

# Which annotation has the image's name.
_NAMES = ("com.apple.containerization.image.name", "io.containerd.image.name", "org.opencontainers.image.ref.name")
Json = dict[str, Any]


def load(world: World, path: str) -> list[str]:
    """The references of what is here now."""
    try:
        with tarfile.open(path) as archive:
            layout = _Layout(archive)
            loaded = [layout.named(entry) for entry in layout.entries()]
            for name, manifest in loaded:
                _hand_over(world, layout, under.names(world, name)[0], manifest)
    except (OSError, tarfile.TarError) as error:
        raise Failed(f"failed to load image archive {path}: {error}") from None
    return [under.normal(name) for name, _ in loaded]


class _Layout:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self.archive = archive
        self.members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
        for name in self.members:
            if name.startswith("/") or ".." in name.split("/"):
                raise Failed(f"archive contains rejected members: {name}")

    def entries(self) -> list[Json]:
        if "index.json" not in self.members or "oci-layout" not in self.members:
            raise AppleError("notFound", "no such file: index.json")
        with self._open("index.json") as file:
            entries: list[Json] = json.load(file)["manifests"]
        return entries

    def named(self, entry: Json) -> tuple[str, Json]:
        """The image's name, and its manifest for this machine."""
        annotations = entry.get("annotations", {})
        name = next((annotations[key] for key in _NAMES if key in annotations), None)
        if name is None:
            raise NotPlayed("an image without a name")
        manifest = self._json(entry)
        if "manifests" in manifest:
            fitting = [item for item in manifest["manifests"] if item["platform"]["architecture"] == under.HOST]
            if not fitting:
                raise NotPlayed("an image for other machines only")
            manifest = self._json(fitting[0])
        return name, manifest

    def _json(self, descriptor: Json) -> Json:
        found: Json = json.loads(self.blob(descriptor))
        return found

    def blob(self, descriptor: Json) -> bytes:
        """Its content is what its name says."""
        algorithm, _, digest = descriptor["digest"].partition(":")
        with self._open(f"blobs/{algorithm}/{digest}") as file:
            content = file.read()
        if hashlib.new(algorithm, content).hexdigest() != digest or len(content) != descriptor["size"]:
            raise AppleError("internalError", f"digest mismatch for {descriptor['digest']}")
        return content

    def _open(self, name: str) -> IO[bytes]:
        file = self.archive.extractfile(self.members[name]) if name in self.members else None
        if file is None:
            raise AppleError("notFound", f"content with digest {name.rpartition('/')[2]}")
        return file


def _hand_over(world: World, layout: _Layout, name: str, manifest: Json) -> None:
    """As `docker save` would have written it, since 20.10 reads only that."""
    with tempfile.NamedTemporaryFile(dir=world.directory, suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            layers = [f"{index}/layer.tar" for index in range(len(manifest["layers"]))]
            content = [{"Config": "config.json", "RepoTags": [name], "Layers": layers}]
            _add(archive, "manifest.json", json.dumps(content).encode())
            _add(archive, "config.json", layout.blob(manifest["config"]))
            for path, descriptor in zip(layers, manifest["layers"], strict=True):
                _add(archive, path, layout.blob(descriptor))
        file.flush()
        under.must(world, "load", "--input", file.name)
    images.made(world, name)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
