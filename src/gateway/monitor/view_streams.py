"""Which streams there are, and which of them a selection means. Engine thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.errors import NotFound
from gateway.monitor.pages.shown import ModelShown, Selection, SignalShown, VersionShown
from gateway.monitor.values import ALL, Coverage, StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.monitor.pages.shown import Period
    from gateway.monitor.parts import Parts

DAY_S: Final = 86_400.0
STABLE: Final = "stable"
MAX_MODELS: Final = 1000
MAX_SEGMENTS: Final = 200
_NO_ROUTE: Final = ""


def keys_of(parts: Parts, model: str) -> list[StreamKey]:
    """Return the streams of a model, segments among them.

    Raises:
        NotFound: nobody knows the model.
    """
    found = [key for key in parts.panes.keys() if key.model == model]  # noqa: SIM118 - no dictionary
    if not found:
        raise NotFound(f"no rows of model '{model}' have come")
    return found


def resolved(parts: Parts, selection: Selection, period: Period) -> StreamKey:
    """Return the stream that a selection means.

    Raises:
        NotFound: there is no such stream.
    """
    keys = keys_of(parts, selection.model)
    if selection.version is None:
        wholes = [key for key in keys if key.segment == ALL]
        version = max(wholes, key=lambda key: (_weight(parts, key, period), key.version)).version
    else:
        version = selection.version
    keys = [key for key in keys if key.version == version]
    if not keys:
        raise NotFound(f"no rows of version {version} of model '{selection.model}' have come")
    arms = {key.arm for key in keys}
    arm = selection.arm
    if arm == _NO_ROUTE and arm not in arms:
        arm = STABLE if STABLE in arms else min(arms)
    keys = [key for key in keys if key.arm == arm and key.segment == selection.segment]
    if not keys:
        what = f"arm '{arm}'" + (f", segment '{selection.segment}'" if selection.segment else "")
        raise NotFound(f"no rows of {what} of version {version} of model '{selection.model}' have come")
    return max(keys, key=lambda key: parts.pipeline.versions.get(key[:3], (0.0, 0.0))[1])


def selection_of(key: StreamKey) -> Selection:
    """Return the selection that means exactly a stream."""
    return Selection(model=key.model, version=key.version, arm=key.arm, segment=key.segment)


def models(parts: Parts, now_s: float) -> Sequence[ModelShown]:
    """Return every model by name, without signals."""
    by_model: dict[str, list[StreamKey]] = {}
    for key in parts.panes.keys():  # noqa: SIM118 - no dictionary
        by_model.setdefault(key.model, []).append(key)
    return [_model(parts, name, by_model[name], now_s) for name in sorted(by_model)[:MAX_MODELS]]


def model(parts: Parts, name: str, now_s: float) -> ModelShown:
    """Return one model with its signals.

    Raises:
        NotFound: nobody knows it.
    """
    return _model(parts, name, keys_of(parts, name), now_s, signals=True)


def _model(
    parts: Parts, name: str, keys: Sequence[StreamKey], now_s: float, *, signals: bool = False
) -> ModelShown:
    versions = _versions(parts, keys, now_s)
    live = versions[0]
    profile = parts.catalog.find(name, live.version, live.digest)
    return ModelShown(
        model=name,
        rows=sum(_weight_since(parts, key, now_s) for key in keys if key.segment == ALL),
        coverage=_total(
            parts.panes.coverage(name, v.version, None, now_s - DAY_S, now_s + 60) for v in versions
        ),
        standing=len(parts.detection.ledger.standing(name)),
        versions=tuple(versions),
        signals=_signals(parts, keys, live) if signals else (),
        task=profile.task.kind.value if profile is not None and profile.task is not None else "",
    )


def _versions(parts: Parts, keys: Sequence[StreamKey], now_s: float) -> list[VersionShown]:
    found = []
    for version_key in dict.fromkeys(key[:3] for key in keys):
        own = [key for key in keys if key[:3] == version_key]
        profile = parts.catalog.find(*version_key)
        first_s, last_s = parts.pipeline.versions.get(version_key, (float("nan"), float("nan")))
        shown = VersionShown(
            version=version_key[1],
            digest=version_key[2],
            arms=tuple(sorted({key.arm for key in own})),
            segments=tuple(dict.fromkeys(key.segment for key in own if key.segment != ALL))[:MAX_SEGMENTS],
            profile=profile.id if profile else "",
            profile_source=profile.source if profile else "",
            profile_rows=int(profile.rows) if profile else 0,
            first_s=first_s,
            last_s=last_s,
        )
        weight = sum(_weight_since(parts, key, now_s) for key in own if key.segment == ALL)
        found.append((weight, shown))
    return [shown for _, shown in sorted(found, key=lambda pair: (-pair[0], -pair[1].version))]


def _signals(parts: Parts, keys: Sequence[StreamKey], live: VersionShown) -> tuple[SignalShown, ...]:
    own = [key for key in keys if key.version == live.version and key.segment == ALL]
    layout = next(filter(None, map(parts.panes.layout, own)), None)
    if layout is None:
        return ()
    groups = (("numeric", layout.numeric), ("category", layout.categories), ("embedding", layout.embeddings))
    return tuple(
        SignalShown(name=signal.name, role=signal.role.value, kind=kind)
        for kind, signals in groups
        for signal in signals
    )


def _weight(parts: Parts, key: StreamKey, period: Period) -> float:
    return parts.panes.window(key, period.start_s, period.end_s).weight


def _weight_since(parts: Parts, key: StreamKey, now_s: float) -> float:
    return parts.panes.window(key, now_s - DAY_S, now_s + 60).weight


def _total(found: Iterable[Coverage]) -> Coverage:
    produced = applied = 0
    dropped: dict[str, int] = {}
    for one in found:
        produced += one.produced
        applied += one.applied
        for reason, rows in one.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + rows
    return Coverage(produced, applied, dropped)


def names(parts: Parts) -> list[str]:
    """Return the models that rows have come of."""
    return sorted({key.model for key in parts.panes.keys()})[:MAX_MODELS]  # noqa: SIM118 - no dictionary


def live_key(parts: Parts, name: str, period: Period) -> StreamKey:
    """Return the stream of a model that most rows of a period came in."""
    return resolved(parts, Selection(model=name), period)
