"""Check where a model keeps its external data: only plain files inside its own version directory."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEMORY_TAG = "*/_ORT_MEM_ADDR_/*"  # ONNX Runtime reads `offset` as a memory address behind this location


class Refused(Exception):
    """The file must not be loaded; the message says why, without paths of the server."""


def external_file(directory: Path, tensor: str, location: str) -> Path:
    """Return the file behind an external-data location.

    Args:
        directory: the version directory, resolved.
        tensor: name of the tensor, for messages.
        location: as written in the model.

    Raises:
        Refused: the location is absolute, leaves the directory, passes a link, or names no plain file.
    """
    where = f"external data of tensor '{tensor}' at '{location}'"
    _check_location(where, location)
    path = directory
    for part in PurePosixPath(location).parts:
        path /= part
        if path.is_symlink():
            raise Refused(f"{where} passes through a symbolic link, which is not allowed")
    if not path.exists():
        raise Refused(f"{where} is missing from the version directory")
    if not stat.S_ISREG(path.stat().st_mode):
        raise Refused(f"{where} is not a plain file")
    return path


def _check_location(where: str, location: str) -> None:
    if not location or "\0" in location or location == _MEMORY_TAG:
        raise Refused(f"{where} is not a file name")
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive or "\\" in location:
        raise Refused(f"{where} must be relative to the version directory")
    if ".." in PurePosixPath(location).parts:
        raise Refused(f"{where} leaves the version directory")


def external_extent(where: str, entries: Mapping[str, str]) -> tuple[int, int | None]:
    """Return offset and length (None: to the end) in bytes from a tensor's external-data entries.

    Raises:
        Refused: one of them is not a whole number that a file can have.
    """
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else None
    except ValueError:
        raise Refused(f"{where}: offset or length is not a number") from None
    if offset < 0 or (length is not None and length < 0):
        raise Refused(f"{where}: offset or length is negative")
    return offset, length


def check_extent(where: str, size: int, extent: tuple[int, int | None], needed: int | None) -> None:
    """Check that a file of `size` bytes holds the extent, and the extent the `needed` bytes of the tensor.

    Raises:
        Refused: bytes are missing, as in a copy that was cut short.
    """
    offset, length = extent
    have = size - offset if length is None else length
    if have < 0 or offset + have > size:
        raise Refused(f"{where} needs bytes {offset} to {offset + have} of a file of {size}: cut short?")
    if needed is not None and have < needed:
        raise Refused(f"{where} holds {have} bytes, the tensor needs {needed}")
