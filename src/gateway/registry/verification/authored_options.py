"""What a registry's config.pbtxt may not ask of the backend: native code, and files of the server. Pure.

Whoever can write into a registry describes a model with it; only the gateway's own configuration, written by
its operator, may make the server load libraries, or read and write files that it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.core.errors import ModelLoadError

_NATIVE_CODE: Final = ("allow_custom_ops", "custom_op_libraries")
# Provider and session options that name files, as trt_timing_cache_path, load_config or cache_dir, or that
# read and write some of their own accord, as trt_engine_cache_enable.
_FILES: Final = re.compile(r"path|dir\b|_dir|file|folder|lib|plugin|cache|dump|load_config", re.IGNORECASE)


def check_authored_options(options: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Check the backend options of a model whose description comes from a registry.

    Args:
        options: the model's `backend_options` with what the registry's config.pbtxt declares applied.
        own: the operator's `backend_options` before that; what equals them is the operator's.

    Raises:
        ModelLoadError: names the option.
    """
    for option in _NATIVE_CODE:
        if options.get(option) and options.get(option) != own.get(option):
            raise ModelLoadError(
                f"the registry's config.pbtxt asks for '{option}', which runs native code inside the server; "
                "only the gateway's own configuration may"
            )
    known = set(_entries(own))
    for key, value in _entries(options):
        if _FILES.search(key) and (key, value) not in known:
            raise ModelLoadError(
                f"the registry's config.pbtxt sets '{key}', which reads or writes files of the server; only "
                "the gateway's own configuration may"
            )


def _entries(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is passed through to ONNX Runtime: session entries and options of providers."""
    providers = options.get("providers") or ()
    for provider in [providers] if isinstance(providers, str | Mapping) else providers:
        if isinstance(provider, Mapping):
            yield from _texts(provider.get("options"))
    for key in ("cuda", "session_options"):
        yield from _texts(options.get(key))


def _texts(entries: Any) -> Iterator[tuple[str, str]]:
    if isinstance(entries, Mapping):
        yield from ((str(key), str(value)) for key, value in entries.items())
