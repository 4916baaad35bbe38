"""Settings: what each takes, in which order the places win, and what the error says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from container_kernels.engines.protocol import Mount
from container_kernels.errors import SpecError
from container_kernels.quantities import size
from container_kernels.spec import ENV_PREFIX, FIELDS, Spec, mistyped, parse

GIB = 1 << 30

# Of every setting: a value as kernel.json has it, the same as text of the environment, and what becomes of it.
GOOD: dict[str, list[tuple[Any, str, Any]]] = {
    "engine": [("docker", "docker", "docker")],
    "require_vm": [(True, "true", True), (False, "no", False), (True, "1", True), (True, "Yes", True)],
    "autostart": [(True, "true", True), (False, "0", False), ("auto", "Auto", "auto")],
    "image": [
        ("registry.example/a/b:1@sha256:00", "registry.example/a/b:1@sha256:00", "registry.example/a/b:1@sha256:00")
    ],
    "argv": [
        (["ir", "{connection_file}"], "ir,{connection_file}", ("ir", "{connection_file}")),
        (["a, b", ""], '["a, b", ""]', ("a, b", "")),
        ([], "[]", ()),
    ],
    "cpus": [(2, "2", 2.0), (0.5, "0.5", 0.5), (0.01, "0.01", 0.01), (4096, "4096", 4096.0)],
    "memory": [
        ("512m", "512m", 512 << 20),
        ("2g", "2g", 2 * GIB),
        ("2GiB", "2GiB", 2 * GIB),
        ("1.5 GB", "1.5 GB", 3 * GIB // 2),
        (1 << 27, str(1 << 27), 1 << 27),
        ("65536K", "65536K", 64 << 20),
        ("1t", "1t", 1 << 40),
    ],
    "pids": [(16, "16", 16), (512.0, "512", 512), (4_194_304, "4194304", 4_194_304)],
    "workdir": [(name, name, name) for name in ("auto", "root", "notebook", "none")],
    "mounts": [
        ([{"source": "/data"}], '[{"source": "/data"}]', (Mount("/data", "/data"),)),
        (
            [{"source": "~/x", "target": "/x", "read_only": True}, {"source": "/y"}],
            '[{"source": "~/x", "target": "/x", "read_only": true}, {"source": "/y"}]',
            (Mount("~/x", "/x", True), Mount("/y", "/y")),
        ),
        ([], "[]", ()),
    ],
    "env": [({"A": "b=c", "EMPTY": ""}, '{"A": "b=c", "EMPTY": ""}', {"A": "b=c", "EMPTY": ""})],
    "env_passthrough": [(["AWS_*", "B"], "AWS_*, B", ("AWS_*", "B"))],
    "network": [("full", "full", "full")],
    "preload": [(["numpy", "a.b_1"], "numpy,a.b_1", ("numpy", "a.b_1"))],
    "user": [("auto", "auto", "auto"), ("root", "root", "root"), ("12345:54321", "12345:54321", "12345:54321")],
    "startup_timeout": [(1, "1", 1.0), (90.5, "90.5", 90.5), (3600, "3600", 3600.0)],
    "restart": [("keep", "keep", "keep"), ("fresh", "fresh", "fresh")],
    "engine_args": [(["--gpus", "all"], '["--gpus", "all"]', ("--gpus", "all"))],
    "pool_size": [(0, "0", 0), (3.0, "3", 3), (64, "64", 64)],
    "pool_ttl": [(60, "60", 60.0), (86400, "86400", 86400.0)],
    "pool_memory_budget": [("auto", "auto", None), ("4g", "4g", 4 * GIB), (0, "0", 0)],
}

# Of every setting: values that it refuses, as kernel.json has them.
BAD: dict[str, list[Any]] = {
    "engine": ["", " ", 1, None, "a\0b", ["docker"]],
    "require_vm": ["true", 1, 0, None],
    "autostart": ["true", 1, None, "server"],
    "image": ["", "a b", "a\tb", "--privileged", "-x", 1, None, "a\0"],
    "argv": ["ir --x", [1], 5, {"a": 1}, ["a\0b"], None],
    "cpus": [0, -1, 0.001, 5000, True, "2", None, float("nan"), float("inf"), [2]],
    "memory": ["", "63m", 63 << 20, -1, 0, "2x", "2 g b", "g", "1e400", "9" * 400 + "g", True, None, 2.5, float("inf"), "-1g"],
    "pids": [0, 15, 512.5, -1, True, "512", None, float("inf"), float("nan"), 5_000_000],
    "workdir": ["home", "", None, 1, ["auto"]],
    "mounts": ["/data", {"source": "/data"}, ["/data"], [{}], [{"source": "data"}], [{"source": "/a", "target": "b"}], [{"source": "/a", "mode": "ro"}], [{"source": "/a", "read_only": "yes"}], [{"source": 1}], [{"source": "/a\0"}], 5, None],
    "env": [[], "A=b", {"A": 1}, {"": "x"}, {"A=B": "x"}, {"A": "x\0"}, {"A\0": "x"}, {"A": None}, None],
    "env_passthrough": ["AWS_*", [1], {"A": 1}, None],
    "network": ["bridge", "host", None, True],
    "preload": ["numpy", ["num py"], ["1a"], ["a."], [".a"], ["a;b"], [1], [""], {"numpy": 1}, None],
    "user": ["", "1000", "ada", "1000:", ":1000", "-1:0", "1:2:3", 0, None, "1:1\n", "\u0661:1"],
    "startup_timeout": [0, 0.5, 3601, "60", True, None, float("nan"), float("inf")],
    "restart": ["new", "", None, False],
    "engine_args": ["--gpus all", [1], {"--gpus": "all"}, None],
    "pool_size": [-1, 65, 1.5, "1", True, None],
    "pool_ttl": [59, 86401, "60", True, None],
    "pool_memory_budget": [-1, "much", "", None, 1.5, True],
}  # fmt: skip

# Of every setting with text of a form of its own: text that it refuses.
BAD_TEXT: dict[str, list[str]] = {
    "require_vm": ["maybe", "2"],
    "autostart": ["maybe", "2"],
    "argv": ["[1]", "[broken"],
    "cpus": ["two", "0", "inf", "nan", "1,5"],
    "memory": ["much", "1m", "9" * 400],
    "pids": ["many", "15", "100.5", "inf", "nan", "1e400"],
    "mounts": ["/data", "[broken", '{"source": "/data"}', "[1]"],
    "env": ["A=b", "{broken", '["A"]'],
    "preload": ["a b", "[1]"],
    "startup_timeout": ["soon", "0", "inf"],
    "engine_args": ["[1]"],
    "pool_size": ["few", "-1", "1.5"],
    "pool_ttl": ["long", "0"],
    "pool_memory_budget": ["half", "-1"],
    "user": ["ada"],
    "workdir": ["home"],
    "image": ["-x"],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, case, id=f"{name}-{number}") for name, some in table.items() for number, case in enumerate(some)]  # fmt: skip


def test_every_setting_is_tested() -> None:
    assert list(GOOD) == list(BAD) == list(FIELDS)


def test_every_setting_is_a_field_of_the_spec() -> None:
    assert set(FIELDS) == set(Spec.__dataclass_fields__)
    assert all(setting.allowed and setting.help.endswith(".") for setting in FIELDS.values())


def test_the_defaults_suit_a_laptop() -> None:
    spec = parse({}, {}, {})
    assert spec == Spec()
    assert (spec.cpus, spec.memory, spec.pids, spec.network, spec.workdir) == (2.0, 2 * GIB, 512, "full", "auto")
    assert FIELDS["memory"].default == 2 * GIB


@pytest.mark.parametrize(("name", "case"), cases(GOOD))
def test_what_is_taken(name: str, case: tuple[Any, str, Any]) -> None:
    value, text, taken = case
    for spec in (
        parse({name: value}, {}, {}),
        parse({}, {name: value}, {}),
        parse({}, {}, {ENV_PREFIX + name.upper(): text}),
    ):
        assert getattr(spec, name) == taken
        assert type(getattr(spec, name)) is type(taken)


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_what_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SpecError) as raised:
        parse({name: value}, {}, {})
    assert raised.value.message.startswith(f"kernel.json: {name} = {value!r} is not allowed")
    assert raised.value.hint == f"Allowed: {FIELDS[name].allowed}."
    if value is not None:  # of a trait, None is "not set"
        with pytest.raises(SpecError) as raised:
            parse({}, {name: value}, {})
        assert raised.value.message.startswith(f"c.ContainerProvisioner.{name} = {value!r} is not allowed")


@pytest.mark.parametrize(("name", "text"), cases(BAD_TEXT))
def test_what_is_refused_from_the_environment(name: str, text: str) -> None:
    variable = ENV_PREFIX + name.upper()
    with pytest.raises(SpecError) as raised:
        parse({}, {}, {variable: text})
    assert raised.value.message.startswith(f"environment: {variable} = ")
    assert raised.value.hint == f"Allowed: {FIELDS[name].allowed}."


def test_the_environment_is_strongest_then_configuration_then_kernel_json() -> None:
    kernel_json = {"cpus": 1, "pids": 100, "image": "from/kernel.json"}
    traits = {"cpus": 2, "pids": 200, "memory": None}
    environ = {"CONTAINER_KERNELS_CPUS": "3", "CONTAINER_KERNELS_MEMORY": "", "CPUS": "4"}
    spec = parse(kernel_json, traits, environ)
    assert (spec.cpus, spec.pids, spec.image, spec.memory) == (3.0, 200, "from/kernel.json", 2 * GIB)


def test_a_value_that_is_overridden_must_be_right_all_the_same() -> None:
    with pytest.raises(SpecError, match=r"kernel\.json: cpus"):
        parse({"cpus": "many"}, {"cpus": 2}, {})


def test_variables_of_other_names_are_nobodys_business() -> None:
    assert parse({}, {}, {"CONTAINER_KERNELS_TEST_ENGINES": "docker", "CONTAINER_KERNELS_GUEST": "{}"}) == Spec()


def test_an_unknown_key_is_refused_with_all_that_are_known() -> None:
    with pytest.raises(SpecError) as raised:
        parse({"memmory": "2g"}, {}, {})
    assert "'memmory'" in raised.value.message
    assert all(name in raised.value.hint for name in FIELDS)
    assert raised.value.exit_code == 2


def test_the_reason_is_told_where_the_value_alone_does_not_show_it() -> None:
    with pytest.raises(SpecError, match="64 MiB at the least"):
        parse({"memory": "1m"}, {}, {})
    with pytest.raises(SpecError, match="'relative' is no absolute path"):
        parse({"mounts": [{"source": "relative"}]}, {}, {})
    with pytest.raises(SpecError, match="a mount has no 'readonly'"):
        parse({"mounts": [{"source": "/a", "readonly": True}]}, {}, {})
    with pytest.raises(SpecError, match="A is not text"):
        parse({"env": {"A": 1}}, {}, {})


def test_a_kernel_without_network_is_not_yet_to_be_had() -> None:
    none = {"network": "none"}
    places: list[tuple[dict[str, str], ...]] = [
        (none, {}, {}),
        ({}, none, {}),
        ({}, {}, {"CONTAINER_KERNELS_NETWORK": "none"}),
    ]
    for arguments in places:
        with pytest.raises(SpecError, match="network = 'none' is not available yet") as raised:
            parse(*arguments)
        assert "full" in raised.value.hint


def test_a_spec_does_not_change_with_what_it_was_made_of() -> None:
    env = {"A": "1"}
    spec = parse({"env": env}, {}, {})
    env["A"] = "2"
    assert spec.env == {"A": "1"}


def test_kernel_json_as_json_has_it() -> None:
    text = '{"cpus": 1e0, "pids": 512, "memory": "1g", "mounts": [{"source": "/a"}], "env": {"A": "ü"}}'
    spec = parse(json.loads(text), {}, {})
    assert (spec.cpus, spec.memory, spec.mounts, spec.env) == (1.0, GIB, (Mount("/a", "/a"),), {"A": "ü"})


@pytest.mark.parametrize(
    ("value", "result"),
    [(5, 5), ("5", 5), ("1k", 1024), ("1 KiB", 1024), ("2M", 2 << 20), ("0.5g", GIB // 2), ("3b", 3)],
)
def test_sizes(value: Any, result: int) -> None:
    assert size(value) == result


@pytest.mark.parametrize("value", ["", "k", "-1", "1kk", "1 k x", "0x10", True, None, 1.5, [], "\u0661k"])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValueError, match="is no size"):
        size(value)


# -- What is mistyped


@pytest.mark.parametrize(
    ("key", "hint"),
    [("memroy", "Did you mean memory? Allowed"), ("Memory", "Did you mean memory? Allowed"), ("zzz", "Allowed")],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(SpecError, match=f"'{key}' is not a setting") as raised:
        parse({key: 1}, {}, {})
    assert raised.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("CONTAINER_KERNELS_MEMROY", " Did you mean CONTAINER_KERNELS_MEMORY?"),
        ("CONTAINER_KERNELS_memory", " Did you mean CONTAINER_KERNELS_MEMORY?"),
        ("CONTAINER_KERNELS_ZZZ", ""),
        ("CONTAINER_KERNELS_", ""),
    ],
)
def test_an_unknown_variable_is_told(variable: str, told: str) -> None:
    assert mistyped({variable: "x"}) == [f"{variable} is not a setting of container-kernels.{told}"]
    assert parse({}, {}, {variable: "x"}) == Spec()


def test_variables_that_are_known_are_not_told() -> None:
    settings = {ENV_PREFIX + name.upper(): "x" for name in FIELDS}
    others = {"CONTAINER_KERNELS_TEST_ENGINES": "docker", "CONTAINER_KERNELS_GUEST": "{}", "MEMROY": "1"}
    assert mistyped({**settings, **others}) == []
