"""Fleets for the contract suite of backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.backends.backend_contract import BackendUnderTest
from tests.backends.triton.fleets import NOTHING

if TYPE_CHECKING:
    from tests.backends.triton.fleets import Scene


def under_contract(scene: Scene, model: str) -> BackendUnderTest:
    """Return the backend of a scene for the contract suite.

    Args:
        scene: whose fleet has the model.
        model: `y = x` over rows of two FP32, by its name there.
    """
    options = {"fleet": "f", "model": model, "ready_timeout_s": 20.0}
    return BackendUnderTest(
        scene.backend,
        NOTHING,
        NOTHING,
        options=options,
        bad_options={**options, "model": "nowhere", "ready_timeout_s": 0.1},
        device="fleet:0",
        instances=None,
    )
