"""The documents that administration answers with, as JSON types; names of fields are what scripts rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.admin.views import RegistryView, ResolutionView, SigningView
    from gateway.core.interfaces import ServedVersion
    from gateway.core.types import Device, TensorSpec, VersionOrigin, VersionStatus


def version_row(row: VersionStatus, resolution: ResolutionView | None) -> dict[str, Any]:
    """Return one version of the index. Times are wall-clock seconds since the epoch.

    `digest` tells loads apart (files and settings), `content_digest` is that of the files alone.

    Args:
        row: of the index.
        resolution: where its model stands with its registry, which knows where aliases are now.
    """
    return {
        "model": row.id.model,
        "version": row.id.number,
        "label": row.origin.label if row.origin else "",
        "aliases": _aliases(row.origin, resolution) if row.origin else [],
        "digest": row.id.digest,
        "content_digest": row.content_digest,
        "state": row.state.value,
        "reason": row.reason,
        "since": row.since_s,
        "memory_bytes": row.memory_bytes,
        "leases": row.inflight,
        "done_bytes": row.done_bytes,
        "total_bytes": row.total_bytes,
        "claims": list(row.claims),
        "steps": [
            {"state": step.state.value, "began": step.began_s, "seconds": round(step.seconds, 6)}
            for step in row.steps
        ],
        "origin": _origin(row.origin) if row.origin else None,
    }


def version_page(
    row: VersionStatus,
    resolution: ResolutionView | None,
    served: ServedVersion | None,
    signing: SigningView | None,
) -> dict[str, Any]:
    """Return everything about one version.

    Args:
        row: of the index.
        resolution: where its model stands with its registry.
        served: the same version as it serves; None unless it is READY.
        signing: what checking its signature found.
    """
    return {
        **version_row(row, resolution),
        "lineage": dict(row.origin.lineage) if row.origin else {},
        "signing": _signing(signing) if signing is not None else None,
        "signature": _signature(served) if served is not None else None,
        "platform": served.platform if served is not None else "",
        "devices": _devices(served) if served is not None else [],
    }


def model_page(
    model: str,
    *,
    ready: bool,
    rows: Iterable[tuple[VersionStatus, dict[str, Any]]],
    resolution: ResolutionView | None,
) -> dict[str, Any]:
    """Return everything about one model.

    `default_version` answers requests that name none; null while nothing is loaded.

    Args:
        model: its name.
        ready: whether it can be asked; true of one that is loaded on first use, loaded or not.
        rows: every version's row of the index with its page; a model without versions has one, number 0.
        resolution: where it stands with its registry; None for a model of a local repository.
    """
    known = list(rows)
    numbers = [row.id.number for row, _ in known if row.state is VersionState.READY]
    return {
        "model": model,
        "ready": ready,
        "default_version": max(numbers, default=None),
        "reason": next((row.reason for row, _ in known if not row.id.number), ""),
        "registry": resolution_row(resolution) if resolution is not None else None,
        "versions": [page for row, page in known if row.id.number],
    }


def registry_row(registry: RegistryView) -> dict[str, Any]:
    """Return a registry with where its models stand."""
    return {
        "registry": registry.name,
        "models": [resolution_row(resolution) for resolution in registry.resolutions()],
    }


def resolution_row(resolution: ResolutionView) -> dict[str, Any]:
    """Return where a model stands with its registry.

    `stale_since` is when the registry last said what is served, while it cannot be asked; else null.
    """
    status = str(resolution.status.value)
    stale_s = resolution.since_s if resolution.last_ok_s is None else resolution.last_ok_s
    return {
        "model": resolution.model,
        "registry": resolution.registry,
        "source": resolution.reference,
        "status": status,
        "since": resolution.since_s,
        "stale_since": stale_s if status == "stale" else None,
        "last_ok": resolution.last_ok_s,
        "message": resolution.message,
        "labels": list(resolution.labels),
        "aliases": dict(resolution.aliases),
        "next_poll_s": resolution.next_poll_s,
    }


def memory_row(device: Device, held_bytes: int, limit_bytes: int | None) -> dict[str, Any]:
    """Return what models hold on a device, and its limit if it has one."""
    return {"device": str(device), "held_bytes": held_bytes, "limit_bytes": limit_bytes}


def _aliases(origin: VersionOrigin, resolution: ResolutionView | None) -> list[str]:
    """Return the aliases of a version; one that is wanted no more does not know that they have moved."""
    if resolution is None:
        return list(origin.aliases)
    return sorted(alias for alias, label in resolution.aliases.items() if label == origin.label)


def _origin(origin: VersionOrigin) -> dict[str, Any]:
    return {"registry": origin.registry, "source": origin.source}


def _signing(signing: SigningView) -> dict[str, Any]:
    return {"signed": signing.signed, "by": signing.by, "detail": signing.detail}


def _signature(served: ServedVersion) -> dict[str, Any]:
    signature = served.signature
    return {
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
        "decoupled": signature.decoupled,
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    tensor = {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}
    return {**tensor, "optional": True} if spec.optional else tensor


def _devices(served: ServedVersion) -> list[dict[str, Any]]:
    memory = dict(served.memory)
    return [
        {"device": str(device), "instances": instances, "memory_bytes": memory.get(device)}
        for device, instances in served.devices
    ]
