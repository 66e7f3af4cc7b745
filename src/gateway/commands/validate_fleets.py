"""What keeps fleets that a configuration names from being reached, as far as this host can tell."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from gateway.backends.remote.addresses import WrongAddresses, parse_lines
from gateway.commands.validate_models import readable_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.schema import GatewayConfig
    from gateway.config.triton_settings import FleetSettings
    from gateway.config.yaml_file import Location


def fleet_complaints(config: GatewayConfig) -> Iterator[tuple[Location, str]]:
    """Yield where in the file, and what: about fleets. No endpoint is asked: it may be down just now."""
    if config.triton and importlib.util.find_spec("tritonclient") is None:
        yield ("triton",), "needs pip install 'model-gateway[triton]'"
    for index, fleet in enumerate(config.triton):
        for key, text in _complaints(fleet):
            yield ("triton", index, *key), f"fleet '{fleet.name}': {text}"


def _complaints(fleet: FleetSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    if fleet.tls is not None:
        for key in ("ca_file", "cert_file", "key_file"):
            file = getattr(fleet.tls, key)
            if file is not None and not readable_file(file):
                yield ("tls", key), f"{file}: no such readable file"
    if fleet.file is not None:
        try:
            parse_lines(fleet.file.read_text(encoding="utf-8"))
        except WrongAddresses as error:
            yield ("file",), f"{fleet.file}: {error}"
        except (OSError, UnicodeDecodeError) as error:
            yield ("file",), f"{fleet.file}: cannot be read: {error}"
    if fleet.repository is not None and not (
        fleet.repository.is_dir() and os.access(fleet.repository, os.R_OK | os.W_OK | os.X_OK)
    ):
        yield ("repository",), f"{fleet.repository}: no such directory, or it may not be written to"
