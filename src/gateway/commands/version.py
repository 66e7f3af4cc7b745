"""`gateway version`: which release this is, and whether it is the compiled one."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import version
from importlib.util import find_spec


def describe_version() -> str:
    """Return the release and how it runs, such as `0.1.0 (compiled)`.

    Raises:
        importlib.metadata.PackageNotFoundError: the package runs from files that were never installed.
    """
    return f"{version('model-gateway')} ({'compiled' if is_compiled() else 'pure Python'})"


def is_compiled() -> bool:
    """Return whether the request path is the one compiled by mypyc; all its modules are, or none."""
    spec = find_spec("gateway.core.pending")
    return spec is not None and (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES))
