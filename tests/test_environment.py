"""Which variables a kernel gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from container_kernels.environment import NEVER, asked_for, kernel_environment, matches, time_zone
from container_kernels.spec import Spec

HOST = {
    "HOME": "/home/ada", "PATH": "/usr/bin", "VIRTUAL_ENV": "/venv", "JPY_PARENT_PID": "7", "JUPYTER_TOKEN": "t",
    "AWS_SECRET_ACCESS_KEY": "k", "AWS_REGION": "eu", "GITHUB_TOKEN": "g", "LANG": "de_AT.UTF-8", "LC_TIME": "C", "TZ": "Europe/Vienna",
    "JPY_SESSION_NAME": "a.ipynb", "LD_PRELOAD": "/x.so", "PYTHONPATH": "/p", "XDG_RUNTIME_DIR": "/run", "CONTAINER_KERNELS_CPUS": "1",
}  # fmt: skip
NOWHERE = Path("/there/is/no/localtime")


def made(
    spec: Spec | None = None,
    *,
    host: dict[str, str] | None = None,
    asked: dict[str, str] | None = None,
    kernelspec: dict[str, str] | None = None,
) -> dict[str, str]:
    return kernel_environment(
        spec or Spec(),
        host=HOST if host is None else host,
        asked=asked or {},
        kernelspec=kernelspec or {},
        localtime=NOWHERE,
    )


def test_of_the_hosts_only_language_time_and_session_pass() -> None:
    assert made() == {
        "LANG": "de_AT.UTF-8",
        "LC_TIME": "C",
        "TZ": "Europe/Vienna",
        "JPY_SESSION_NAME": "a.ipynb",
    }


def test_names_and_globs_pass_more() -> None:
    environment = made(Spec(env_passthrough=("AWS_*", "GITHUB_TOKEN", "NOT_THERE")))
    assert environment["AWS_SECRET_ACCESS_KEY"] == "k"
    assert environment["AWS_REGION"] == "eu"
    assert environment["GITHUB_TOKEN"] == "g"
    assert "NOT_THERE" not in environment


def test_a_glob_passes_nothing_of_what_the_container_has_itself() -> None:
    environment = made(Spec(env_passthrough=("*",)))
    assert [name for name in environment if matches(name, NEVER)] == []
    assert environment["AWS_REGION"] == "eu"


def test_what_the_client_asks_for_passes_but_not_what_the_container_has_itself() -> None:
    asked = {"ASKED": "1", "HOME": "/root", "PATH": "/x", "JUPYTERHUB_API_TOKEN": "t", "CONTAINER_KERNELS_GUEST": "{}"}
    assert made(host={}, asked=asked) == {"ASKED": "1"}


def test_the_later_win() -> None:
    host = {"LANG": "host", "A": "host"}
    spec = Spec(env_passthrough=("A",), env={"D": "setting"})
    everyone = {"A": "asked", "B": "asked", "C": "asked", "D": "asked"}
    environment = made(spec, host=host, asked=everyone, kernelspec={"B": "kernelspec", "D": "kernelspec"})
    assert environment == {"LANG": "host", "A": "asked", "B": "kernelspec", "C": "asked", "D": "setting"}


def test_a_kernelspec_and_a_setting_may_say_what_they_like() -> None:
    environment = made(Spec(env={"HOME": "/data"}), host={}, kernelspec={"PATH": "/opt/bin"})
    assert environment == {"HOME": "/data", "PATH": "/opt/bin"}


def test_what_was_asked_for_is_what_differs_from_every_baseline() -> None:
    then, now = {"A": "1", "B": "1"}, {"A": "2", "C": "1"}
    whole = {"A": "2", "B": "1", "C": "1", "D": "new", "E": ""}
    assert asked_for(whole, then, now) == {"D": "new", "E": ""}
    assert asked_for({"A": "3"}, then, now) == {"A": "3"}
    assert asked_for({}, then) == {}


@pytest.mark.parametrize(
    ("target", "zone"),
    [
        ("zoneinfo/Europe/Vienna", "Europe/Vienna"),
        ("zoneinfo/UTC", "UTC"),
        ("elsewhere/Vienna", None),
    ],
)
def test_the_time_zone_is_where_the_link_leads(tmp_path: Path, target: str, zone: str | None) -> None:
    file = tmp_path / target
    file.parent.mkdir(parents=True)
    file.touch()
    localtime = tmp_path / "localtime"
    localtime.symlink_to(file)
    assert time_zone(localtime) == zone


def test_no_time_zone_of_a_plain_file_or_of_none(tmp_path: Path) -> None:
    plain = tmp_path / "zoneinfo" / "localtime"
    plain.parent.mkdir()
    plain.touch()
    assert time_zone(plain) is None
    assert time_zone(tmp_path / "gone") is None


def test_the_hosts_own_zone_is_taken_where_no_variable_says_it(tmp_path: Path) -> None:
    (tmp_path / "zoneinfo").mkdir()
    (tmp_path / "zoneinfo" / "UTC").touch()
    localtime = tmp_path / "localtime"
    localtime.symlink_to(tmp_path / "zoneinfo" / "UTC")
    got = kernel_environment(Spec(), host={}, asked={}, kernelspec={}, localtime=localtime)
    assert got == {"TZ": "UTC"}
