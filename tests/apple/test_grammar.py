"""What each release refuses, and how it says so."""

from __future__ import annotations

import pytest

from .stand_in.grammar import VERSIONS, command, refusal

NEWER = ("1.0.0", "1.1.0", "1.2.2")
RUN = ("run", "--name", "ab")


def refused(version: str, *argv: str) -> str:
    said = refusal(version, list(argv))
    assert said is not None, (version, argv)
    return said.partition("\n")[0]


def accepted(version: str, *argv: str) -> bool:
    assert refusal(version, list(argv)) is None, (version, argv)
    return True


@pytest.mark.parametrize("version", VERSIONS)
class TestWords:
    def test_options_come_before_the_image_and_the_rest_is_the_containers(self, version: str) -> None:
        assert accepted(version, "run", "-d", "image", "--unheard-of", "--", "-x")
        assert refused(version, "run", "--unheard-of", "image") == "Unknown option '--unheard-of'"
        assert refused(version, "run", "--", "image") == "Unknown option '--'"

    def test_a_value_follows_or_is_joined_by_an_equals_sign(self, version: str) -> None:
        assert accepted(version, *RUN, "--env", "A=1", "--env=B=2", "-e", "C=3", "image")
        assert refused(version, *RUN, "-eA=1", "image") == "Unknown option '-eA=1'"
        assert refused(version, *RUN, "-p8080:80", "image") == "Unknown option '-p8080:80'"
        assert refused(version, *RUN, "-m1g", "image") == "Unknown option '-m1g'"

    def test_a_value_that_looks_like_an_option_needs_the_equals_sign(self, version: str) -> None:
        assert refused(version, *RUN, "--entrypoint", "-x", "image") == "Missing value for '--entrypoint <entrypoint>'"
        assert accepted(version, *RUN, "--entrypoint=-x", "image")

    def test_flags_can_be_grouped_and_have_no_value(self, version: str) -> None:
        assert accepted(version, "exec", "-it", "ab", "sh")
        assert refused(version, "exec", "-iu", "ab", "sh") == "Unknown option '-iu'"
        assert refused(version, "run", "--rm=true", "image").startswith("The option '--rm' does not take any value")

    def test_words_are_counted(self, version: str) -> None:
        assert refused(version, "run", "-d") == "Missing expected argument '<image>'"
        assert refused(version, "exec", "ab") == "Missing expected argument '<arguments>'"
        assert refused(version, "logs", "ab", "cd") == "Unexpected argument 'cd'"
        assert refused(version, "list", "ab", "cd") == "2 unexpected arguments: 'ab', 'cd'"
        assert refused(version, "inspect") == "Missing expected argument '<containerIds>'"
        assert accepted(version, "inspect", "ab", "cd")

    def test_which_container_must_be_said(self, version: str) -> None:
        for verb in ("stop", "kill", "delete"):
            assert refused(version, verb) == "no containers specified and --all not supplied"

    def test_commands_have_their_other_names_and_no_more(self, version: str) -> None:
        assert accepted(version, "ls", "-a")
        assert accepted(version, "rm", "-f", "ab")
        assert accepted(version, "i", "ls")
        for word in ("ps", "images", "rmi", "pull", "wait", "port", "top", "pause", "restart", "rename", "attach"):
            assert refused(version, word) == f"Plugin 'container-{word}' not found."

    @pytest.mark.parametrize(
        "option",
        ["restart", "stop-signal", "hostname", "add-host", "privileged", "security-opt", "device", "gpus", "sysctl",
         "pids-limit", "memory-swap", "pull", "publish-all", "detach-keys"],
    )  # fmt: skip
    def test_what_docker_has_and_this_has_not(self, version: str, option: str) -> None:
        for verb in ("run", "create"):
            assert refused(version, verb, f"--{option}", "image") == f"Unknown option '--{option}'"

    def test_questions_have_no_filter(self, version: str) -> None:
        assert refused(version, "list", "--filter", "label=a") == "Unknown option '--filter'"
        assert refused(version, "list", "--no-trunc") == "Unknown option '--no-trunc'"
        assert refused(version, "inspect", "--format", "x", "ab") == "Unknown option '--format'"
        assert refused(version, "logs", "--tail", "3", "ab") == "Unknown option '--tail'"
        assert accepted(version, "logs", "-n", "3", "ab")

    def test_progress_is_said_where_something_is_fetched(self, version: str) -> None:
        for choice in ("auto", "none", "ansi", "plain", "color"):
            assert accepted(version, "run", "--progress", choice, "image")
            assert accepted(version, "image", "pull", "--progress", choice, "image")
        assert refused(version, "run", "--progress", "tty", "image").startswith("The value 'tty' is invalid for")
        assert refused(version, "build", "--progress", "none").startswith("The value 'none' is invalid for")
        for words in (("create", "--progress", "none", "image"), ("start", "--progress", "none", "ab")):
            assert refused(version, *words) == "Unknown option '--progress'"

    def test_old_spellings_are_gone(self, version: str) -> None:
        assert refused(version, "run", "--disable-progress-updates", "image").startswith("Unknown option")

    def test_an_unknown_option_tells_of_usage(self, version: str) -> None:
        said = refusal(version, ["list", "--unheard-of"])
        assert said is not None
        assert "\nUsage: container list" in said


@pytest.mark.parametrize("version", VERSIONS)
class TestPorts:
    @pytest.mark.parametrize("port", ["0", "1"])
    def test_there_is_no_ephemeral_port(self, version: str, port: str) -> None:
        said = refused(version, *RUN, "-p", f"127.0.0.1:{port}:80", "image")
        assert said == f"invalid publish host port range: {port}"

    def test_both_ports_are_said(self, version: str) -> None:
        assert refused(version, *RUN, "-p", "8888", "image").startswith("invalid publish value")
        assert refused(version, *RUN, "-p", ":8888", "image").startswith("invalid publish")
        assert refused(version, *RUN, "-p", "127.0.0.1::8888", "image").startswith("invalid publish")

    def test_an_address_is_not_a_name(self, version: str) -> None:
        assert refused(version, *RUN, "-p", "localhost:8080:80", "image") == "invalid publish IPv4 address: localhost"
        assert accepted(version, *RUN, "-p", "[::1]:8080:80/TCP", "image")
        assert accepted(version, *RUN, "-p", "8080:80", "image")

    def test_ranges_are_as_long_as_each_other(self, version: str) -> None:
        assert accepted(version, *RUN, "-p", "127.0.0.1:8000-8004:9000-9004", "image")
        assert "not equal" in refused(version, *RUN, "-p", "8000-8004:9000-9003", "image")
        assert refused(version, *RUN, "-p", "8004-8000:9004-9000", "image").startswith(
            "invalid publish host port range"
        )
        assert refused(version, *RUN, "-p", "65535-65536:80-81", "image").startswith("invalid publish host port range")

    def test_none_overlap_whatever_their_addresses(self, version: str) -> None:
        two = ("-p", "127.0.0.1:8000-8004:80-84", "-p", "127.0.0.2:8004:90")
        assert "may not overlap" in refused(version, *RUN, *two, "image")
        assert accepted(version, *RUN, "-p", "8000:80", "-p", "8000:80/udp", "image")

    def test_not_more_than_64(self, version: str) -> None:
        ports = [word for port in range(65) for word in ("-p", f"{8000 + port}:80")]
        assert accepted(version, *RUN, *ports[:-2], "image")
        assert "64" in refused(version, *RUN, *ports, "image")


@pytest.mark.parametrize("version", VERSIONS)
class TestValues:
    @pytest.mark.parametrize("label", ["a=b=c", "a==b", "a=b==", "=b"])
    def test_a_label_has_one_equals_sign(self, version: str, label: str) -> None:
        assert refused(version, *RUN, "-l", label, "image") == f"invalid label format {label}"

    @pytest.mark.parametrize("label", ["a", "a=", "a=b", "a=b=", "A_x.y/z=v"])
    def test_other_labels(self, version: str, label: str) -> None:
        assert accepted(version, *RUN, "-l", label, "image")

    def test_cpus_are_whole(self, version: str) -> None:
        assert accepted(version, *RUN, "--cpus", "2", "image")
        assert refused(version, *RUN, "--cpus", "0.5", "image") == "The value '0.5' is invalid for '--cpus <cpus>'"

    @pytest.mark.parametrize("memory", ["200m", "209715200", "0.2g", "1G", "1gib", "1GB", "204800k"])
    def test_memory_enough(self, version: str, memory: str) -> None:
        assert accepted(version, *RUN, "-m", memory, "image")

    @pytest.mark.parametrize(("memory", "size"), [("199m", 199 << 20), ("512", 0), ("209715199", 199 << 20)])
    def test_memory_too_little(self, version: str, memory: str, size: int) -> None:
        said = refused(version, *RUN, "-m", memory, "image")
        assert said == f"minimum memory amount allowed is 200 MiB (got {size} bytes)"

    @pytest.mark.parametrize("memory", ["1x", "m", "1 mm", "-1m"])
    def test_memory_that_is_none(self, version: str, memory: str) -> None:
        assert refused(version, *RUN, f"--memory={memory}", "image").startswith("invalid memory value")

    @pytest.mark.parametrize("name", ["a", "-a", ".ab", "a b", "a/b", "a:b"])
    def test_bad_names(self, version: str, name: str) -> None:
        said = refused(version, "run", f"--name={name}", "image")
        is_new = version == "1.2.2"
        assert said == (f"container ID {name} is not a valid container ID" if is_new else f"invalid entity name {name}")

    def test_a_mount_is_split_at_commas_and_equals_signs(self, version: str) -> None:
        assert accepted(version, *RUN, "--mount", "type=bind,source=/tmp,target=/x,readonly", "image")
        assert refused(version, *RUN, "--mount", "type=bind,source=/a=b,target=/x", "image").startswith("invalid mount")
        assert refused(version, *RUN, "--mount", "source=/a,b,target=/x", "image").startswith("unknown mount option")
        assert refused(version, *RUN, "--mount", "source=/a", "image").startswith("invalid destination")
        assert refused(version, *RUN, "--mount", "type=device,source=/a,target=/b", "image").startswith("unsupported")

    def test_a_volume_is_split_at_colons(self, version: str) -> None:
        assert accepted(version, *RUN, "-v", "/a:/b:ro", "-v", "name:/c", "-v", "/d", "image")
        assert refused(version, *RUN, "-v", "/a:b:/c:ro", "image").startswith("invalid volume format")
        assert refused(version, *RUN, "-v", "/a:b:/c", "image").startswith("invalid destination")
        assert refused(version, *RUN, "-v", "-bad:/c", "image").startswith("Missing value")

    def test_a_tmpfs_is_a_path_only(self, version: str) -> None:
        assert accepted(version, *RUN, "--tmpfs", "/x", "image")
        assert refused(version, *RUN, "--tmpfs", "/x:size=1m", "image").startswith("invalid tmpfs")

    def test_no_network_beside_none(self, version: str) -> None:
        assert accepted(version, *RUN, "--network", "default,mtu=1500,mac=02:00:00:00:00:01", "image")
        assert "none" in refused(version, *RUN, "--network", "none", "--network", "default", "image")
        assert refused(version, *RUN, "--network", "default,mtu=1000", "image").startswith("invalid network property")

    def test_each_ulimit_once(self, version: str) -> None:
        assert accepted(version, *RUN, "--ulimit", "nofile=100:200", "--ulimit", "core=unlimited", "image")
        assert "duplicate" in refused(version, *RUN, "--ulimit", "core=0", "--ulimit", "core=1", "image")
        assert refused(version, *RUN, "--ulimit", "files=1", "image").startswith("unsupported ulimit")
        assert refused(version, *RUN, "--ulimit", "nofile=some", "image").startswith("invalid ulimit")

    def test_capabilities_and_signals_have_names(self, version: str) -> None:
        assert accepted(version, *RUN, "--cap-drop", "ALL", "--cap-add", "cap_chown", "--cap-add", "NET_RAW", "image")
        assert refused(version, *RUN, "--cap-add", "FLY", "image") == "invalid capability: FLY"
        assert accepted(version, "kill", "-s", "SIGINT", "ab")
        assert accepted(version, "stop", "-s", "int", "-t", "3", "ab")
        assert refused(version, "kill", "-s", "HELLO", "ab") == "invalid signal: HELLO"
        assert refused(version, "stop", "-t", "1.5", "ab").startswith("The value '1.5' is invalid")

    def test_a_published_socket_has_two_paths(self, version: str) -> None:
        assert accepted(version, *RUN, "--publish-socket", "/tmp/a:/run/b", "image")
        assert refused(version, *RUN, "--publish-socket", "/tmp/a", "image").startswith("invalid publish-socket")

    def test_schemes(self, version: str) -> None:
        assert accepted(version, *RUN, "--scheme", "auto", "image")
        assert refused(version, *RUN, "--scheme", "ftp", "image") == "unsupported value ftp"


class TestReleases:
    def test_a_name_is_short_since_1_2(self) -> None:
        assert accepted("1.1.0", "run", "--name", "a" * 64, "image")
        assert refused("1.2.2", "run", "--name", "a" * 64, "image").endswith("is not a valid container ID")
        assert accepted("1.2.2", "run", "--name", "a" * 63, "image")

    def test_shared_memory_and_copy_since_1_0(self) -> None:
        assert refused("0.12.3", "run", "--shm-size", "64m", "image") == "Unknown option '--shm-size'"
        assert refused("0.12.3", "copy", "a:/b", "c") == "Plugin 'container-copy' not found."
        for version in NEWER:
            assert accepted(version, "run", "--shm-size", "64m", "image")
            assert accepted(version, "cp", "a:/b", "c")

    def test_formats(self) -> None:
        assert "'json', 'table' and 'yaml'" in refused("0.12.3", "list", "--format", "toml")
        assert accepted("1.0.0", "list", "--format", "toml")
        assert refused("1.0.0", "list", "--format", "xml").startswith("The value 'xml' is invalid")

    def test_kernel_arguments_since_1_2(self) -> None:
        assert refused("1.1.0", "run", "--kernel-arg", "a", "image") == "Unknown option '--kernel-arg'"
        assert accepted("1.2.2", "run", "--kernel-arg", "a", "image")

    def test_ids_of_images_alone_as_json_since_1_0(self) -> None:
        assert "cannot use" in refused("0.12.3", "image", "list", "-q", "--format", "json")
        assert accepted("1.0.0", "image", "list", "-q", "--format", "json")

    def test_no_dns_is_minded_since_1_0(self) -> None:
        words = ("run", "--no-dns", "--dns", "1.1.1.1", "image")
        assert accepted("0.12.3", *words)
        assert "--no-dns" in refused("1.0.0", *words)

    def test_a_networks_variant_became_an_option(self) -> None:
        assert accepted("0.12.3", "network", "create", "--plugin-variant", "x", "ab")
        assert refused("1.0.0", "network", "create", "--plugin-variant", "x", "ab").startswith("Unknown option")

    def test_a_signals_number_is_the_macs_before_1_0(self) -> None:
        from .stand_in.values import signal

        assert (signal("30", (0, 12, 3)), signal("10", (0, 12, 3))) == ("USR1", "BUS")
        assert (signal("10", (1, 0, 0)), signal("9", (0, 12, 3)), signal("SIGint", (1, 0))) == ("USR1", "KILL", "INT")

    @pytest.mark.parametrize("version", VERSIONS)
    def test_each_command_is_whole(self, version: str) -> None:
        from .stand_in import grammar

        for path in grammar._GRAMMAR["commands"]:
            found = command(version, path)
            assert found is None or all(option.names for option in found.options.values())
        assert accepted(version, "--version")
