"""Labels as they are posted, read with suspicion: what is malformed is counted, the rest is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.core.errors import InvalidRequest, PayloadTooLarge
from gateway.monitor.pages.shown import LabelsTaken, PostedLabel

if TYPE_CHECKING:
    from starlette.requests import Request

_LONGEST: Final = 512
_MOST_INTEGER: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Post:
    """One post of labels.

    Attributes:
        model: public model name.
        labels: those that are well formed.
        malformed: how many are not.
    """

    model: str
    labels: tuple[PostedLabel, ...]
    malformed: int


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a JSON request, never holding more than `most` bytes of it.

    Raises:
        InvalidRequest: it is declared as something else than JSON.
        PayloadTooLarge: it is longer.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest("send labels with 'Content-Type: application/json'")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise PayloadTooLarge(f"labels are taken in posts of at most {most} bytes: send them in parts")
    return bytes(body)


def parse(body: bytes, most_labels: int) -> Post:
    """Read `{"model": name, "labels": [{"key": ..., "label": ..., ...}]}`; fields as of PostedLabel.

    Raises:
        InvalidRequest: it is not such a document.
        PayloadTooLarge: it has more than `most_labels` labels.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"labels are no JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("labels"), list):
        raise InvalidRequest("labels are posted as {'model': NAME, 'labels': [{'key': ..., 'label': ...}]}")
    model, labels = document.get("model"), document["labels"]
    if not isinstance(model, str) or not 0 < len(model) <= _LONGEST:
        raise InvalidRequest("'model' must be the name of a model")
    if len(labels) > most_labels:
        raise PayloadTooLarge(f"a post takes at most {most_labels} labels: send them in parts")
    read = [label for entry in labels if (label := _label(entry)) is not None]
    return Post(model, tuple(read), len(labels) - len(read))


def with_malformed(taken: LabelsTaken, malformed: int) -> LabelsTaken:
    """Return what became of a post, its malformed labels among the refused ones."""
    if not malformed:
        return taken
    reasons = {**taken.reasons, "malformed": taken.reasons.get("malformed", 0) + malformed}
    return LabelsTaken(
        joined=taken.joined,
        waiting=taken.waiting,
        unchanged=taken.unchanged,
        refused=taken.refused + malformed,
        reasons=reasons,
    )


def _label(entry: Any) -> PostedLabel | None:
    if not isinstance(entry, dict):
        return None
    key, label, source = entry.get("key"), _value(entry.get("label")), entry.get("source", "")
    at_s, weight = entry.get("at_s"), entry.get("weight", 1.0)
    row, revision = entry.get("row", 0), entry.get("revision", 0)
    well_formed = (
        _is_text(key, 1)
        and label is not None
        and _is_text(source, 0)
        and (at_s is None or (_is_number(at_s) and 0 <= at_s < 1e11))
        and _is_number(weight)
        and 0 < weight <= 1e9
        and _is_count(row)
        and _is_count(revision)
    )
    if not well_formed:
        return None
    assert label is not None
    assert isinstance(key, str)
    return PostedLabel(
        key=key, label=label, row=row, at_s=at_s, revision=revision, weight=float(weight), source=source
    )


def _value(label: Any) -> str | float | None:
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, str):
        return label if len(label) <= _LONGEST else None
    if isinstance(label, int) and abs(label) <= 1 << 53:
        return label
    return label if isinstance(label, float) and math.isfinite(label) else None


def _is_text(value: Any, least: int) -> bool:
    return isinstance(value, str) and least <= len(value) <= _LONGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_INTEGER
