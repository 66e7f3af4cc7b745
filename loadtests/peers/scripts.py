"""Starts a peer's script from servers/ with the Python of its venv, and tells it what to serve and where."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx

from loadtests.peers.running import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtests.peers.base import Place

SERVERS: Final = Path(__file__).parent / "servers"
"""Not beside the adapters, whose names would hide the libraries that the scripts import."""
ROOT: Final = Path(__file__).resolve().parents[2]
"""What scripts find `loadtests.peers.servers` in; of this project they may import nothing else."""


def script_launch(
    place: Place, script: str, ports: Mapping[str, int], own: Mapping[str, object] | None = None
) -> Launch:
    """Return how to start a script.

    Args:
        place: where and what.
        script: its name in servers/.
        ports: protocol -> port.
        own: settings that this peer alone needs.
    """
    return Launch([python(place), str(SERVERS / script)], ports, settings_environment(place, ports, own))


def python(place: Place) -> str:
    """Return the Python that a peer's scripts run on: its venv's, or this one where it has none."""
    own = place.venv / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def settings_environment(
    place: Place, ports: Mapping[str, int], own: Mapping[str, object] | None = None
) -> dict[str, str]:
    """Write the settings into the working directory; return what makes scripts find them and each other."""
    settings = {
        "name": place.model.name,
        "file": str(place.model.file),
        "max_batch_rows": place.max_batch_rows,
        "ports": dict(ports),
        **(own or {}),
    }
    path = place.workdir / "script.json"
    path.write_text(json.dumps(settings, indent=2))
    return {"LOADTESTS_SETTINGS": str(path), "PYTHONPATH": str(ROOT)}


def first_output(file: Path) -> tuple[str, int]:
    """Return name and last dimension of a model's first output."""
    output = onnx.load(file, load_external_data=False).graph.output[0]
    return output.name, output.type.tensor_type.shape.dim[-1].dim_value
