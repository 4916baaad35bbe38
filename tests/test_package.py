"""What `pip install` brings."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERNELSPECS = ("container-data", "container-python")


def run(*argv: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the sdist, so that the sdist is known to hold all that a wheel needs."""
    made = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", made)
    (sdist,) = made.glob("*.tar.gz")
    run("tar", "--extract", "--file", sdist, "--directory", made)
    source = made / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", made, cwd=source)
    (built,) = made.glob("*.whl")
    return built


def test_the_wheel_has_everything(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "provisioner" / "container_kernels"
    for file in package.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert f"container_kernels/{file.relative_to(package)}" in names
    for name in KERNELSPECS:
        data = f"{wheel.name.removesuffix('-py3-none-any.whl')}.data/data/share/jupyter/kernels/{name}"
        for file in (ROOT / "kernelspecs" / name).iterdir():
            assert f"{data}/{file.name}" in names


def test_an_installation_is_all_that_jupyter_needs(wheel: Path, tmp_path: Path) -> None:
    """The kernelspecs are listed, and the provisioner is found: nothing else was to be done."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    listed = json.loads(run(environment / "bin" / "jupyter", "kernelspec", "list", "--json", cwd=tmp_path))[
        "kernelspecs"
    ]
    assert set(KERNELSPECS) <= set(listed)
    find = "from jupyter_client.provisioning import KernelProvisionerFactory as F; print(sorted(F.instance().get_provisioner_entries()))"
    assert "container-kernels" in run(python, "-c", find, cwd=tmp_path)
    assert "doctor" in run(environment / "bin" / "jupyter", "container-kernels", "--help", cwd=tmp_path)
