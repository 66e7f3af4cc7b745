"""Confine what reaches a backend: a directory of plain files of ours, exactly those of a manifest. Blocking.

Closes the ways by which a loader that follows names can be led to other files: symbolic links at any level,
hard links to a file outside (CVE-2026-34446), devices and pipes, names such as `../x`, and files that nobody
verified. Contents are the caller's to hash; nothing may write into the directory afterwards.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Final

from gateway.core.registry import RegistryError
from gateway.registry.files import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAX_PATH_CHARACTERS: Final = 1024
_MAX_PART_BYTES: Final = 255
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_OTHER_KINDS: Final = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_plain_files(directory: Path, expected: Collection[str]) -> None:
    """Check that a directory holds the expected files, each a plain file of ours, and nothing else.

    Directories above `directory` may be links; it and everything in it may not. The walk ends at the first
    entry that nobody expects, so it takes no longer than the manifest is long.

    Args:
        directory: a directory that only we write to.
        expected: paths relative to it, `/` between their parts; the keys of a manifest.

    Raises:
        RegistryError: step `verify`; the message names the file, relative to the directory.
    """
    for path in expected:
        if problem := path_problem(path):
            raise _refused(f"the manifest names {shown_path(path)}, {problem}")
    folders = {parent.as_posix() for path in expected for parent in PurePosixPath(path).parents}
    try:
        found = set(_plain_files(directory, frozenset(expected), folders))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RegistryError(
            "verify", f"the fetched files cannot be looked at: {reason}", may_pass=True
        ) from error
    if missing := sorted(set(expected) - found):
        raise _refused(f"{_files(missing)} missing from the fetched files")


def path_problem(path: str) -> str:
    """Return why a path must not name a file of a version, for `..., <reason>`; empty when it may."""
    if not path or len(path) > MAX_PATH_CHARACTERS:
        return "which is empty" if not path else f"which has more than {MAX_PATH_CHARACTERS} characters"
    if any(unicodedata.category(c) in _UNPRINTABLE for c in path):
        return "which holds characters that cannot be shown"
    if "\\" in path or PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
        return "which is not relative to the version with '/' between its parts"
    parts = path.split("/")
    if ".." in parts:
        return "which leaves the version"
    if "" in parts or "." in parts:
        return "which is not in its shortest form"
    if max(len(part.encode()) for part in parts) > _MAX_PART_BYTES:
        return f"which has a part of more than {_MAX_PART_BYTES} bytes"
    return ""


def shown_path(path: str) -> str:
    """Return a path of any origin, quoted and shortened, as text that can be sent and logged."""
    text = ascii(path)
    return text if len(text) <= 200 else f"{text[:200]}...'"


def _plain_files(directory: Path, expected: frozenset[str], folders: Collection[str]) -> Iterator[str]:
    """Yield the paths of the files below `directory`, each checked."""
    _check_directory("the directory of the version", directory.lstat())
    waiting = [(directory, "")]
    while waiting:
        here, prefix = waiting.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                name = prefix + entry.name
                seen = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(seen.st_mode) and name in folders:
                    _check_directory(f"'{shown(name)}'", seen)
                    waiting.append((Path(entry.path), f"{name}/"))
                else:
                    _check_file(name, seen, expected)
                    yield name


def _check_directory(what: str, seen: os.stat_result) -> None:
    if not stat.S_ISDIR(seen.st_mode):
        raise _refused(f"{what} is {_kind(seen)}, not a directory")
    if seen.st_uid != os.geteuid():
        raise _refused(f"{what} {_belongs_to_another(seen)}")


def _check_file(name: str, seen: os.stat_result, expected: Collection[str]) -> None:
    if not stat.S_ISREG(seen.st_mode):
        raise _refused(f"'{shown(name)}' is {_kind(seen)}; only plain files may belong to a version")
    if name not in expected:
        raise _refused(f"'{shown(name)}' is there, but not among the files of the version")
    if seen.st_nlink != 1:
        raise _refused(
            f"'{shown(name)}' has {seen.st_nlink} hard links; its content can be changed by another name"
        )
    if seen.st_uid != os.geteuid():
        raise _refused(f"'{shown(name)}' {_belongs_to_another(seen)}")


def _kind(seen: os.stat_result) -> str:
    if stat.S_ISLNK(seen.st_mode):
        return "a symbolic link"
    if stat.S_ISDIR(seen.st_mode):
        return "a directory that holds no file of the version"
    return next((what for test, what in _OTHER_KINDS if test(seen.st_mode)), "a plain file")


def _belongs_to_another(seen: os.stat_result) -> str:
    return (
        f"belongs to user {seen.st_uid}, not to the gateway's ({os.geteuid()}); keep the cache for one user"
    )


def _files(names: list[str]) -> str:
    first = f"'{shown(names[0])}'"
    return f"{first} is" if len(names) == 1 else f"{first} and {len(names) - 1} other files are"


def _refused(message: str) -> RegistryError:
    return RegistryError("verify", message, may_pass=False)
