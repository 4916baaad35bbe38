"""An OCI layout, the only archive that `container image load` takes, around the tar file of a root file system.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

CHUNK = 1 << 20

# Where the name is looked for by one program or another; Apple's looks for each of them.
NAMES = ("com.apple.containerization.image.name", "io.containerd.image.name", "org.opencontainers.image.ref.name")


def write_layout(root: Path, archive: Path, *, name: str, architecture: str) -> None:
    """`archive` is an image of that full name with one layer, `root`: an uncompressed tar file. `architecture` is Go's word."""
    with tarfile.open(archive, "w") as tar:
        layer = _add_file(tar, root)
        config = _add_json(
            tar,
            "application/vnd.oci.image.config.v1+json",
            {
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
                "architecture": architecture,
                "os": "linux",
                "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
            },
        )
        media = "application/vnd.oci.image.manifest.v1+json"
        content = {"schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer]}
        manifest = _add_json(tar, media, content)
        manifest["platform"] = {"os": "linux", "architecture": architecture}
        manifest["annotations"] = dict.fromkeys(NAMES, name)
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())


def _add_file(tar: tarfile.TarFile, path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
        file.seek(0)
        member = tarfile.TarInfo(f"blobs/sha256/{digest.hexdigest()}")
        member.size = path.stat().st_size
        tar.addfile(member, file)
    return _descriptor("application/vnd.oci.image.layer.v1.tar", digest.hexdigest(), member.size)


def _add_json(tar: tarfile.TarFile, media: str, content: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    _add(tar, f"blobs/sha256/{digest}", data)
    return _descriptor(media, digest, len(data))


def _descriptor(media: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": size}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
