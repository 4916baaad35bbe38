"""The edges: Jupyter's configuration, the process's environment, and the provisioner that reads both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import KernelProvisionerBase
from traitlets.config import Config

from container_kernels import config
from container_kernels.config import SettingTraits, host_environment, read_spec
from container_kernels.errors import SpecError
from container_kernels.provisioner import ContainerProvisioner
from container_kernels.spec import ENV_PREFIX, FIELDS


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(ENV_PREFIX + name.upper(), raising=False)


def provisioner(kernel_json: dict[str, Any] | None = None, **configured: Any) -> ContainerProvisioner:
    """As KernelProvisionerFactory makes it."""
    return ContainerProvisioner(
        kernel_id="0123",
        kernel_spec=KernelSpec(),
        parent=KernelManager(config=Config({"ContainerProvisioner": configured})),
        **(kernel_json or {}),
    )


def test_there_is_a_trait_for_each_setting() -> None:
    traits = ContainerProvisioner.class_traits(config=True)
    for name, setting in FIELDS.items():
        assert traits[name].default_value is None
        assert setting.allowed in (traits[name].help or "")


def test_help_is_there_for_each_setting() -> None:
    text = ContainerProvisioner.class_get_help()
    assert all(f"--ContainerProvisioner.{name}=" in text for name in FIELDS)


def test_what_is_not_set_is_not_told() -> None:
    assert SettingTraits().trait_settings() == {}
    configured = SettingTraits(config=Config({"SettingTraits": {"memory": "4g", "argv": []}}))
    assert configured.trait_settings() == {"memory": "4g", "argv": []}


def test_configuration_reaches_the_spec() -> None:
    spec = provisioner(cpus=1, mounts=[{"source": "/data"}])._read_spec()
    assert spec.cpus == 1.0
    assert spec.mounts[0].target == "/data"


def test_the_order_of_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    made = provisioner({"cpus": 1, "memory": "1g", "pids": 100}, memory="2g", pids=200)
    monkeypatch.setenv("CONTAINER_KERNELS_PIDS", "300")
    spec = made._read_spec()
    assert (spec.cpus, spec.memory, spec.pids) == (1.0, 2 << 30, 300)


def test_an_unknown_key_of_kernel_json_is_refused() -> None:
    with pytest.raises(SpecError, match="'memmory' is not a setting") as raised:
        provisioner({"memmory": "2g"})
    assert raised.value.hint.startswith("Did you mean memory? Allowed in ")


def test_a_variable_that_is_mistyped_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_MEMROY", "a secret")
    config._warn.cache_clear()
    read_spec({}, {})
    assert read_spec({}, {}).memory == 2 << 30
    (record,) = [record for record in caplog.records if record.name == "container_kernels.config"]
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "CONTAINER_KERNELS_MEMROY is not a setting of container-kernels. Did you mean CONTAINER_KERNELS_MEMORY?"
    )


def test_a_bad_value_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"kernel\.json: cpus = 'many'"):
        provisioner({"cpus": "many"})
    with pytest.raises(SpecError, match=r"c\.ContainerProvisioner\.cpus = 0"):
        provisioner(cpus=0)
    monkeypatch.setenv("CONTAINER_KERNELS_CPUS", "many")
    with pytest.raises(SpecError, match="environment: CONTAINER_KERNELS_CPUS = 'many'"):
        provisioner()


def test_settings_do_not_hide_what_jupyter_sets() -> None:
    assert not set(FIELDS) & set(KernelProvisionerBase.class_trait_names())
    made = provisioner({"image": "a"})
    assert (made.kernel_id, made._read_spec().image) == ("0123", "a")


def test_the_environment_is_read_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_CPUS", "3")
    assert read_spec({}, {}).cpus == 3.0
    copied = host_environment()
    assert copied["CONTAINER_KERNELS_CPUS"] == "3"
    copied["CONTAINER_KERNELS_CPUS"] = "4"
    assert read_spec({}, {}).cpus == 3.0


def test_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert config.home() == "/home/ada"


@pytest.mark.parametrize("mask", [0o077, 0o022, 0])
def test_the_umask_is_read_and_not_set(mask: int) -> None:
    before = os.umask(mask)
    try:
        read = config.umask()
    finally:
        left = os.umask(before)
    assert left == mask
    assert read == (mask if Path("/proc/self/status").exists() else 0o022)


def test_a_system_that_does_not_tell_the_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: Any, **keywords: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert config.umask() == 0o022
