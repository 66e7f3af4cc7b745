"""A ModelRegistry over MLflow."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Protocol, TypeVar

from gateway.core.errors import ConfigError
from gateway.core.registry import NotInRegistry, RegistryError
from gateway.registry.mlflow import library
from gateway.registry.mlflow.downloads import Downloads, Limits
from gateway.registry.mlflow.local import LocalArtifacts
from gateway.registry.mlflow.locations import Local, Proxied, locate, tracking
from gateway.registry.mlflow.proxied import ProxiedArtifacts
from gateway.registry.mlflow.threads import BlockingCalls
from gateway.registry.mlflow.versions import registered_model, wanted_runs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from mlflow import MlflowClient

    from gateway.core.registry import RegisteredModel, RegistryFile, RegistryVersion
    from gateway.registry.mlflow.library import Look, RunFacts

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_IMPORT_S: Final = 120.0
"""Seconds after which the import of MLflow's client is given up; it takes one or two of a free core."""
_LOOKS: Final = 4
_READS: Final = 16
_RUNS: Final = 8
"""Runs looked up for one model; of the versions that aliases name, and of the newest."""
_MAX_KNOWN: Final = 1024
_MAX_NAME: Final = 256


class ArtifactSource(Protocol):
    """The files of one version in one place."""

    async def files(self) -> Sequence[RegistryFile]:
        """As `ModelRegistry.files`."""

    def read(self, file: RegistryFile, start: int, end: int | None) -> AsyncIterator[bytes]:
        """As `ModelRegistry.read`; a generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowOptions:
    """Settings of an MlflowRegistry.

    Attributes:
        tracking_uri: the server's address, `https://mlflow.example.com`, or `sqlite:////directory/mlflow.db`.
            Credentials are taken from the environment, as MLflow's client does: MLFLOW_TRACKING_USERNAME and
            MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.
        registry_uri: the registry's address where it is another server; empty: the same.
        timeout_s: seconds that a look at a model may take.
        read_timeout_s: seconds without a byte after which a download is given up. A server that keeps its
            artifacts in a bucket sends nothing before it has all of a file: allow for the largest.
        max_versions: newest versions of a model that are looked at; older ones only where an alias names
            them.
        artifact_hosts: `host` or `host:port` of other MLflow servers that hand out artifacts and may be sent
            the same credentials.
    """

    tracking_uri: str
    registry_uri: str = ""
    timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    max_versions: int = 1000
    artifact_hosts: tuple[str, ...] = ()


class MlflowRegistry:
    """Models registered with MLflow.

    A look costs two requests. Nothing runs on the event loop; a call that hangs ends by its time limits, and
    holds up neither other calls, of which a few run at a time, nor the end of the process.

    Args:
        name: as configured.
        options: settings.
        open_store: opens the directory at a URL (`s3:`, `gs:`, `abfss:`) where MLflow keeps
            artifacts that its server does not hand out; None: those versions cannot be fetched.

    Raises:
        ConfigError: MLflow's client is not installed, or an address is none, or holds credentials.
    """

    def __init__(
        self, name: str, options: MlflowOptions, open_store: Callable[[str], ArtifactSource] | None = None
    ) -> None:
        if find_spec("mlflow") is None:
            raise ConfigError(f"registry '{name}' needs MLflow's client: pip install 'model-gateway[mlflow]'")
        self.name = name
        self._options = options
        self._open_store = open_store
        self._tracking = tracking(options.tracking_uri)
        self._registry = tracking(options.registry_uri) if options.registry_uri else self._tracking
        self.identity = f"mlflow:{self._registry.uri}"
        self._looks = BlockingCalls(f"mlflow-{name}", _LOOKS)
        self._reads = BlockingCalls(f"mlflow-{name}-read", _READS)
        self._client: MlflowClient | None = None
        self._connecting = asyncio.Lock()
        self._runs: OrderedDict[str, RunFacts | None] = OrderedDict()
        self._sources: OrderedDict[tuple[str, str, str], ArtifactSource] = OrderedDict()

    async def model(self, name: str) -> RegisteredModel:
        """Return what there is of one model now; as `ModelRegistry.model`."""
        if not _is_name(name):
            raise RegistryError(
                "resolve", f"{name!a:.100} can be no name of a model in MLflow", may_pass=False
            )
        look = await self._ask("resolve", library.look, name, self._options.max_versions)
        await self._learn_runs(look)
        runs = {run_id: facts for run_id, facts in self._runs.items() if facts is not None}
        return registered_model(name, look, runs)

    async def files(self, version: RegistryVersion) -> Sequence[RegistryFile]:
        """List the files of a version; as `ModelRegistry.files`."""
        return await (await self._locate(version)).files()

    async def read(
        self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Give bytes of a file; as `ModelRegistry.read`."""
        source = self._sources.get(_key(version)) or await self._locate(version)
        stream = source.read(file, start, end)
        async with aclosing(stream) as pieces:  # type: ignore[type-var]  # every source's is a generator
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Forget everything. Threads end by themselves, the last when its time limit has passed."""
        self._client = None
        self._sources.clear()
        self._runs.clear()

    async def _locate(self, version: RegistryVersion) -> ArtifactSource:
        """Ask where a version's files are. Its `source` says where they once came from."""
        uri = await self._ask("fetch", _download_uri, version.model, version.label)
        place = locate(uri, self._tracking, self._options.artifact_hosts)
        if isinstance(place, Proxied):
            limits = Limits(self._options.timeout_s, self._options.read_timeout_s)
            source: ArtifactSource = ProxiedArtifacts(Downloads(place, limits), self._reads)
        elif isinstance(place, Local):
            source = LocalArtifacts(place.directory, self._reads)
        elif self._open_store is None:
            raise RegistryError(
                "fetch",
                f"its files are at '{place.url.partition(':')[0]}:...', which needs the client of object "
                "stores: pip install 'model-gateway[object-store]'",
                may_pass=False,
            )
        else:
            source = self._open_store(place.url)
        _remember(self._sources, _key(version), source)
        return source

    async def _learn_runs(self, look: Look) -> None:
        """Look up runs that are not yet known. Lineage is for people: without answers there is less of it."""
        for run_id in wanted_runs(look, _RUNS):
            if run_id in self._runs:
                continue
            try:
                _remember(self._runs, run_id, await self._ask("resolve", library.run_facts, run_id))
            except RegistryError as exc:
                if exc.may_pass and not isinstance(exc, NotInRegistry):
                    return
                _remember(self._runs, run_id, None)

    async def _ask(
        self,
        step: str,
        question: Callable[Concatenate[MlflowClient, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Ask MLflow something in a thread, within the time a look may take."""
        client = await self._connected(step)
        ask = partial(_asked, step, self._registry.shown, partial(question, client, *args, **kwargs))
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._looks.run(ask)
        except TimeoutError as exc:
            limit = f"{self._options.timeout_s:g} s"
            raise RegistryError(
                step, f"MLflow at {self._registry.shown} did not answer within {limit}", may_pass=True
            ) from exc

    async def _connected(self, step: str) -> MlflowClient:
        """Return the client; the first time, import it."""
        async with self._connecting:
            if self._client is None:
                options = self._options
                library.set_defaults(options.timeout_s)
                connect = partial(library.connect, step, options.tracking_uri, options.registry_uri)
                try:
                    async with asyncio.timeout(_IMPORT_S):
                        self._client = await self._looks.run(connect)
                except TimeoutError as exc:
                    raise RegistryError(
                        step, f"MLflow's client took more than {_IMPORT_S:g} s to import", may_pass=True
                    ) from exc
            return self._client


def _asked(step: str, server: str, question: Callable[[], T]) -> T:
    with library.translated(step, server):
        return question()


def _download_uri(client: MlflowClient, name: str, label: str) -> str:
    return str(client.get_model_version_download_uri(name, label))


def _is_name(name: str) -> bool:
    """Say whether MLflow may have a model of that name; it forbids '/' and ':'."""
    return 0 < len(name) <= _MAX_NAME and name.isprintable() and not {"/", ":"} & set(name)


def _key(version: RegistryVersion) -> tuple[str, str, str]:
    return version.model, version.label, version.revision


def _remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _MAX_KNOWN:
        known.popitem(last=False)
