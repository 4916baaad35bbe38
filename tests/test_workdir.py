"""Which directory is mounted, where the kernel starts in it, and what may not be mounted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from container_kernels import workdir
from container_kernels.engines.protocol import Mount
from container_kernels.errors import WorkdirError
from container_kernels.spec import Spec, WorkdirPolicy
from container_kernels.workdir import Workdir, host_path


@dataclass(frozen=True)
class Tree:
    """A home, with a server's root in it and a notebook's folder in that."""

    home: Path
    root: Path
    notebooks: Path

    def plan(
        self, policy: WorkdirPolicy = "auto", *, cwd: Path | None = None, root: Path | None = None, mounts: tuple[Mount, ...] = ()
    ) -> Workdir:  # fmt: skip
        return workdir.plan(
            Spec(workdir=policy, mounts=mounts),
            cwd=str(cwd or self.notebooks),
            root=str(root) if root else None,
            home=str(self.home),
        )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "home", tmp_path / "home" / "root", tmp_path / "home" / "root" / "notebooks")
    tree.notebooks.mkdir(parents=True)
    return tree


def same(path: Path) -> Mount:
    return Mount(str(path), str(path))


@pytest.mark.parametrize("policy", ["auto", "root"])
def test_the_servers_root_is_mounted(tree: Tree, policy: WorkdirPolicy) -> None:
    assert tree.plan(policy, root=tree.root) == Workdir((same(tree.root),), str(tree.notebooks))


def test_the_notebooks_directory_is_mounted_where_it_is_asked_for(tree: Tree) -> None:
    assert tree.plan("notebook", root=tree.root) == Workdir((same(tree.notebooks),), str(tree.notebooks))


@pytest.mark.parametrize("policy", ["auto", "root", "notebook"])
def test_the_notebooks_directory_is_mounted_without_a_server(tree: Tree, policy: WorkdirPolicy) -> None:
    assert tree.plan(policy) == Workdir((same(tree.notebooks),), str(tree.notebooks))


def test_nothing_is_mounted(tree: Tree) -> None:
    assert tree.plan("none", root=tree.root) == Workdir((), None)
    assert tree.plan("none", cwd=tree.home / "gone") == Workdir((), None)


def test_a_root_that_is_the_home_gives_way_to_the_notebooks_directory(tree: Tree) -> None:
    assert tree.plan(root=tree.home) == Workdir((same(tree.notebooks),), str(tree.notebooks))


def test_a_root_that_is_the_home_is_refused_where_it_is_insisted_on(tree: Tree) -> None:
    with pytest.raises(WorkdirError, match="it is the home directory, or holds it") as raised:
        tree.plan("root", root=tree.home)
    assert all(word in raised.value.hint for word in ("folder of its own", "mounts", "workdir = 'none'"))


@pytest.mark.parametrize("policy", ["auto", "root", "notebook"])
def test_the_home_and_what_holds_it_are_refused(tree: Tree, policy: WorkdirPolicy) -> None:
    for directory in (tree.home, tree.home.parent):
        with pytest.raises(WorkdirError, match="it is the home directory, or holds it"):
            tree.plan(policy, cwd=directory)


@pytest.mark.parametrize(
    "directory",
    ["/", "/etc", "/etc/ssl", "/usr", "/usr/lib", "/dev/shm", "/proc/self", "/sys/kernel", "/var", "/home", "/opt"],
)
def test_the_system_is_refused(tree: Tree, directory: str) -> None:
    with pytest.raises(WorkdirError, match=f"^{directory} may not be mounted into a kernel's container: "):
        tree.plan(cwd=Path(directory))


def test_a_link_to_what_is_refused_is_refused(tree: Tree) -> None:
    for name, target in (("to-home", tree.home), ("to-etc", Path("/etc")), ("to-root", Path("/"))):
        link = tree.root / name
        link.symlink_to(target)
        with pytest.raises(WorkdirError, match="may not be mounted"):
            tree.plan(cwd=link)


def test_a_link_is_mounted_where_it_stands(tree: Tree) -> None:
    real = tree.home / "real"
    real.mkdir()
    link = tree.home / "link"
    link.symlink_to(real)
    assert tree.plan(cwd=link) == Workdir((Mount(str(real), str(link)),), str(link))


def test_a_link_out_of_the_root_does_not_take_the_root(tree: Tree) -> None:
    outside = tree.home / "outside"
    outside.mkdir()
    link = tree.root / "link"
    link.symlink_to(outside)
    assert tree.plan(cwd=link, root=tree.root) == Workdir((Mount(str(outside), str(link)),), str(link))


def test_a_notebook_outside_the_root(tree: Tree) -> None:
    outside = tree.home / "outside"
    outside.mkdir()
    assert tree.plan(cwd=outside, root=tree.root) == Workdir((same(outside),), str(outside))


def test_a_directory_whose_name_begins_like_the_roots_is_not_in_it(tree: Tree) -> None:
    sibling = tree.home / "root-2"
    sibling.mkdir()
    assert tree.plan(cwd=sibling, root=tree.root).mounts == (same(sibling),)


@pytest.mark.parametrize("name", ["with space", "co:lon", "com,ma", 'quo"te', "it's", "größe", "line\nbreak", "-dash"])
def test_odd_names(tree: Tree, name: str) -> None:
    odd = tree.root / name
    odd.mkdir()
    assert tree.plan("notebook", cwd=odd) == Workdir((same(odd),), str(odd))


def test_a_directory_that_is_gone(tree: Tree) -> None:
    with pytest.raises(WorkdirError, match="does not exist, or is no directory") as raised:
        tree.plan(cwd=tree.root / "gone")
    assert raised.value.hint
    (tree.root / "file").touch()
    with pytest.raises(WorkdirError, match="does not exist, or is no directory"):
        tree.plan(cwd=tree.root / "file")


def test_a_directory_that_may_not_be_read(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read all, so the answer of the system is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WorkdirError, match="may not be read by you") as raised:
        tree.plan()
    assert f"ls -ld {tree.notebooks}" in raised.value.hint


# -- More mounts


def test_more_mounts(tree: Tree, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tree.home / "other").mkdir()
    planned = tree.plan(mounts=(Mount(str(data), "/data", read_only=True), Mount("~/other", "~/mine")))
    expected = (Mount(str(data), "/data", read_only=True), Mount(f"{tree.home}/other", f"{tree.home}/mine"))
    assert planned == Workdir((same(tree.notebooks), *expected), str(tree.notebooks))


def test_a_mount_that_names_the_working_directory_takes_its_place(tree: Tree) -> None:
    named = Mount(str(tree.home), "/work")
    assert tree.plan(cwd=tree.notebooks, mounts=(named,)) == Workdir((named,), "/work/root/notebooks")
    assert tree.plan(cwd=tree.home, mounts=(named,)) == Workdir((named,), "/work")  # the home: it was asked for by name
    assert tree.plan("none", mounts=(named,)) == Workdir((named,), "/work/root/notebooks")


def test_a_mount_that_names_the_working_directory_by_a_link(tree: Tree, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tree.root)
    expected = Workdir((Mount(str(tree.root), str(link)),), f"{link}/notebooks")
    assert tree.plan(cwd=link / "notebooks", mounts=(Mount(str(link), str(link)),)) == expected
    assert tree.plan(cwd=tree.notebooks, mounts=(Mount(str(link), str(link)),)) == expected


def test_a_mount_that_does_not_exist(tree: Tree) -> None:
    with pytest.raises(WorkdirError, match=f"mounts: {tree.home}/gone does not exist"):
        tree.plan(mounts=(Mount("~/gone", "/gone"),))


@pytest.mark.parametrize("target", ["/", "/etc", "/usr/", "/mnt/../etc", "//etc", "/proc/x", "/sys/fs"])
def test_a_mount_on_the_system(tree: Tree, target: str) -> None:
    with pytest.raises(WorkdirError, match="nothing may be mounted on"):
        tree.plan(mounts=(Mount(str(tree.root), target),))


# -- Paths of the kernel, on the host


def test_paths_lead_back(tree: Tree) -> None:
    (tree.notebooks / "a.py").touch()
    mounts = (Mount(str(tree.root), "/work"), Mount(str(tree.notebooks), "/work/deep"))
    assert host_path(mounts, "/work/notebooks/a.py", None) == str(tree.notebooks / "a.py")
    assert host_path(mounts, "/work/deep/a.py", None) == str(tree.notebooks / "a.py")
    assert host_path(mounts, "a.py", "/work/notebooks") == str(tree.notebooks / "a.py")
    assert host_path(mounts, "./x/../a.py", "/work/deep") == str(tree.notebooks / "a.py")
    assert host_path(mounts, "/work", None) == str(tree.root)


def test_paths_that_do_not_lead_back(tree: Tree) -> None:
    (tree.home / "secret").touch()
    mounts = (Mount(str(tree.root), "/work"),)
    assert host_path(mounts, "/work/gone.py", None) is None
    assert host_path(mounts, "/elsewhere", None) is None
    assert host_path(mounts, "/workshop", None) is None
    assert host_path(mounts, "a.py", None) is None
    assert host_path(mounts, "~/a.py", "/work") is None
    assert host_path(mounts, "../secret", "/work") is None
    assert host_path(mounts, "/work/../work/../secret", None) is None


def test_a_link_out_of_the_mount_does_not_lead_back(tree: Tree) -> None:
    (tree.home / "secret").touch()
    (tree.root / "link").symlink_to(tree.home / "secret")
    assert host_path((Mount(str(tree.root), "/work"),), "/work/link", None) is None
