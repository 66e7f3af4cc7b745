"""The captured openings and header blocks of real gRPC clients, as files in captures/."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests.hpack_blocks import Slot, Templates

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER: Final = Path(__file__).with_name("captures")
UNARY_PATH: Final = "/inference.GRPCInferenceService/ModelInfer"
STREAM_PATH: Final = "/inference.GRPCInferenceService/ModelStreamInfer"


@dataclass(frozen=True, slots=True)
class Capture:
    """What one client sends on a connection.

    Attributes:
        opening: everything before the first request: preface, SETTINGS and what else the client says.
        templates: the header blocks of its requests.
    """

    opening: bytes
    templates: Templates


def variant(*, stream: bool = False, deadlines: bool = False, traceparent: bool = False) -> str:
    """Return the name of the capture that has exactly these."""
    if stream:
        return "stream"
    parts = ["deadlines"] * deadlines + ["traceparent"] * traceparent
    return "+".join(parts) or "plain"


def load(client: str, name: str) -> Capture:
    """Return the capture `name` (see `variant`) of a client."""
    document = json.loads((FOLDER / f"{client}.json").read_text())
    found = document["captures"][name]
    blocks = tuple(tuple(_part(part) for part in block) for block in found["blocks"])
    return Capture(bytes.fromhex(found["opening"]), Templates(blocks, found["cycle"]))


def save(client: str, version: str, captures: Mapping[str, Capture]) -> Path:
    """Write the captures of a client, a block per line so that a change shows; return the file."""
    lines = [f'{{\n"client": {json.dumps(version)},\n"captures": {{']
    for index, (name, capture) in enumerate(captures.items()):
        blocks = ",\n".join(
            json.dumps([_written(part) for part in block]) for block in capture.templates.blocks
        )
        head = f'"{name}": {{"opening": "{capture.opening.hex()}", "cycle": {capture.templates.cycle}'
        end = "]}" if index == len(captures) - 1 else "]},"
        lines.append(f'{head}, "blocks": [\n{blocks}\n{end}')
    path = FOLDER / f"{client}.json"
    path.write_text("\n".join([*lines, "}}\n"]))
    return path


def _written(part: bytes | Slot) -> Any:
    return part.hex() if isinstance(part, bytes) else [part.name, part.sample, part.huffman]


def _part(part: Any) -> bytes | Slot:
    return bytes.fromhex(part) if isinstance(part, str) else Slot(*part)
