"""Model and server metadata as protobuf and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway._proto import open_inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.interfaces import ServedVersion
    from gateway.core.types import TensorSpec


def metadata_message(served: ServedVersion, versions: Sequence[int]) -> pb.ModelMetadataResponse:
    """Return what a model takes and gives; `versions` are its READY ones. Shapes include the batch axis."""
    return pb.ModelMetadataResponse(
        name=served.id.model,
        versions=[str(number) for number in versions],
        platform=served.platform,
        inputs=[_tensor_message(spec) for spec in served.signature.inputs],
        outputs=[_tensor_message(spec) for spec in served.signature.outputs],
    )


def metadata_json(served: ServedVersion, versions: Sequence[int]) -> dict[str, Any]:
    """Return the same as a JSON object."""
    return {
        "name": served.id.model,
        "versions": [str(number) for number in versions],
        "platform": served.platform,
        "inputs": [_tensor_json(spec) for spec in served.signature.inputs],
        "outputs": [_tensor_json(spec) for spec in served.signature.outputs],
    }


def _tensor_message(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype.value, shape=spec.shape
    )


def _tensor_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}
