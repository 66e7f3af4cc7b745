"""Judge the list of files that a registry gives for a version, before any of them is fetched."""

from __future__ import annotations

import unicodedata
from itertools import islice
from typing import TYPE_CHECKING

from gateway.core.registry import RegistryError
from gateway.registry.cache.manifest import is_sha256
from gateway.registry.cache.sizes import in_words
from gateway.registry.verification.plain_files import path_problem, shown_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.registry import RegistryFile
    from gateway.registry.cache.options import CacheOptions


def checked_listing(
    title: str, listed: Iterable[RegistryFile], options: CacheOptions
) -> tuple[RegistryFile, ...]:
    """Return the files, ordered by path, when a version may consist of them.

    Paths must stay different where case and Unicode form do not count; none may be file and directory.

    Args:
        title: the version in words.
        listed: what the registry gave.
        options: bounds of count and bytes.

    Raises:
        RegistryError: step `fetch`, for good.
    """
    files = tuple(islice(listed, options.max_files + 1))
    if not files:
        raise _refused(f"{title} has no files in the registry")
    if len(files) > options.max_files:
        raise _refused(f"{title} has more than {options.max_files} files; raise the cache's max_files")
    for file in files:
        if problem := _problem(file):
            raise _refused(f"{title} lists the file {shown_path(file.path)}, {problem}")
    _check_distinct(title, files)
    total = sum(file.size or 0 for file in files)
    if total > options.max_artifact_bytes:
        raise _refused(too_large(title, total, options))
    return tuple(sorted(files, key=lambda file: file.path.split("/")))


def too_large(title: str, total: int, options: CacheOptions) -> str:
    """Return what to say of a version of `total` bytes or more, which is above the limit."""
    return (
        f"{title} has {in_words(total)} or more, the limit is {in_words(options.max_artifact_bytes)}; raise "
        "the cache's max_artifact_bytes if it must be served"
    )


def _problem(file: RegistryFile) -> str:
    if problem := path_problem(file.path):
        return problem
    if file.size is not None and file.size < 0:
        return f"with an impossible size of {file.size} bytes"
    if file.sha256 and not is_sha256(file.sha256.lower()):
        return f"with {shown_path(file.sha256)} for a SHA-256 digest"
    return ""


def _check_distinct(title: str, files: tuple[RegistryFile, ...]) -> None:
    """Pass when no two paths would meet on a file system that knows no case, or that normalizes names."""
    taken: dict[str, str] = {}
    for file in files:
        folded = _folded(file.path)
        if folded in taken:
            pair = f"{shown_path(taken[folded])} and {shown_path(file.path)}"
            raise _refused(f"{title} lists {pair}, which are one name to some file systems; rename one")
        taken[folded] = file.path
    for file in files:
        parts = _folded(file.path).split("/")
        for length in range(1, len(parts)):
            if (other := taken.get("/".join(parts[:length]))) is not None:
                raise _refused(f"{title} lists {shown_path(other)} as a file and as a directory")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _refused(message: str) -> RegistryError:
    return RegistryError("fetch", message, may_pass=False)
