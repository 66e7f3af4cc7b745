"""What the server says of itself: name, version and the protocol extensions it serves."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Final

DISTRIBUTION: Final = "model-gateway"

# Names as Triton's ServerMetadata has them. What is not served is not named: sequence and the shared-memory
# extensions are missing on purpose.
EXTENSIONS: Final = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """The server's face in ServerMetadata and `GET /v2`.

    Attributes:
        name: name of the product.
        version: its release.
        extensions: names of the protocol extensions served.
    """

    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS


def installed_metadata() -> ServerMetadata:
    """Return the metadata of the distribution that is installed.

    Raises:
        importlib.metadata.PackageNotFoundError: the package runs from files that were never installed.
    """
    return ServerMetadata(DISTRIBUTION, metadata.version(DISTRIBUTION))
