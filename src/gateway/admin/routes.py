"""The administration port's routes: what is loaded and where it came from; hints for registries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.admin import documents
from gateway.admin.fleets import fleet_of, fleet_row
from gateway.admin.json_text import json_answer
from gateway.admin.names import unknown
from gateway.admin.page import FleetPage, RolloutPage
from gateway.admin.registries import RegistryHttp
from gateway.admin.rollouts import RolloutHttp
from gateway.core.calls import HttpHandler, HttpRequest, HttpResponse, HttpRoute
from gateway.core.types import Device

if TYPE_CHECKING:
    from gateway.admin.fleets import FleetRow
    from gateway.admin.rollouts import RolloutParts
    from gateway.admin.views import RegistryView, ResolutionView, SigningView, WebhookReceiver
    from gateway.core.interfaces import ModelCatalog
    from gateway.core.types import VersionId

_ROWS_A_TURN: Final = 50
MemoryRows: TypeAlias = Iterable[tuple[Device, int, int | None]]
"""Device, bytes that models hold on it, its limit or None."""


def _nothing() -> MemoryRows:
    return ()


def _no_fleets() -> Sequence[FleetRow]:
    return ()


def _no_webhooks() -> Mapping[str, WebhookReceiver]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What administration shows and passes on to; every callable reads local state only.

    Attributes:
        catalog: what is served.
        version: the gateway's version.
        guard: wraps a handler so that it answers errors too.
        registries: those followed.
        webhooks: by name of a registry in the configuration, for those that have one.
        memory: what models hold on each device.
        fleets: of remote model servers.
        rollouts: those under way; None where the configuration names no directory of rollout files.
        wall_s: wall-clock seconds since the epoch.
    """

    catalog: ModelCatalog
    version: str
    guard: Callable[[HttpHandler], HttpHandler]
    registries: Sequence[RegistryView] = ()
    webhooks: Mapping[str, WebhookReceiver] = field(default_factory=_no_webhooks)
    memory: Callable[[], MemoryRows] = _nothing
    fleets: Callable[[], Sequence[FleetRow]] = _no_fleets
    rollouts: RolloutParts | None = None
    wall_s: Callable[[], float] = time.time


def admin_routes(parts: AdminParts) -> list[HttpRoute]:
    """Return the routes over `parts`."""
    pages = _Pages(parts)
    fleet_page = FleetPage([] if parts.rollouts is None else ["rollouts"])
    registries = RegistryHttp(parts.registries, parts.webhooks, parts.wall_s)
    table: list[tuple[str, str, HttpHandler, str]] = [
        ("GET", "/", pages.status, "status"),
        ("GET", "/models/{model}", pages.model, "model"),
        ("GET", "/fleets", pages.fleets, "fleets"),
        ("GET", "/fleets/ui", fleet_page.index, "fleet_page"),
        ("GET", "/fleets/ui/{file}", fleet_page.file, "fleet_page_file"),
        ("POST", "/registries/{registry}/webhook", registries.webhook, "webhook"),
        ("POST", "/registries/{registry}/poll", registries.poll, "poll"),
    ]
    if parts.rollouts is not None:
        rollouts = RolloutHttp(parts.rollouts, parts.wall_s)
        page = RolloutPage(parts.rollouts.sessions, ["fleets"] if parts.fleets() else [])
        table += [
            ("GET", "/rollouts", rollouts.index, "rollouts"),
            ("GET", "/rollouts/events", rollouts.events, "rollout_events"),
            ("GET", "/rollouts/ui", page.index, "rollout_page"),
            ("GET", "/rollouts/ui/session", page.session, "rollout_page_session"),
            ("GET", "/rollouts/ui/{file}", page.file, "rollout_page_file"),
            ("GET", "/rollouts/{rollout}", rollouts.show, "rollout"),
            ("POST", "/rollouts/{rollout}/{verb}", rollouts.operate, "operate_rollout"),
        ]
    return [
        HttpRoute(method, pattern, parts.guard(handler), operation_id=operation_id)
        for method, pattern, handler, operation_id in table
    ]


class _Pages:
    """Handlers that show; each answers with a response or raises a GatewayError."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts

    async def status(self, _request: HttpRequest) -> HttpResponse:
        """Show everything in short."""
        parts, now_s = self._parts, self._parts.wall_s()
        return json_answer(
            {
                "version": parts.version,
                "now": now_s,
                "ready": parts.catalog.is_ready(),
                "models": await self._rows(),
                "memory": [documents.memory_row(*row) for row in parts.memory()],
                "registries": [documents.registry_row(registry) for registry in parts.registries],
                "fleets": [fleet_row(fleet, now_s) for fleet in parts.fleets()],
            }
        )

    async def fleets(self, _request: HttpRequest) -> HttpResponse:
        """Show every fleet with its endpoints."""
        now_s = self._parts.wall_s()
        rows = [fleet_row(fleet, now_s) for fleet in self._parts.fleets()]
        return json_answer({"now": now_s, "fleets": rows})

    async def model(self, request: HttpRequest) -> HttpResponse:
        """Show everything about one model."""
        name, catalog = request.path_params["model"], self._parts.catalog
        index = catalog.index()
        rows = [row for row in index if row.id.model == name]
        if not rows:
            raise unknown("model", name, {row.id.model for row in index})
        served = {version.id: version for version in catalog.served() if version.id.model == name}
        standing = self._resolutions().get(name)
        pages = [
            (row, documents.version_page(row, standing, served.get(row.id), self._signing(row.id)))
            for row in rows
        ]
        page = documents.model_page(name, ready=catalog.is_model_ready(name), rows=pages, resolution=standing)
        now_s = self._parts.wall_s()
        fleet = fleet_of(name, self._parts.fleets(), now_s)
        return json_answer({"now": now_s, **page, "fleet": fleet})

    async def _rows(self) -> list[dict[str, Any]]:
        """Return the index, some rows a turn of the loop: hundreds of models take milliseconds."""
        standing = self._resolutions()
        rows: list[dict[str, Any]] = []
        for row in self._parts.catalog.index():
            rows.append(documents.version_row(row, standing.get(row.id.model)))
            if len(rows) % _ROWS_A_TURN == 0:
                await asyncio.sleep(0)
        return rows

    def _resolutions(self) -> Mapping[str, ResolutionView]:
        """Return where each model of a registry stands, by its public name."""
        return {r.model: r for registry in self._parts.registries for r in registry.resolutions()}

    def _signing(self, version: VersionId) -> SigningView | None:
        reports = (registry.signature(version) for registry in self._parts.registries)
        return next((report for report in reports if report is not None), None)
