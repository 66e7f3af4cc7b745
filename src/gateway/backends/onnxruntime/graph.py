"""What an ONNX file says of itself, as plain records that travel between processes as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

Dim: TypeAlias = int | str | None
"""A size, the name of a symbolic size, or None for a size without a name."""


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """One input or output of a graph.

    Attributes:
        name: its name in the graph.
        datatype: protocol datatype (`FP32`), or None when the protocol has none for it.
        kind: what the file declares, for messages: `tensor(float)`, `seq(map)`, ...
        dims: all axes; None when the file does not even declare the rank.
        optional: may be left out: of optional type, or an initializer that callers may override.
    """

    name: str
    datatype: str | None
    kind: str
    dims: tuple[Dim, ...] | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class GraphReport:
    """An inspected file that may be loaded.

    Attributes:
        inputs: in the file's order; initializers only where they may be overridden (`optional`).
        outputs: in the file's order, of every kind.
        initializers: names of `inputs` that have a default in the file.
        total_bytes: size of the file and of the external data it uses.
        notices: sentences for the operator on what of the file is not followed.
        sha256: of the bytes of the model file that were inspected; empty where nobody asks for it.
    """

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    initializers: tuple[str, ...]
    total_bytes: int
    notices: tuple[str, ...] = ()
    sha256: str = ""


def encode(report: GraphReport) -> str:
    """Return the report as JSON."""
    return json.dumps(asdict(report))


def decode(text: str | bytes) -> GraphReport:
    """Read a report back.

    Raises:
        ValueError: not what `encode` writes.
    """
    fields: dict[str, Any] = json.loads(text)
    try:
        return GraphReport(
            inputs=tuple(_tensor(t) for t in fields["inputs"]),
            outputs=tuple(_tensor(t) for t in fields["outputs"]),
            initializers=tuple(fields["initializers"]),
            total_bytes=int(fields["total_bytes"]),
            notices=tuple(fields["notices"]),
            sha256=str(fields["sha256"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a graph report: {error}") from error


def _tensor(fields: dict[str, Any]) -> GraphTensor:
    dims = fields["dims"]
    return GraphTensor(**{**fields, "dims": None if dims is None else tuple(dims)})
