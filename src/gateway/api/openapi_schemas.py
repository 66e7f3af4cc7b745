"""JSON schemas of the bodies in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from gateway.core.types import Datatype

Schema: TypeAlias = Mapping[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_EMPTY: Final[Schema] = {"type": "object"}


def reference(name: str) -> Schema:
    """Return a reference to a schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(properties: Mapping[str, Schema], *required: str) -> Schema:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


_PARAMETERS: Final[Schema] = {
    "type": "object",
    "description": "Parameters: booleans, numbers or strings.",
    "additionalProperties": {"type": ["boolean", "number", "string"]},
}
_DATATYPE: Final[Schema] = {"type": "string", "enum": [datatype.value for datatype in Datatype]}
_SHAPE: Final[Schema] = _array({"type": "integer", "minimum": 0})
_TENSOR_METADATA: Final[Schema] = _object(
    {"name": _STRING, "datatype": _DATATYPE, "shape": _array({"type": "integer", "minimum": -1})},
    "name",
    "datatype",
    "shape",
)
_DURATION: Final[Schema] = _object({"count": _COUNT, "ns": _COUNT}, "count", "ns")
_TRACE_LEVEL: Final[Schema] = {"type": "string", "enum": ["OFF", "TIMESTAMPS"]}


def _trace_number(least: int) -> Schema:
    """Return the schema of a numeric trace setting in a request; null puts it back."""
    number = {"type": "integer", "minimum": least, "maximum": (1 << 31) - 1}
    return {"anyOf": [number, {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}, {"type": "null"}]}


SCHEMAS: Final[Mapping[str, Schema]] = {
    "Error": _object({"error": _STRING}, "error"),
    "Empty": _EMPTY,
    "Root": _object({"name": _STRING, "version": _STRING, "links": _EMPTY}, "name", "version", "links"),
    "ServerMetadata": _object(
        {"name": _STRING, "version": _STRING, "extensions": _array(_STRING)}, "name", "version", "extensions"
    ),
    "Live": _object({"live": _BOOLEAN}, "live"),
    "Ready": _object({"ready": _BOOLEAN}, "ready"),
    "ModelReady": _object({"name": _STRING, "ready": _BOOLEAN}, "name", "ready"),
    "ModelMetadata": _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _array(_TENSOR_METADATA),
            "outputs": _array(_TENSOR_METADATA),
        },
        "name",
        "versions",
        "platform",
        "inputs",
        "outputs",
    ),
    "ModelConfig": {"type": "object", "description": "Triton's ModelConfig as JSON.", "required": ["name"]},
    "Statistics": _object(
        {
            "model_stats": _array(
                _object(
                    {
                        "name": _STRING,
                        "version": _STRING,
                        "last_inference": _COUNT,
                        "inference_count": _COUNT,
                        "execution_count": _COUNT,
                        "inference_stats": {"type": "object", "additionalProperties": _DURATION},
                        "batch_stats": _array(_EMPTY),
                        "memory_usage": _array(_object({"type": _STRING, "id": _COUNT, "byte_size": _COUNT})),
                        "response_stats": {"type": "object", "additionalProperties": _EMPTY},
                    },
                    "name",
                    "version",
                    "inference_stats",
                )
            )
        },
        "model_stats",
    ),
    "InferInput": _object(
        {
            "name": _STRING,
            "shape": _SHAPE,
            "datatype": _DATATYPE,
            "parameters": _PARAMETERS,
            "data": {"type": "array", "description": "Elements in row-major order, nested or flat."},
        },
        "name",
        "shape",
        "datatype",
    ),
    "InferRequest": _object(
        {
            "id": _STRING,
            "parameters": _PARAMETERS,
            "inputs": _array(reference("InferInput")),
            "outputs": _array(_object({"name": _STRING, "parameters": _PARAMETERS}, "name")),
        },
        "inputs",
    ),
    "InferOutput": _object(
        {
            "name": _STRING,
            "shape": _SHAPE,
            "datatype": _DATATYPE,
            "parameters": _PARAMETERS,
            "data": {"type": "array", "description": "Elements in row-major order, flat."},
        },
        "name",
        "shape",
        "datatype",
    ),
    "InferResponse": _object(
        {
            "id": _STRING,
            "model_name": _STRING,
            "model_version": _STRING,
            "parameters": _PARAMETERS,
            "outputs": _array(reference("InferOutput")),
        },
        "model_name",
        "model_version",
        "outputs",
    ),
    "GenerateRequest": {
        "type": "object",
        "description": "One member per input, by its name; every other member is a request parameter.",
    },
    "GenerateResponse": _object(
        {"model_name": _STRING, "model_version": _STRING}, "model_name", "model_version"
    ),
    "IndexRequest": _object({"ready": _BOOLEAN}),
    "Index": _array(
        _object(
            {"name": _STRING, "version": _STRING, "state": _STRING, "reason": _STRING},
            "name",
        )
    ),
    "LoadRequest": _object(
        {
            "parameters": {
                "type": "object",
                "description": "`config`: JSON model configuration; `file:<path>`: a file in base64.",
                "properties": {"config": _STRING},
                "patternProperties": {"^file:": {"type": "string", "contentEncoding": "base64"}},
                "additionalProperties": False,
            }
        }
    ),
    "UnloadRequest": _object({"parameters": _object({"unload_dependents": _BOOLEAN})}),
    "TraceChanges": {
        "type": "object",
        "properties": {
            "trace_level": {
                "anyOf": [
                    _TRACE_LEVEL,
                    {"type": "array", "items": _TRACE_LEVEL, "minItems": 1, "maxItems": 1},
                    {"type": "null"},
                ]
            },
            "trace_rate": _trace_number(1),
            "trace_count": _trace_number(-1),
            "log_frequency": _trace_number(0),
        },
        "additionalProperties": False,
    },
    "TraceSettings": {
        "type": "object",
        "properties": {"trace_level": _array(_STRING)},
        "additionalProperties": {"type": "string"},
    },
    "LogSettings": {
        "type": "object",
        "properties": {
            "log_info": _BOOLEAN,
            "log_warning": _BOOLEAN,
            "log_error": _BOOLEAN,
            "log_verbose_level": {"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1},
        },
        "additionalProperties": False,
    },
}
