"""The models that the client tests call (`tests.acceptance.zoo`), as a real tritonserver has them.

`patient` and `ranked` differ: on Triton, batches of four rows are the gateway's to wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance import zoo
from tests.acceptance.process import ROOT
from tests.triton import models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.triton.models import Model

DIGITS = ROOT / "models" / "digits"
_LABELS = tuple(str(number) for number in range(10))


def digits(*versions: int, more: tuple[str, ...] = ()) -> Model:
    """Return the sample model `digits` in these versions, both without any."""
    files = {version: DIGITS / str(version) / "model.onnx" for version in versions or (1, 2)}
    return models.of_onnx(files, labels=_LABELS, more=more)


def zoo_models() -> Mapping[str, Model]:
    """Return every model of the zoo that Triton can have: all but those of rank 0, and two of its own."""
    return {
        **{f"identity_{name.lower()}": models.identity(name) for name in zoo.ELEMENT_TYPES},
        "pair": models.of_onnx({1: zoo.pair()}, more=[models.dynamic()]),
        "scaled": models.of_onnx({1: zoo.scaled(2.0)}, more=[models.dynamic()]),
        "optional": models.of_onnx({1: zoo.shifted()}, max_batch_size=0, optional=["shift"]),
        "patient": models.of_onnx({1: zoo.identity(["batch", 1])}),
        "ranked": models.of_onnx({1: zoo.identity(["batch", 1])}),
        "repeat": models.repeat(),
        "slow": models.slow(),
        "digits": digits(more=(models.dynamic(),)),
    }
