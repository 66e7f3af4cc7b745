"""Frozen dataclasses as JSON types and back, by their annotations, so that every value can be journalled.

A dataclass is an object of its fields; one that stands for several types (a union) names its own under `is`.
An enum is its value, a set a sorted list, a version `{"model", "number", "digest"}`, a mapping whose keys are
no text a list of pairs. Fields that are left out take their defaults, so older documents can be read.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.core import evidence, rollout, state
from gateway.core.types import VersionId
from gateway.rollouts import effects, gates
from gateway.rollouts import state as rollout_state

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Undecodable(Exception):
    """JSON that is not what the type says; the message names the place."""


@lru_cache(maxsize=1)
def _names() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for module in (evidence, rollout, state, effects, gates, rollout_state):
        names.update({name: value for name, value in vars(module).items() if isinstance(value, type)})
    return (
        names
        | {name: getattr(rollout, name) for name in ("Step", "Gate")}
        | {"VersionId": VersionId, "Effect": effects.Effect}
    )


@lru_cache(maxsize=256)
def _fields(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, localns=_names())


def encode(value: Any) -> Any:
    """Return JSON types."""
    return _encode(value, type(value))


def decode(kind: type[T], value: Any) -> T:
    """Return a value of `kind`.

    Raises:
        Undecodable: it is none.
    """
    try:
        return typing.cast("T", _decode(kind, value))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Undecodable(f"not a {kind.__name__}: {exc!r}") from exc


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union but None; nothing when it is no union."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(a for a in typing.get_args(annotation) if a is not type(None))
    return ()


def _encode(value: Any, annotation: Any) -> Any:
    if isinstance(value, VersionId):
        return {"model": value.model, "number": value.number, "digest": value.digest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _fields(type(value))
        body = {f.name: _encode(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__} | body if len(_members(annotation)) > 1 else body
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return _encode_mapping(value, annotation)
    inner = typing.get_args(annotation)[:1] or (Any,)
    if isinstance(value, frozenset):
        return sorted((_encode(v, inner[0]) for v in value), key=repr)
    if isinstance(value, (tuple, list)):
        return [_encode(v, inner[0]) for v in value]
    return value


def _encode_mapping(value: Mapping[Any, Any], annotation: Any) -> Any:
    key, item = typing.get_args(annotation) or (str, Any)
    if key is str:
        return {k: _encode(v, item) for k, v in value.items()}
    return [[_encode(k, key), _encode(v, item)] for k, v in value.items()]


def _decode(annotation: Any, value: Any) -> Any:
    if annotation is Any:
        return value
    if members := _members(annotation):
        if value is None:
            return None
        one = members[0] if len(members) == 1 else next(m for m in members if m.__name__ == value["is"])
        return _decode(one, value)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return _decode_literal(annotation, value)
    if origin is not None:
        return _CONTAINERS[origin](typing.get_args(annotation), value)
    return _decode_plain(annotation, value)


def _decode_plain(annotation: Any, value: Any) -> Any:
    if annotation is VersionId:
        return VersionId(str(value["model"]), int(value["number"]), str(value["digest"]))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return annotation(value)
    if dataclasses.is_dataclass(annotation):
        return _decode_dataclass(annotation, value)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, annotation):
        raise TypeError(f"{value!r} is no {annotation.__name__}")
    return value


def _decode_dataclass(kind: Any, value: Any) -> Any:
    hints = _fields(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: _decode(hints[name], item) for name, item in value.items() if name in known})


def _decode_literal(annotation: Any, value: Any) -> Any:
    if value not in typing.get_args(annotation):
        raise ValueError(f"{value!r} is none of {typing.get_args(annotation)}")
    return value


def _decode_mapping(args: tuple[Any, ...], value: Any) -> Mapping[Any, Any]:
    key, item = args
    pairs = value.items() if key is str else value
    return MappingProxyType({_decode(key, k): _decode(item, v) for k, v in pairs})


def _decode_tuple(args: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_decode(args[0], v) for v in value)
    return tuple(_decode(a, v) for a, v in zip(args, value, strict=True))


_CONTAINERS: Mapping[Any, Callable[[tuple[Any, ...], Any], Any]] = MappingProxyType(
    {
        Mapping: _decode_mapping,
        tuple: _decode_tuple,
        frozenset: lambda args, value: frozenset(_decode(args[0], v) for v in value),
    }
)
