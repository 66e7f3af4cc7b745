"""The profile as a file: `profile.json`, one JSON document that carries its version and its digest.

Arrays are lists of numbers, categories base64. A file may come from anywhere: what is not exactly a profile
of this version, within the bounds below, is refused before anything is made of it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import orjson

from gateway.core.errors import ConfigError
from gateway.monitor.profile.reference import (
    BINS,
    DICTIONARY,
    BlockThreshold,
    CategoryReference,
    EmbeddingReference,
    NumericReference,
    Profile,
    SegmentReference,
    Task,
    TaskKind,
)
from gateway.predlog.rows import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FILE_NAME: Final = "profile.json"
FORMAT: Final = "model-gateway profile"
VERSION: Final = 1

MAX_BYTES: Final = 64 << 20
"""Of a file; a longer one is not read."""
MAX_SIGNALS: Final = 4096
"""Numeric, categorical and embedded ones together."""
MAX_NAME: Final = 512
"""Characters of a name."""
MAX_CATEGORY: Final = 4096
"""Bytes of a category."""
MAX_FEATURES: Final = 8192
"""Fourier features of an embedding."""
MAX_WIDTH: Final = 65_536
"""Values per row of an embedding."""
MAX_SEGMENTS: Final = 256
"""Segments with a reference of their own."""
MAX_CALIBRATION: Final = 65_536
"""Points of the calibration."""
MAX_CLASSES: Final = 64
"""Classes with a calibration of their own."""

_Item = TypeVar("_Item")


class ProfileError(ConfigError):
    """A file is no profile that can be used; the message says why."""


def sealed(profile: Profile) -> Profile:
    """Return the profile with `id` set to the digest of all else."""
    return replace(profile, id=_digest(_document(profile)))


def to_bytes(profile: Profile) -> bytes:
    """Return the profile's file, human readable; `profile.id` must be right (`sealed`)."""
    head = {"format": FORMAT, "format_version": VERSION, "id": profile.id}
    return orjson.dumps(head | _document(profile), option=orjson.OPT_INDENT_2) + b"\n"


def from_bytes(data: bytes) -> Profile:
    """Return the profile that a file holds.

    Raises:
        ProfileError: it holds none, of another version, damaged, or beyond the bounds.
    """
    if len(data) > MAX_BYTES:
        raise ProfileError(f"a profile has at most {MAX_BYTES >> 20} MiB")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProfileError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProfileError(f"no profile: expected a JSON object whose format is {FORMAT!r}")
    if document.get("format_version") != VERSION or isinstance(document["format_version"], bool):
        raise ProfileError(
            f"format version {document.get('format_version')!r} is not known here, {VERSION} is: "
            "make it anew with `gateway monitor profile`"
        )
    try:
        profile = _profile(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProfileError(f"not a profile: {_reason(error)}") from error
    if _digest(_document(profile)) != profile.id:
        raise ProfileError("its digest does not match: it was edited or damaged; make it anew")
    return profile


def read(path: Path) -> Profile:
    """Return the profile in a file.

    Raises:
        ProfileError: with the file's name: it cannot be read or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return from_bytes(data)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def write(profile: Profile, path: Path) -> None:
    """Replace the file at once: a reader sees the old or the new profile.

    Raises:
        ProfileError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".profile-", delete=False) as file:
            temporary = Path(file.name)
            file.write(to_bytes(profile))
        try:
            temporary.chmod(0o644)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error


def _reason(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)[:200]


def _digest(document: dict[str, Any]) -> str:
    canonical = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()


def _document(profile: Profile) -> dict[str, Any]:
    """Return everything but the id, in JSON types."""
    return {
        **_plain(profile, "model", "version", "created_s", "source", "rows"),
        "numeric": [_of(reference) for reference in profile.numeric],
        "categories": [_of(reference) for reference in profile.categories],
        "embeddings": [_of(reference) for reference in profile.embeddings],
        "task": None if profile.task is None else _of(profile.task),
        "blocks": {
            signal: {statistic: _of(threshold) for statistic, threshold in found.items()}
            for signal, found in profile.blocks.items()
        },
        "performance": {name: _json(value) for name, value in profile.performance.items()},
        "calibration": _json(profile.calibration),
        # Left out where empty: profiles from before it was known keep their digest.
        **({"class_calibrations": _json(profile.class_calibrations)} if profile.class_calibrations else {}),
        "segments": list(profile.segments),
        "by_segment": {name: _of(segment) for name, segment in profile.by_segment.items()},
    }


def _plain(record: object, *names: str) -> dict[str, Any]:
    return {name: _json(getattr(record, name)) for name in names}


def _of(record: Any) -> dict[str, Any]:
    return _plain(record, *(f.name for f in fields(record)))


def _json(value: Any) -> Any:
    match value:
        case Role() | TaskKind():
            return value.value
        case np.ndarray():
            return value.tolist()
        case tuple():
            return [_json(v) for v in value]
        case bytes():
            return base64.b64encode(value).decode()
        case np.generic():
            return _json(value.item())
        case float() if not math.isfinite(value):
            raise ProfileError("a profile's numbers are finite")
    return value


def _profile(document: dict[str, Any]) -> Profile:
    numeric = _many(document["numeric"], _numeric)
    categories = _many(document["categories"], _category)
    embeddings = _many(document["embeddings"], _embedding)
    if len(numeric) + len(categories) + len(embeddings) > MAX_SIGNALS:
        raise ValueError(f"more than {MAX_SIGNALS} signals")
    _distinct([n.name for n in numeric])
    _distinct([c.name for c in categories])
    _distinct([e.name for e in embeddings])
    known = {n.name for n in numeric}
    if strangers := {m for e in embeddings for m in e.members} - known:
        raise ValueError(f"members {sorted(strangers)[:3]} are no numeric signals of it")
    return Profile(
        id=_name(document["id"]),
        model=_name(document["model"]),
        version=_count(document["version"]),
        created_s=_number(document["created_s"]),
        source=_name(document["source"]),
        rows=_count(document["rows"]),
        numeric=numeric,
        categories=categories,
        embeddings=embeddings,
        task=None if document["task"] is None else _task(document["task"]),
        blocks=_blocks(document["blocks"]),
        performance={_name(k): _number(v) for k, v in _bounded(document["performance"].items(), 256)},
        calibration=_calibration(document["calibration"]),
        class_calibrations=_class_calibrations(document),
        segments=tuple(_name(s) for s in _bounded(document["segments"], 64)),
        by_segment=_segments(document["by_segment"], numeric, categories),
    )


def _many(values: list[Any], read_one: Callable[[dict[str, Any]], _Item]) -> tuple[_Item, ...]:
    return tuple(read_one(value) for value in _bounded(values, MAX_SIGNALS))


def _bounded(values: Iterable[Any], most: int) -> list[Any]:
    found = list(values)
    if len(found) > most:
        raise ValueError(f"a list of {len(found)}, at most {most} are allowed")
    return found


def _distinct(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError("two signals of one name")


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ValueError(f"expected a text of at most {MAX_NAME} characters, got {value!r:.60}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r:.60}")
    return float(value)


def _amount(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"expected a number of rows, got {value!r:.60}")
    return number


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError(f"expected a whole number from 0, got {value!r:.60}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {value!r:.60}")
    return value


def _array(value: Any, *shape: int) -> Floats:
    """Return finite float64 of the shape; -1 in it stands for any length."""
    array = np.array(value, np.float64)
    fits = array.ndim == len(shape) and all(s in (-1, n) for s, n in zip(shape, array.shape, strict=True))
    if not fits or not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers of shape {shape}")
    array.flags.writeable = False
    return array


def _rows_by_bin(value: Any, bins: int) -> Floats:
    counts = _array(value, bins)
    if (counts < 0).any():
        raise ValueError("a bin with fewer than no rows")
    return counts


def _numeric(value: dict[str, Any]) -> NumericReference:
    edges = _array(value["edges"], -1)
    if len(edges) > BINS - 1 or (np.diff(edges) <= 0).any():
        raise ValueError(f"edges must ascend, at most {BINS - 1} of them")
    scalars = ("mean", "low", "high", "least", "most")
    return NumericReference(
        name=_name(value["name"]),
        role=Role(value["role"]),
        edges=edges,
        counts=_rows_by_bin(value["counts"], len(edges) + 1),
        **{name: _amount(value[name]) for name in ("rows", "missing", "infinite", "variance")},
        **{name: _number(value[name]) for name in scalars},
        integer=_flag(value["integer"]),
        quantiles=_array(value["quantiles"], 101),
    )


def _category(value: dict[str, Any]) -> CategoryReference:
    values = tuple(_bytes(v) for v in _bounded(value["values"], DICTIONARY))
    if len(set(values)) < len(values):
        raise ValueError("a category twice")
    return CategoryReference(
        name=_name(value["name"]),
        role=Role(value["role"]),
        values=values,
        counts=_rows_by_bin(value["counts"], len(values) + 1),
        rows=_amount(value["rows"]),
        missing=_amount(value["missing"]),
    )


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * MAX_CATEGORY:
        raise ValueError("a category is base64 of bounded length")
    return base64.b64decode(value, validate=True)


def _embedding(value: dict[str, Any]) -> EmbeddingReference:
    members = tuple(_name(m) for m in _bounded(value["members"], MAX_SIGNALS))
    width, features = _count(value["width"]), _count(value["features"])
    if not 0 < width <= MAX_WIDTH or not 0 < features <= MAX_FEATURES or features % 2:
        raise ValueError(f"width {width} or features {features} out of bounds")
    if members and len(members) != width:
        raise ValueError("the width must be the number of members")
    gamma = _number(value["gamma"])
    if gamma <= 0:
        raise ValueError("gamma must be above 0")
    sample = _array(value["sample"], -1, 2) if value["sample"] else np.empty((0, 2))
    return EmbeddingReference(
        name=_name(value["name"]),
        role=Role(value["role"]),
        members=members,
        width=width,
        features=features,
        gamma=gamma,
        seed=_count(value["seed"]),
        total=_array(value["total"], features),
        rows=_amount(value["rows"]),
        sample=sample[:512],
        axes=_array(value["axes"], 2, width),
        traces=_pair(value["traces"]),
    )


def _pair(value: Any) -> tuple[float, float]:
    first, second = _bounded(value, 2)
    return _amount(first), _amount(second)


def _segments(
    value: dict[str, Any], numeric: tuple[NumericReference, ...], categories: tuple[CategoryReference, ...]
) -> dict[str, SegmentReference]:
    found = {}
    for name, segment in _bounded(value.items(), MAX_SEGMENTS):
        pairs = (
            zip(_bounded(segment["numeric"], MAX_SIGNALS), numeric, strict=True),
            zip(_bounded(segment["categories"], MAX_SIGNALS), categories, strict=True),
        )
        counts = [tuple(_rows_by_bin(one, len(of.counts) + 1) for one, of in each) for each in pairs]
        found[_name(name)] = SegmentReference(_amount(segment["rows"]), *counts)
    return found


def _task(value: dict[str, Any]) -> Task:
    return Task(
        kind=TaskKind(value["kind"]),
        score=_name(value["score"]),
        prediction=_name(value["prediction"]),
        classes=tuple(_name(c) for c in _bounded(value["classes"], 10_000)),
        threshold=_number(value["threshold"]),
    )


def _blocks(value: dict[str, Any]) -> dict[str, dict[str, BlockThreshold]]:
    found = _bounded(value.items(), 2 * MAX_SIGNALS)
    return {
        _name(signal): {_name(s): _threshold(t) for s, t in _bounded(by.items(), 32)} for signal, by in found
    }


def _threshold(value: dict[str, Any]) -> BlockThreshold:
    return BlockThreshold(_count(value["rows"]), _count(value["blocks"]), _number(value["quantile"]))


def _class_calibrations(document: dict[str, Any]) -> tuple[Floats, ...]:
    found = [_calibration(value) for value in _bounded(document.get("class_calibrations", []), MAX_CLASSES)]
    known = tuple(each for each in found if each is not None)
    if len(known) != len(found):
        raise ValueError("the calibration of a class is missing")
    return known


def _calibration(value: Any) -> Floats | None:
    if value is None:
        return None
    array = _array(value, 2, -1)
    if array.shape[1] > MAX_CALIBRATION or (np.diff(array[0]) < 0).any():
        raise ValueError("the calibration's scores must ascend")
    return array
