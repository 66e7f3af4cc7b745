"""Makes of what MLflow answers about a model what the gateway asks of any registry. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from gateway.core.registry import RegisteredModel, RegistryVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.registry.mlflow.library import Look, RunFacts

_READY: Final = "READY"
_PENDING: Final = "PENDING_REGISTRATION"
_LOGGED: Final = re.compile(r"models:/(m-[0-9a-f]{32})", re.ASCII)
"""Source of a version made from a logged model, whose id MLflow's REST interface does not give beside it."""
_MAX_TAGS: Final = 100
_MAX_TEXT: Final = 16 * 1024
_MAX_DIGITS: Final = 15
"""Of a version number: it has to fit the protocol's 64 bits; MLflow counts by ones."""


def registered_model(name: str, look: Look, runs: Mapping[str, RunFacts]) -> RegisteredModel:
    """Return a model as a registry tells of it.

    Args:
        name: the model's.
        look: MLflow's answer.
        runs: what is known of runs, by run id.
    """
    usable: dict[int, RegistryVersion] = {}
    unusable: dict[str, str] = {}
    for version in look.versions:
        label = str(version.version)
        reason = _why_unusable(version)
        if reason:
            unusable[label] = reason
        else:
            usable[int(label)] = _version(name, label, version, runs.get(version.run_id or ""))
    aliases = {str(alias): str(label) for alias, label in look.model.aliases.items()}
    return RegisteredModel(
        name=name, versions=tuple(usable[n] for n in sorted(usable)), aliases=aliases, unusable=unusable
    )


def wanted_runs(look: Look, limit: int) -> list[str]:
    """Return the ids of the runs most likely asked about: of versions an alias names, then of the newest."""
    named = {str(label) for label in look.model.aliases.values()}
    ordered = sorted(look.versions, key=lambda v: (str(v.version) in named, _order(v)), reverse=True)
    return list(dict.fromkeys(v.run_id for v in ordered if v.run_id))[:limit]


def _order(version: Any) -> int:
    label = str(version.version)
    return int(label) if _is_number(label) else 0


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal() and len(label) <= _MAX_DIGITS and not label.startswith("0")


def _why_unusable(version: Any) -> str:
    label, status = str(version.version), str(version.status)
    if not _is_number(label):
        return f"'{label}' is no positive integer"
    if status == _PENDING:
        return "its registration in MLflow is not finished"
    if status != _READY:
        why = version.status_message
        return f"its status in MLflow is {status}{f': {str(why)[:200]}' if why else ''}"
    return ""


def _version(name: str, label: str, version: Any, run: RunFacts | None) -> RegistryVersion:
    # A version can be deleted and its model registered anew from 1: the time of creation tells them apart.
    # Tags and descriptions are edited at any time and change no file.
    made_of = (label, version.run_id, version.model_id, version.source, version.creation_timestamp)
    return RegistryVersion(
        model=name,
        label=label,
        number=int(label),
        revision=hashlib.sha256("\0".join(str(part) for part in made_of).encode()).hexdigest(),
        location=f"models:/{name}/{label}",
        lineage=_lineage(version, run),
    )


def _lineage(version: Any, run: RunFacts | None) -> dict[str, Any]:
    logged = _LOGGED.fullmatch(version.source or "")
    texts = {
        "run_id": version.run_id,
        "model_id": logged[1] if logged is not None else version.model_id,
        "experiment": run.experiment if run is not None else None,
        "source": version.source,
        "creator": version.user_id,
        "description": version.description,
    }
    lineage: dict[str, Any] = {key: str(value)[:_MAX_TEXT] for key, value in texts.items() if value}
    if version.creation_timestamp:
        lineage["created_s"] = version.creation_timestamp / 1000
    if version.tags:
        tags = sorted(version.tags.items())[:_MAX_TAGS]
        lineage["tags"] = {str(key)[:_MAX_TEXT]: str(value)[:_MAX_TEXT] for key, value in tags}
    if run is not None and run.datasets:
        lineage["datasets"] = [dict(dataset) for dataset in run.datasets]
    return lineage
