"""Put in words what the disk says, for people who can do something about it."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gateway.core.registry import RegistryError
from gateway.registry.cache.sizes import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})


@contextmanager
def storage_faults(title: str, directory: Path) -> Iterator[None]:
    """Turn an OSError into a RegistryError of step `fetch`, which may pass; no path of the server is named.

    Args:
        title: what was wanted, in words.
        directory: the cache's, for numbers.
    """
    try:
        yield
    except OSError as error:
        raise RegistryError("fetch", f"{title}: {_words(error, directory)}", may_pass=True) from error


def is_full(error: OSError) -> bool:
    """Return whether there was no room to write."""
    return error.errno in _FULL


def free_bytes(directory: Path) -> int:
    """Return what may still be written where `directory` is."""
    return shutil.disk_usage(directory).free


def _words(error: OSError, directory: Path) -> str:
    if is_full(error):
        what = "the disk" if error.errno == errno.ENOSPC else "the quota for the disk"
        return (
            f"{what} of the artifact cache is full{_free(directory)}; free some, or lower the cache's "
            "max_bytes or max_age_s"
        )
    if error.errno in _DENIED:
        return (
            f"the artifact cache may not be read or written ({error.strerror}); its directory must belong to "
            f"user {os.geteuid()}, who runs the gateway, with mode 0700, on a disk that is not read-only"
        )
    if error.errno in _TOO_MANY:
        return f"the artifact cache cannot open its files ({error.strerror}); raise the limit of open files"
    what = error.strerror or type(error).__name__
    return f"the artifact cache cannot be read or written ({what}); check its disk, or name another directory"


def _free(directory: Path) -> str:
    try:
        return f", {in_words(free_bytes(directory))} are free"
    except OSError:
        return ""
