"""The extra `monitor`: what it takes, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
from typing import Final

from gateway.commands.failure import CommandFailed

EXTRA: Final = ("bokeh", "datasketches", "pyarrow", "scipy")
"""What the monitor imports beyond the gateway's own dependencies: the extra `monitor`."""


def check_installed() -> None:
    """Refuse what would only fail again and again.

    Raises:
        CommandFailed: a library of the extra is missing.
    """
    for name in EXTRA:
        if importlib.util.find_spec(name) is None:
            raise CommandFailed(not_installed(name))


def not_installed(name: str) -> str:
    """Return what to do about a library that is not there."""
    return f"the monitor needs {name}: pip install 'model-gateway[monitor]'"
