"""Translates the `triton:` section, and models on its fleets, into the options that the parts take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.backends.remote.addresses import parse_address
from gateway.backends.triton.options import parse_options
from gateway.config.merging import merged
from gateway.config.triton_settings import EVERY_MODEL, FleetSettings, fleet_of, fleet_options
from gateway.core.options import ModelSpec, VersionPolicy
from gateway.core.remote import (
    ConcurrencyOptions,
    EjectionOptions,
    FleetOptions,
    HedgingOptions,
    RetryOptions,
    TlsClientOptions,
)
from gateway.registry.triton_source import FleetModel, TritonSourceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from gateway.config.model_settings import NamedModelSettings
    from gateway.config.schema import GatewayConfig
    from gateway.config.triton_settings import FleetTlsSettings

TRITON: Final = "triton"
"""The backend's name."""


def remote_options(fleet: FleetSettings) -> FleetOptions:
    """Return how a fleet is found and how its failures are kept small."""
    return FleetOptions(
        name=fleet.name,
        endpoints=tuple(parse_address(text) for text in fleet.endpoints),
        dns=parse_address(fleet.dns) if fleet.dns is not None else None,
        file=fleet.file,
        refresh_s=fleet.refresh_s,
        tls=_tls(fleet.tls),
        connect_timeout_s=fleet.connect_timeout_s,
        attempt_timeout_s=fleet.attempt_timeout_s,
        deadline_margin_s=fleet.deadline_margin_s,
        probe_interval_s=fleet.probe.interval_s,
        probe_timeout_s=fleet.probe.timeout_s,
        slow_start_s=fleet.slow_start_s,
        keepalive_s=fleet.keepalive_s,
        drain_s=fleet.drain_s,
        ejection=EjectionOptions(**fleet.ejection.model_dump()),
        retry=RetryOptions(**fleet.retry.model_dump()),
        hedging=HedgingOptions(**fleet.hedging.model_dump()),
        concurrency=ConcurrencyOptions(**fleet.concurrency.model_dump()),
    )


def _tls(tls: FleetTlsSettings | None) -> TlsClientOptions | None:
    if tls is None:
        return None
    return TlsClientOptions(
        ca=tls.ca_file, certificate=tls.cert_file, key=tls.key_file, server_name=tls.server_name
    )


def remote_spec(config: GatewayConfig, spec: ModelSpec, own: NamedModelSettings | None) -> ModelSpec:
    """Return `spec`, all settings applied, as that of a model that runs on a fleet; else as it is.

    What a backend of this process is told does not concern Triton; nor is a model warmed up through the
    fleet unless its entry says so, for it is warm there.

    Args:
        config: the whole configuration.
        spec: with the defaults and the model's entry applied.
        own: the model's entry.
    """
    settings = own.on_fleet if own is not None else None
    if own is None or settings is None:
        return spec
    options = settings.options(own.name, fleet_of(own.name, settings, config.triton))
    if own.source is not None:
        options["control"] = True
    return _on_triton(spec, options, warms_up="warm_up" in own.model_fields_set)


def _on_triton(spec: ModelSpec, options: Mapping[str, Any], *, warms_up: bool = False) -> ModelSpec:
    warm_up = spec.warm_up if warms_up else replace(spec.warm_up, enabled=False)
    return replace(spec, backend=TRITON, backend_options=dict(options), warm_up=warm_up, instances=())


def source_options(config: GatewayConfig, fleet: FleetSettings, files: Path) -> TritonSourceOptions:
    """Return which models are served from a fleet, as it has them.

    Args:
        config: the whole configuration.
        fleet: one of its fleets.
        files: an empty directory.

    Raises:
        ModelLoadError: settings of a model contradict each other.
    """
    entries = {model.name: model for model in config.models}
    on_it = [
        model
        for model in config.models
        if (settings := model.on_fleet) is not None
        and model.source is None
        and fleet_of(model.name, settings, config.triton) is fleet
    ]
    models = [_entered(config, model) for model in on_it]
    models += [_listed(config, fleet, name) for name in fleet.listed if name not in entries]

    def every(name: str) -> FleetModel:
        return _listed(config, fleet, name, required=False)

    listed = {name for other in config.triton for name in other.listed}
    return TritonSourceOptions(
        models=models,
        every=every if fleet.serve == EVERY_MODEL else None,
        elsewhere=frozenset(entries) | listed,
        files=files,
        grace_s=fleet.vanish_grace_s,
        start_timeout_s=fleet.connect_timeout_s + fleet.probe.timeout_s,
    )


def _entered(config: GatewayConfig, own: NamedModelSettings) -> FleetModel:
    """Return a model with an entry; every version that the fleet has is served unless policies say else."""
    spec = merged(_bare(own.name), config.defaults, own)
    return _fleet_model(remote_spec(config, spec, own))


def _listed(config: GatewayConfig, fleet: FleetSettings, name: str, *, required: bool = True) -> FleetModel:
    """Return a model that `serve` names, or finds."""
    spec = merged(_bare(name), config.defaults, None)
    spec = replace(spec, required=spec.required and required)
    return _fleet_model(_on_triton(spec, {**fleet_options(fleet), "model": name}))


def _bare(name: str) -> ModelSpec:
    return ModelSpec(name=name, versions=VersionPolicy(all=True))


def _fleet_model(spec: ModelSpec) -> FleetModel:
    options = parse_options(spec.backend_options, name=spec.name)
    return FleetModel(spec=spec, remote=options.model, enough=options.enough)
