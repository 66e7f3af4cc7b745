"""Paths of the pages, and what every page of a model has around it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from gateway.monitor.pages import words
from gateway.monitor.pages.blocks import Badge, Choice, Controls, Link, Notice, Search

if TYPE_CHECKING:
    from gateway.monitor.pages.asked import Asked
    from gateway.monitor.pages.shown import ModelShown, Selection, VersionShown
    from gateway.monitor.values import Coverage

FLEET = Link("Fleet", "/")
ALARMS = Link("Alarms", "/alarms")
PIPELINE = Link("Pipeline", "/pipeline")

_ENOUGH = 0.95
_RANGES = {"1h": "hour", "6h": "6 hours", "1d": "day", "7d": "7 days", "30d": "30 days", "90d": "90 days"}


def model_path(model: str, page: str = "", **query: str) -> str:
    """Return the path of a model's page; empty query parameters are left out."""
    path = f"/models/{quote(model, safe='')}{page}"
    kept = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(kept)}" if kept else path


def selected(asked: Asked) -> dict[str, str]:
    """Return the query parameters that links to other pages of the same stream keep."""
    return {name: asked.text(name) for name in ("version", "arm", "segment", "range")}


def tabs(model: str, asked: Asked) -> tuple[Link, ...]:
    """Return the pages of a model."""
    kept = selected(asked)
    pages = (("Drift", ""), ("Performance", "/performance"), ("Arms", "/arms"), ("Alarms", "/alarms"))
    return tuple(Link(text, model_path(model, page, **kept)) for text, page in pages)


def badges(shown: ModelShown) -> tuple[Badge, ...]:
    """Return a model's state in a few words."""
    return standing(shown.standing), covered(shown.coverage)


def standing(alarms: int) -> Badge:
    """Return how many alarms stand."""
    return Badge(words.counted(alarms, "alarm"), "bad") if alarms else Badge("no alarm", "good")


def covered(coverage: Coverage) -> Badge:
    """Return how much of the traffic was seen."""
    tone = "" if coverage.ratio >= _ENOUGH else "bad"
    return Badge(f"coverage {words.percent(coverage.ratio)}", tone)


def controls(
    shown: ModelShown, asked: Asked, *, default: str = "1d", search: Search | None = None
) -> Controls:
    """Return the choice of stream and period; a choice between one thing and itself is left out."""
    version = version_of(shown, asked.selection(shown.model))
    fields: list[Choice | Search] = [range_choice(asked, default)]
    if len(shown.versions) > 1:
        options = tuple((str(v.version), f"version {v.version}") for v in shown.versions)
        fields.append(Choice("version", "Version", options, str(version.version) if version else ""))
    if version and len(version.arms) > 1:
        arms = tuple((arm, arm or "all traffic") for arm in version.arms)
        fields.append(Choice("arm", "Arm", arms, asked.text("arm")))
    if version and version.segments:
        segments = (("", "all rows"), *((segment, segment) for segment in version.segments))
        fields.append(Choice("segment", "Segment", segments, asked.text("segment")))
    return Controls((*fields, search) if search else tuple(fields))


def range_choice(asked: Asked, default: str = "1d") -> Choice:
    """Return the choice of period."""
    options = tuple((name, f"last {length}") for name, length in _RANGES.items())
    return Choice("range", "Period", options, asked.range_name(default))


def version_of(shown: ModelShown, selection: Selection) -> VersionShown | None:
    """Return the version that is selected, the live one by default."""
    return next((v for v in shown.versions if selection.version in (None, v.version)), None)


def no_profile(shown: ModelShown, selection: Selection) -> tuple[Notice, ...]:
    """Return what to say where there is nothing to compare with."""
    version = version_of(shown, selection)
    if version is None or version.profile:
        return ()
    make = "gateway monitor profile --data train.parquet --model " + shown.model
    return (Notice(f"Version {version.version} has no reference profile: make one with '{make}'."),)
