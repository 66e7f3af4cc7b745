"""Read JSON that a crash, a disk or a person may have damaged. Blocking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES: Final = 64 << 20


def read_note(path: Path) -> bytes:
    """Return the content of a file, the beginning of it if it is larger than any that was written.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(_MAX_BYTES)


def parsed(text: bytes) -> object:
    """Return what `text` says; None, as for null, when it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
