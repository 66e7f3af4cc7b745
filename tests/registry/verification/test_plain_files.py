"""Only the plain files of a manifest pass, in a directory that is ours."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.core.registry import RegistryError
from gateway.registry.verification.plain_files import check_plain_files, path_problem
from tests.registry.verification.signed_models import FILES, write_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return write_version(tmp_path / "version")


def _replace(path: str, make: Callable[[Path, Path], object]) -> Callable[[Path], object]:
    """Take a file out of the version and let `make(inside, outside)` put something in its place."""

    def change(version: Path) -> None:
        outside = version.parent / "outside"
        (version / path).rename(outside)
        make(version / path, outside)

    return change


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{here}/{path.name}")  # the path itself may be too long for a socket
    os.close(here)


def _linked_root(version: Path) -> None:
    version.rename(version.parent / "real")
    version.symlink_to(version.parent / "real")


def _deep(version: Path) -> None:
    (version / ("d/" * 200)).mkdir(parents=True)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (_replace("model.onnx", lambda i, o: i.symlink_to(o)), "'model.onnx' is a symbolic link"),
    "link inside": (_replace("model.onnx", lambda i, o: i.symlink_to("data/w.bin")), "is a symbolic link"),
    "broken link": (lambda v: (v / "x").symlink_to("nowhere"), "'x' is a symbolic link"),
    "linked directory": (_replace("data", lambda i, o: i.symlink_to(o)), "'data' is a symbolic link"),
    "linked root": (_linked_root, "the directory of the version is a symbolic link"),
    "hard link": (_replace("data/w.bin", lambda i, o: os.link(o, i)), "'data/w.bin' has 2 hard links"),
    "pipe": (_replace("model.onnx", lambda i, o: os.mkfifo(i)), "'model.onnx' is a named pipe"),
    "socket": (_replace("model.onnx", lambda i, o: _socket(i)), "'model.onnx' is a socket"),
    "directory": (_replace("model.onnx", lambda i, o: i.mkdir()), "'model.onnx' is a directory"),
    "file in place of a directory": (
        _replace("data", lambda i, o: i.write_bytes(b"")),
        "'data' is there, but",
    ),
    "extra": (lambda v: (v / "data/x").write_bytes(b""), "'data/x' is there, but not among the files"),
    "hidden extra": (lambda v: (v / ".x").write_bytes(b""), "'.x' is there, but not among the files"),
    "extra directory": (_deep, "'d' is a directory that holds no file of the version"),
    "name that is no text": (lambda v: (v / os.fsdecode(b"\xff")).write_bytes(b""), r"'\\xff' is there, but"),
    "missing": (lambda v: (v / "model.onnx").unlink(), "'model.onnx' is missing from the fetched files"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(version: Path, change: Callable[[Path], object], reason: str) -> None:
    """Anything but the expected plain files is refused for good, and named without paths of the server."""
    change(version)
    with pytest.raises(RegistryError, match=f"^verify: .*{reason}") as caught:
        check_plain_files(version, FILES)
    assert not caught.value.may_pass
    assert str(version.parent) not in str(caught.value)


def test_plain_files_pass(tmp_path: Path, version: Path) -> None:
    """The files of the manifest pass, also where a directory above is a link."""
    check_plain_files(version, FILES)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    check_plain_files(tmp_path / "link" / "version", FILES)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("path", ["model.onnx", "data", "."])
def test_files_of_another_user(version: Path, path: str) -> None:
    """A file or directory that another user could change is refused."""
    os.chown(version / path, 65534, -1)
    with pytest.raises(RegistryError, match="belongs to user 65534, not to the gateway's"):
        check_plain_files(version, FILES)


def test_directory_that_is_gone(tmp_path: Path) -> None:
    """A directory that cannot be read may be readable later."""
    with pytest.raises(RegistryError, match="cannot be looked at: No such file") as caught:
        check_plain_files(tmp_path / "absent", FILES)
    assert caught.value.may_pass


PATHS = {
    "": "empty",
    "a" * 1025: "1024 characters",
    "../x": "leaves the version",
    "a/../x": "leaves the version",
    "..": "leaves the version",
    "/x": "not relative",
    "\\\\host\\x": "not relative",
    "a\\x": "not relative",
    "C:/x": "not relative",
    "./x": "shortest form",
    "a//x": "shortest form",
    "a/": "shortest form",
    ".": "shortest form",
    "a\0": "cannot be shown",
    "a\nb": "cannot be shown",
    "\u202etxt.x": "cannot be shown",
    "\udcff": "cannot be shown",
    "ü" * 128: "255 bytes",
}


@pytest.mark.parametrize(("path", "reason"), PATHS.items())
def test_paths_that_no_version_has(version: Path, path: str, reason: str) -> None:
    """A manifest with such a path is refused before anything is looked at."""
    assert reason in path_problem(path)
    with pytest.raises(RegistryError, match=f"the manifest names .*{reason}"):
        check_plain_files(version, {**FILES, path: b""})


@pytest.mark.parametrize("path", ["model.onnx", "a/b/c", ".git/config", "größe.bin", "a b", "...", "xy:z"])
def test_ordinary_paths(path: str) -> None:
    """Names that files really have are let through."""
    assert path_problem(path) == ""
