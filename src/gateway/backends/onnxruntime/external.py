"""Check where a model keeps its external data: only plain files inside its own version directory.

Hard links pass here: deployments by `cp -l` and `rsync --link-dest` are made of them. What comes from a
registry has none (`gateway.registry.verification.plain_files`).
"""

from __future__ import annotations

import re
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MEMORY_TAG = "*/_ORT_MEM_ADDR_/*"  # ONNX Runtime reads `offset` as a memory address behind this location
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,20}")  # what every reader takes alike
_MOST_CHARACTERS: Final = 120


class Refused(Exception):
    """The file must not be loaded; the message says why, without paths of the server."""


def checked_text(value: str | bytes) -> str:
    """Return a string of a file; protobuf hands out bytes where the file holds something else than text.

    Raises:
        Refused: not UTF-8.
    """
    if isinstance(value, bytes):
        raise Refused(f"not a valid ONNX file: '{shown(value)}' is a name that is not UTF-8 text")
    return value


def shown(text: str | bytes) -> str:
    """Return a name from a file as text that can be sent and logged: short, without control characters."""
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    text = text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def external_entries(tensor: str, pairs: Iterable[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    """Return a tensor's external-data entries by key.

    Raises:
        Refused: an entry is no text; a key is there twice, where readers may differ on which counts; or the
            entries point at weights in the layout of some machine, whose sizes nobody can check.
    """
    entries: dict[str, str] = {}
    for key, value in ((checked_text(k), checked_text(v)) for k, v in pairs):
        if key in entries:
            raise Refused(f"external data of tensor '{shown(tensor)}' gives '{shown(key)}' twice")
        if key.startswith("prepacked"):
            raise Refused(
                f"external data of tensor '{shown(tensor)}' holds weights packed for one machine; save the "
                "model without session.save_external_prepacked_constant_initializers"
            )
        entries[key] = value
    return entries


def external_file(directory: Path, tensor: str, location: str) -> Path:
    """Return the file behind an external-data location.

    Args:
        directory: what locations are relative to, resolved.
        tensor: name of the tensor, for messages.
        location: as written in the model.

    Raises:
        Refused: the location is absolute, leaves the directory, passes a link, or names no plain file.
    """
    where = f"external data of tensor '{shown(tensor)}' at '{shown(location)}'"
    _check_location(where, location)
    try:
        return _plain_file(where, directory, PurePosixPath(location))
    except OSError as error:
        raise Refused(f"{where} cannot be read: {error.strerror or type(error).__name__}") from error


def _plain_file(where: str, directory: Path, location: PurePosixPath) -> Path:
    path = directory
    for part in location.parts:
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
    given = [entries.get("offset") or "0", entries.get("length") or "0"]
    if not all(map(_WHOLE_NUMBER.fullmatch, given)):
        raise Refused(f"{where}: offset or length is not a number")
    offset, length = int(given[0]), int(given[1]) if entries.get("length") else None
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
