"""Builds what follows registries from the configuration: one source for each registry that models name."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from gateway import wiring
from gateway.backends.onnxruntime.cpus import usable_cpus
from gateway.config.registry_settings import (
    DEFAULT_READ_TIMEOUT_S,
    CacheSettings,
    DirectorySettings,
    MlflowSettings,
    ObjectStoreSettings,
    RegistrySettings,
    StoreAccessSettings,
)
from gateway.core.errors import ConfigError
from gateway.models.host_memory import automatic_limit
from gateway.models.lazy import LazyOptions
from gateway.models.memory import MemoryOptions
from gateway.registry.cache.options import CacheOptions
from gateway.registry.following import MissingPolicy, SourcedModel
from gateway.registry.mlflow.webhook import WebhookVerifier
from gateway.registry.polling import PollOptions
from gateway.registry.provider import ArtifactRules
from gateway.registry.reference import FILE, MLFLOW, ModelReference, parse_reference
from gateway.registry.source import PollObserver, RegistrySource, RegistrySourceOptions, SourceParts
from gateway.registry.stores import ObjectStoreOptions, ReadLimits, open_registry
from gateway.registry.verification.policy import SignaturePolicy
from gateway.registry.verification.signatures import SignatureVerifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.config.model_settings import NamedModelSettings
    from gateway.config.schema import GatewayConfig
    from gateway.core.clock import Clock
    from gateway.core.registry import ModelRegistry
    from gateway.registry.cache.store import ArtifactCache
    from gateway.registry.resolutions import ResolutionStore

TRACKING_URI: Final = "MLFLOW_TRACKING_URI"
MOST_PARTS: Final = 6
"""Of one version, fetched at once unless the file says otherwise: more of them make no store any faster."""
"""Where MLflow's own tools look for the server; so do we when the file names none."""


class Place(NamedTuple):
    """A registry that models name.

    Attributes:
        name: its key under `registries:`; of one that is not there, the store's URL or `mlflow`.
        store: URL of the store, `s3://bucket/prefix`; empty for MLflow.
    """

    name: str
    store: str

    @property
    def title(self) -> str:
        """The name of its source and claim; unlike that of every other."""
        return self.name if not self.store or self.store == self.name else f"{self.name} ({self.store})"


@dataclass(frozen=True, kw_only=True)
class OpenRegistry:
    """A registry that is followed.

    Attributes:
        name: in the configuration.
        registry: to be closed after its source.
        source: follows it.
        webhook: tells its genuine webhooks from others; None without a secret.
        directory: where it is, if it is a directory that is there; None otherwise.
    """

    name: str
    registry: ModelRegistry
    source: RegistrySource
    webhook: WebhookVerifier | None
    directory: Path | None


@dataclass(frozen=True, kw_only=True)
class RegistryParts:
    """What sources share.

    Attributes:
        cache: where files go.
        resolutions: what registries said last.
        clock: time and timers.
        observer: told of every look at a registry.
    """

    cache: ArtifactCache
    resolutions: ResolutionStore
    clock: Clock
    observer: PollObserver


def open_registries(config: GatewayConfig, parts: RegistryParts) -> Iterator[OpenRegistry]:
    """Yield a source for each registry that the configuration's models name; nothing is asked of it yet.

    Raises:
        ConfigError: a source or a registry's settings are wrong, or an extra is missing.
    """
    places: dict[Place, tuple[RegistrySettings, list[SourcedModel]]] = {}
    for model in config.models:
        if model.source is not None:
            place, settings, reference = placed(config, model)
            places.setdefault(place, (settings, []))[1].append(_sourced(config, model, reference))
    for place, (settings, models) in places.items():
        try:
            yield _opened(place, settings, models, parts)
        except ConfigError as error:
            raise ConfigError(f"registry '{place.name}': {error}") from error


def placed(
    config: GatewayConfig, model: NamedModelSettings
) -> tuple[Place, RegistrySettings, ModelReference]:
    """Return where a model with a source comes from.

    Raises:
        ConfigError: the source is wrong, or no registry fits it, or several do.
    """
    try:
        # Relative paths are taken from the file's directory when it is read; without a file, from here.
        reference = parse_reference(model.source or "", Path.cwd())
        name, settings = _fitting(config.registries, reference, model.registry)
    except ConfigError as error:
        raise ConfigError(f"model '{model.name}': {error}") from error
    return Place(name, reference.store), settings, reference


def _fitting(
    registries: Mapping[str, RegistrySettings], reference: ModelReference, wanted: str | None
) -> tuple[str, RegistrySettings]:
    lengths = {name: _fit(settings, reference) for name, settings in registries.items()}
    if wanted is not None:
        if lengths[wanted] is None:
            raise ConfigError(f"registry '{wanted}' does not hold source '{reference}'")
        return wanted, registries[wanted]
    by_length: defaultdict[int, list[str]] = defaultdict(list)
    for name, length in lengths.items():
        if length is not None:
            by_length[length].append(name)
    if not by_length:
        return _implied(reference)
    best = by_length[max(by_length)]
    if len(best) > 1:
        raise ConfigError(f"source '{reference}' fits registries {sorted(best)}: name one with 'registry'")
    return best[0], registries[best[0]]


def _fit(settings: RegistrySettings, reference: ModelReference) -> int | None:
    """Return how much of the reference's store the registry's place covers; None if it is another's."""
    if reference.scheme == MLFLOW:
        return 0 if settings.mlflow is not None else None
    if reference.scheme == FILE and settings.directory is not None:
        root, store = (
            str(settings.directory.path.absolute()),
            _path_of(reference.store),
        )
    elif reference.scheme != FILE and settings.object_store is not None:
        root, store = settings.object_store.url, reference.store
    else:
        return None
    root = root.rstrip("/")
    return len(root) if f"{store}/".startswith(f"{root}/") else None


def _implied(reference: ModelReference) -> tuple[str, RegistrySettings]:
    """Return the settings of a registry that no entry describes: credentials come from the environment."""
    if reference.scheme == FILE:
        path = Path(_path_of(reference.store))
        return reference.store, RegistrySettings(directory=DirectorySettings(path=path))
    if reference.scheme != MLFLOW:
        return reference.store, RegistrySettings(object_store=ObjectStoreSettings(url=reference.store))
    if uri := os.environ.get(TRACKING_URI):
        return MLFLOW, RegistrySettings(mlflow=MlflowSettings(tracking_uri=uri))
    raise ConfigError(
        f"source '{reference}' needs the address of an MLflow server: set {TRACKING_URI}, or add it as in "
        "`registries: {mlflow: {mlflow: {tracking_uri: http://127.0.0.1:5000}}}`"
    )


def _sourced(config: GatewayConfig, model: NamedModelSettings, reference: ModelReference) -> SourcedModel:
    options = wiring.source_options(config)
    spec = options.adjust(wiring.bare_spec(model.name))
    return SourcedModel(
        name=model.name,
        reference=reference,
        digest=(model.digest or "").removeprefix("sha256:"),
        allow_breaking=spec.allow_breaking,
        lazy=spec.lazy,
        adjust=options.adjust,
        label_files=options.label_files(model.name),
    )


def check_settings(place: Place, settings: RegistrySettings) -> None:
    """Make what can be made of a registry's settings without asking it, and throw it away.

    Raises:
        ConfigError: they are wrong, or an extra is missing.
    """
    try:
        _registry(place, settings)
        _webhook(settings)
    except ConfigError as error:
        raise ConfigError(f"registry '{place.name}': {error}") from error


def _opened(
    place: Place, settings: RegistrySettings, models: list[SourcedModel], parts: RegistryParts
) -> OpenRegistry:
    registry, rules = _registry(place, settings)
    options = RegistrySourceOptions(
        poll=PollOptions(
            interval_s=settings.poll_interval_s,
            timeout_s=settings.timeout_s,
            start_timeout_s=settings.start_timeout_s,
        ),
        on_missing=MissingPolicy(settings.on_missing),
        rules=rules,
        keep_previous=settings.keep_previous,
        observer=parts.observer,
    )
    shared = SourceParts(registry, parts.cache, parts.resolutions, parts.clock)
    source = RegistrySource(place.title, models, shared, options)
    return OpenRegistry(
        name=place.name,
        registry=registry,
        source=source,
        webhook=_webhook(settings),
        directory=_directory(place),
    )


def _directory(place: Place) -> Path | None:
    path = Path(_path_of(place.store)) if place.store.startswith("file://") else None
    return path if path is not None and path.is_dir() else None


def _path_of(store: str) -> str:
    return unquote(store.removeprefix("file://"))


def _webhook(settings: RegistrySettings) -> WebhookVerifier | None:
    secret = settings.mlflow.webhook_secret if settings.mlflow is not None else None
    return None if secret is None else WebhookVerifier(secret.read())


def _registry(place: Place, settings: RegistrySettings) -> tuple[ModelRegistry, ArtifactRules]:
    signatures = SignatureVerifier(_policy(settings)) if settings.signatures.policy != "off" else None
    if settings.mlflow is not None:
        return _mlflow(place.name, settings, settings.mlflow, signatures)
    registry = open_registry(place.name, _store_options(place.store, settings))
    return registry, ArtifactRules(signatures=signatures)


def _mlflow(
    name: str, settings: RegistrySettings, mlflow: MlflowSettings, signatures: SignatureVerifier | None
) -> tuple[ModelRegistry, ArtifactRules]:
    # MLflow's and the stores' libraries are extras.
    from gateway.registry.mlflow.mlmodel import model_filename  # noqa: PLC0415
    from gateway.registry.mlflow.narrowing import narrow  # noqa: PLC0415
    from gateway.registry.mlflow.registry import MlflowOptions, MlflowRegistry  # noqa: PLC0415

    try:
        from gateway.registry.mlflow.stored import store_opener  # noqa: PLC0415
    except ImportError:
        open_store = None
    else:
        open_store = store_opener(_access("s3://bucket", mlflow.artifact_store, settings))
    registry = MlflowRegistry(
        name,
        MlflowOptions(
            tracking_uri=mlflow.tracking_uri,
            registry_uri=mlflow.registry_uri,
            timeout_s=settings.timeout_s,
            read_timeout_s=settings.read_timeout_s,
            max_versions=mlflow.max_versions,
            artifact_hosts=mlflow.artifact_hosts,
        ),
        open_store,
    )
    return registry, ArtifactRules(signatures=signatures, mlmodel_filename=model_filename, narrow=narrow)


def _store_options(store: str, settings: RegistrySettings) -> ObjectStoreOptions:
    if settings.directory is not None:
        return ObjectStoreOptions(
            url=store,
            completion_marker=settings.directory.completion_marker,
            settle_s=settings.directory.settle_s,
            limits=_limits(settings),
        )
    assert settings.object_store is not None, "the settings' validator sees to it"
    return _access(store, settings.object_store, settings, settings.object_store.completion_marker)


def _access(
    url: str, access: StoreAccessSettings, settings: RegistrySettings, completion_marker: str = ""
) -> ObjectStoreOptions:
    try:
        certificate = access.ca_file.read_text(encoding="ascii") if access.ca_file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"ca_file {access.ca_file} cannot be read: {error}") from error
    return ObjectStoreOptions(
        url=url,
        endpoint=access.endpoint,
        region=access.region,
        account=access.account,
        credentials={name: secret.read() for name, secret in access.credentials.items()},
        anonymous=access.anonymous,
        allow_http=access.allow_http,
        ca_certificate=certificate,
        completion_marker=completion_marker,
        limits=_limits(settings),
    )


def _limits(settings: RegistrySettings) -> ReadLimits:
    return ReadLimits(request_timeout_s=settings.timeout_s, read_timeout_s=settings.read_timeout_s)


def _policy(settings: RegistrySettings) -> SignaturePolicy:
    return SignaturePolicy(**settings.signatures.model_dump())


def cache_directory(cache: CacheSettings) -> Path:
    """Return where fetched files are kept."""
    if cache.directory is not None:
        return cache.directory
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache") / "model-gateway"


def cache_options(config: GatewayConfig) -> CacheOptions:
    """Return the settings of the artifact cache."""
    cache = config.cache
    timeouts = [registry.read_timeout_s for registry in config.registries.values()]
    return CacheOptions(
        max_bytes=None if cache.max_bytes is None else int(cache.max_bytes),
        max_age_s=cache.max_age_s,
        keep_versions=cache.keep_versions,
        free_disk_reserve_bytes=int(cache.free_disk_reserve),
        max_artifact_bytes=int(cache.max_artifact_bytes),
        part_bytes=int(cache.part_bytes),
        parallel_parts=cache.parallel_parts or min(MOST_PARTS, usable_cpus()),
        # For what a registry, which has its own limit, does not notice: it knows better what was the matter.
        read_timeout_s=max(timeouts, default=DEFAULT_READ_TIMEOUT_S) + 5.0,
        durable=cache.durable,
    )


def memory_options(config: GatewayConfig) -> MemoryOptions:
    """Return what models may hold.

    Raises:
        ConfigError: `auto`, and the machine does not tell how much memory there is.
    """
    limits: dict[str, int] = {}
    for device, limit in config.memory.limits.items():
        nbytes = automatic_limit() if limit == "auto" else int(limit)
        if nbytes is None:
            raise ConfigError(
                "memory.limits.cpu: the machine does not tell its memory: give a number of bytes"
            )
        limits[device] = nbytes
    return MemoryOptions(limits=limits, wait_s=config.memory.wait_s)


def lazy_options(config: GatewayConfig) -> LazyOptions:
    """Return when lazy models go."""
    return LazyOptions(max_idle_s=config.memory.lazy_max_idle_s)
