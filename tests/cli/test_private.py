"""What is taken out of a report, and what stays in it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from container_kernels.doctor.private import Private
from container_kernels.engines.protocol import LABEL


@pytest.fixture
def private() -> Private:
    return Private(
        home="/Users/dana",
        users=["dana", "Dana Quist"],
        hosts=["danas-mac.local", "danas-mac"],
        directories=["/Volumes/My Disk/theses", "/Users/dana/theses"],
    )


@pytest.mark.parametrize(
    ("said", "cleared"),
    [
        ("in /Users/dana/.venv/bin", "in ~/.venv/bin"),
        ("in /Users/dana/theses", "in <directory>"),
        ("in /Users/danae/x", "in <path>"),
        ("path '/Volumes/My Disk/theses' does not exist", "path '<directory>' does not exist"),
        ("path '/Volumes/Other Disk/x y' does not exist", "path '<path>' does not exist"),
        ("/mnt/clients/acme:/mnt/clients/acme:ro", "<path>:<path>:ro"),
        ("no /opt/container-kernels, no /usr/bin/python3", "no /opt/container-kernels, no /usr/bin/python3"),
        ("Dana Quist is DANA on danas-mac.local, or Danas-Mac", "<user> is <user> on <host>, or <host>"),
        ("bandana", "bandana"),
        ("token=abc123", "token=<secret>"),
        ('{"token_digest": "abc", "time_to_live": 120}', '{"token_digest": "<secret>", "time_to_live": 120}'),
        ("api-key: abc123", "api-key: <secret>"),
        ("Authorization: Bearer abc.def", "Authorization: <secret>"),
        ("HTTPS_PROXY=http://proxy.example", "HTTPS_PROXY=<value>"),
        ("NAME='two words' more", "NAME=<value> more"),
        ("a == b, x=1", "a == b, x=1"),
        ("ghp_aB3dE5gH7jK9mN1pQ3sT5vW7yZ9", "<secret>"),
        ("container-kernels-8e1d1c024abd", "container-kernels-8e1d1c024abd"),
        ("sha256:52d9951878", "sha256:52d9951878"),
        ("https://me:pw@git.example.com/x?sig=1", "https://<host>/x?<value>"),
        ("https://github.com/apple/container/releases", "https://github.com/apple/container/releases"),
        ("tcp://127.0.0.1:2375, unix:///var/run/docker.sock", "tcp://127.0.0.1:2375, unix:///var/run/docker.sock"),
        ("mail dana.q@example.com", "mail <email>"),
        ("from 8.8.8.8:53 to 192.168.64.3, 127.0.0.1", "from <address>:53 to 192.168.64.3, 127.0.0.1"),
        ("2600:1406:5e00::17 and fe80::1, ::1", "<address> and fe80::1, ::1"),
        ("at 12:34:56, 1.2.2, 25.1.0", "at 12:34:56, 1.2.2, 25.1.0"),
    ],
)
def test_texts(private: Private, said: str, cleared: str) -> None:
    assert private.text(said) == cleared


def test_words_of_a_command(private: Private) -> None:
    argv = [
        "container", "run", "--volume", "/Volumes/Our Disk/notes:/Volumes/Our Disk/notes:ro", "--env", "GREETING=hello",
        "--env=OTHER=hello", "-e", "plain", "--label", f"{LABEL}.owner=1:2:danas-mac.local", "--label", "team=hello",
        "--publish", "127.0.0.1:1024:61801", "--workdir", "/", "an/image",
    ]  # fmt: skip
    assert private.words(argv) == [
        "container", "run", "--volume", "<path>:<path>:ro", "--env", "GREETING=<value>", "--env=OTHER=<value>", "-e", "plain",
        "--label", f"{LABEL}.owner=1:2:<host>", "--label", "team=<value>", "--publish", "127.0.0.1:1024:61801", "--workdir", "/",
        "an/image",
    ]  # fmt: skip


def test_answers(private: Private) -> None:
    ours = {
        "status": {"state": "running", "networks": [{"ipv4Address": "192.168.64.3/24"}]},
        "configuration": {
            "id": "container-kernels-a",
            "labels": {LABEL: "1", "team": "hello"},
            "mounts": [{"source": "/Volumes/Our Disk/notes", "destination": "/work/notes", "options": ["ro"]}],
            "initProcess": {"environment": ["PATH=/bin", "GREETING=hello"], "arguments": ["-c", "pass"]},
            "sshKey": "hello",
        },
    }
    theirs = {"status": "running", "configuration": {"id": "hello", "labels": {}}}
    cleared = json.loads(private.answer(json.dumps([ours, theirs])))
    assert cleared[1] == "<a container that is not ours>"
    configuration = cleared[0]["configuration"]
    assert cleared[0]["status"] == ours["status"]
    assert configuration["labels"] == {LABEL: "1", "team": "<value>"}
    assert configuration["mounts"] == [{"source": "<path>", "destination": "<path>", "options": ["ro"]}]
    assert configuration["initProcess"]["environment"] == ["PATH=<value>", "GREETING=<value>"]
    assert configuration["sshKey"] == "<secret>"


def test_an_answer_that_is_no_json_is_a_text(private: Private) -> None:
    assert private.answer("Error: /Users/dana is gone") == "Error: ~ is gone"


def test_a_docker_container_of_somebody_elses(private: Private) -> None:
    theirs = {"State": {"Status": "running"}, "Config": {"Labels": {"com.example": "hello"}, "Env": ["A_B=hello"]}}
    assert "hello" not in private.answer(json.dumps([theirs]))


def test_of_this_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "quentin")
    monkeypatch.setattr("platform.node", lambda: "quentins-mac.local")
    private = Private.of_this_person()
    said = f"{tmp_path}/x, quentin, quentins-mac, {sys.prefix}/bin, {os.path.realpath(tmp_path)}"
    assert private.text(said) == "~/x, <user>, <host>, <python>/bin, ~"


@pytest.mark.parametrize("name", ["root", "admin"])
def test_a_name_that_everybody_has_is_no_secret(name: str) -> None:
    private = Private(home="/root", users=[name], hosts=["localhost"])
    assert private.text(f"rootless, {name}, localhost") == f"rootless, {name}, localhost"
