"""Images: pulled, loaded, built, named."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import uuid
from pathlib import Path
from typing import Any

import pytest

from .conftest import IMAGE, fails, listed, ok
from .stand_in.faults import StandIn
from .stand_in.grammar import VERSIONS
from .stand_in.under import HOST, OTHER, normal

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture
def reference() -> str:
    """One that nobody has."""
    return f"example.org/stand-in/{uuid.uuid4().hex}:1"


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("python", "registry.example.org/library/python:latest"),
        ("python:3.12", "registry.example.org/library/python:3.12"),
        ("some/one", "registry.example.org/some/one:latest"),
        ("localhost/one", "localhost/one:latest"),
        ("host:5000/one", "host:5000/one:latest"),
        ("other.example.org/a/b@sha256:00", "other.example.org/a/b@sha256:00"),
    ],
)
def test_a_reference_is_shown_in_full(short: str, full: str) -> None:
    assert normal(short) == full


@pytest.mark.parametrize("verb", ["run", "create", "image pull"])
def test_what_nobody_has(stand_in: StandIn, reference: str, verb: str) -> None:
    said = fails(stand_in, *verb.split(), reference)
    path = reference.removeprefix("example.org/").removesuffix(":1")
    assert said == f"HTTP request to https://example.org/v2/{path}/manifests/1 failed with response: 404 Not Found"
    assert "401 Unauthorized" in fails(stand_in, *verb.split(), f"no-{uuid.uuid4().hex}"), "Docker's does not say"
    stand_in.fault(registry="503 Service Unavailable")
    assert fails(stand_in, *verb.split(), reference).endswith("503 Service Unavailable")


def test_a_run_pulls_by_itself(stand_in: StandIn, reference: str) -> None:
    stand_in.registry(reference, IMAGE)
    assert fails(stand_in, "image", "inspect", reference) == f"image not found: {reference}"
    assert ok(stand_in, "run", "--rm", reference, "echo", "hello") == "hello\n"
    ok(stand_in, "image", "inspect", reference)


def test_pulled_named_and_taken_away(stand_in: StandIn, reference: str) -> None:
    stand_in.registry(reference, IMAGE)
    ok(stand_in, "image", "pull", "--progress", "none", reference)
    other = reference.replace(":1", ":2")
    ok(stand_in, "image", "tag", reference, other)
    shown = ok(stand_in, "image", "list", "--quiet").split()
    assert {reference, other} <= set(shown)
    assert ok(stand_in, "image", "delete", other) == f"{other}\n"
    assert fails(stand_in, "image", "delete", other).startswith("failed to delete one or more images")
    assert fails(stand_in, "image", "delete", IMAGE, status=70), "that is not ours"
    stand_in.destroy()
    gone = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False)
    assert gone.returncode == 1


# Layouts


class Layout:
    """An OCI layout in a tar, of one image with one layer."""

    def __init__(self, name: str | None, key: str = "org.opencontainers.image.ref.name") -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            add(archive, "hello", str(name).encode())  # no other test has, or removes, the same image
        digest = hashlib.sha256(layer.getvalue()).hexdigest()
        config = {"architecture": HOST, "os": "linux", "config": {"Cmd": ["/hello"], "Labels": {"a": "b"}}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}  # fmt: skip
        manifest = {"schemaVersion": 2, "config": self.blob(config), "layers": [self.blob(layer.getvalue())]}
        platforms = [{**self.blob(manifest), "platform": {"os": "linux", "architecture": HOST}}]
        missing = {"digest": f"sha256:{'0' * 64}", "size": 1, "platform": {"os": "linux", "architecture": OTHER}}
        entry = self.blob({"schemaVersion": 2, "manifests": [missing, *platforms]})
        self.index = {"schemaVersion": 2, "manifests": [entry | ({"annotations": {key: name}} if name else {})]}

    def blob(self, content: Any) -> dict[str, Any]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": "x"}

    def write(self, path: Path, **more: bytes) -> str:
        with tarfile.open(path, "w") as archive:
            for name, content in {**self.files, "index.json": json.dumps(self.index).encode(), **more}.items():
                add(archive, name, content)
        return str(path)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", ["org.opencontainers.image.ref.name", "io.containerd.image.name"])
def test_loaded_from_a_layout(stand_in: StandIn, version: str, key: str, reference: str, tmp_path: Path) -> None:
    path = Layout(reference, key).write(tmp_path / "image.tar")
    said = ok(stand_in, "image", "load", "-i", path)
    assert said == (f"Loaded images:\n{reference}\n" if version == "0.12.3" else f"{reference}\n")
    (found,) = json.loads(ok(stand_in, "image", "inspect", reference))
    assert found["variants"][0]["config"]["config"] == {"Cmd": ["/hello"], "Labels": {"a": "b"}}
    ok(stand_in, "create", "--name", "ab", reference)
    assert listed(stand_in, "-a")["ab"]["configuration"]["initProcess"]["executable"] == "/hello"


def test_what_is_no_layout(stand_in: StandIn, reference: str, tmp_path: Path) -> None:
    """What `docker save` writes is none."""
    archive = tmp_path / "saved.tar"
    subprocess.run(["docker", "save", "-o", str(archive), IMAGE], check=True)
    assert "index.json" in fails(stand_in, "image", "load", "-i", str(archive))
    assert fails(stand_in, "image", "load", "-i", str(tmp_path / "missing")).startswith("failed to load")
    (tmp_path / "text").write_text("text" * 1000)
    assert fails(stand_in, "image", "load", "-i", str(tmp_path / "text")).startswith("failed to load")


def test_a_layout_that_is_not_what_it_says(stand_in: StandIn, reference: str, tmp_path: Path) -> None:
    layout = Layout(reference)
    name = next(name for name, content in layout.files.items() if b"rootfs" in content)
    spoiled = layout.write(tmp_path / "spoiled.tar", **{name: layout.files[name].replace(b"hello", b"hullo")})
    assert "digest mismatch" in fails(stand_in, "image", "load", "-i", spoiled)
    outside = layout.write(tmp_path / "outside.tar", **{"../outside": b""})
    assert "rejected" in fails(stand_in, "image", "load", "-i", outside)


# Builds


def test_built(stand_in: StandIn, reference: str, tmp_path: Path) -> None:
    """By a machine that goes on running, and is listed among the others."""
    (tmp_path / "Recipe").write_text(f"FROM {IMAGE}\nLABEL only={reference}\nARG WORD\nENV WORD=$WORD\n")
    other = reference.replace(":1", ":2")
    done = stand_in.run(
        "build", "--progress", "plain", "-f", str(tmp_path / "Recipe"), "-t", reference, "-t", other, "--build-arg", "WORD=hello",
        "--label", "of=me", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Step" in done.stderr
    assert done.stdout == f"Successfully built {reference}\nSuccessfully built {other}\n"
    assert ok(stand_in, "run", "--rm", reference, "printenv", "WORD") == "hello\n"
    (found,) = json.loads(ok(stand_in, "image", "inspect", other))
    assert found["variants"][0]["config"]["config"]["Labels"]["of"] == "me"
    assert list(listed(stand_in)) == ["buildkit"]
    assert json.loads(ok(stand_in, "builder", "status", "--format", "json"))[0]["id"] == "buildkit"
    ok(stand_in, "builder", "stop")
    assert listed(stand_in, "-a") == {}


@pytest.mark.parametrize(("version", "status"), [("0.12.3", 3), ("1.0.0", 4)])
def test_an_images_own_signal_counts_since_1_0(stand_in: StandIn, reference: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL only={reference}\nSTOPSIGNAL SIGUSR1\n")
    ok(stand_in, "build", "-t", reference, str(tmp_path))
    code = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(4))\nprint('ready', flush=True)\nwhile True: signal.pause()\n"
    )
    process = stand_in.start("run", "--name", "ab", reference, "python3", "-c", code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    ok(stand_in, "stop", "ab")
    assert process.wait(20) == status


def test_a_build_that_fails(stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo to no avail; exit 3\n")
    done = stand_in.run("build", "-q", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "\nError: failed to build: " in done.stderr
    assert "context dir" in fails(stand_in, "build", str(tmp_path / "missing"))
    (tmp_path / "Dockerfile").unlink()
    assert "not found" in fails(stand_in, "build", str(tmp_path))
    assert fails(stand_in, "build", "--network", "none", str(tmp_path), status=64).startswith("Unknown option")
