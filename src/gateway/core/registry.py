"""Model registries: what they tell of models, versions and files before anything is fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from gateway.core.types import Artifact, ModelSignature, VersionState


class RegistryError(GatewayError):
    """A registry, or what it holds, is in the way of serving a version.

    Attributes:
        step: where: `resolve`, `fetch` or `verify`.
        may_pass: whether the same thing tried later can succeed: True for a registry that is down or slow, a
            full disk; False for a wrong digest, a bad signature, a file that is missing for good.
    """

    def __init__(self, step: str, message: str, *, may_pass: bool) -> None:
        super().__init__(f"{step}: {message}")
        self.step = step
        self.may_pass = may_pass


class NotInRegistry(RegistryError):
    """The registry answered well, and has no such model, version or alias."""

    def __init__(self, message: str) -> None:
        super().__init__("resolve", message, may_pass=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryFile:
    """One file of a version as the registry lists it.

    Attributes:
        path: relative to the version's root, `/` between its parts; no `..`, not absolute.
        size: bytes; None when the registry does not say.
        etag: changes with the content where the registry has such a thing; else empty.
        sha256: hex digest the registry claims; empty when it claims none. Always checked when given.
    """

    path: str
    size: int | None
    etag: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryVersion:
    """One version as a registry knows it.

    Attributes:
        model: the model's name in the registry.
        label: the registry's own version id, `7` or `1.4.2`.
        number: the protocol's positive integer that stands for it; equal labels have equal numbers on every
            gateway, and a later label has a greater one.
        revision: differs when the files behind the label may have changed; compared for equality only.
        location: where its files are, as the registry that made this object understands it.
        lineage: what people ask about it, JSON types: `run_id`, `tags`, `datasets`, `description`,
            `created_s`, `creator`, `source`, ... as far as the registry has them.
    """

    model: str
    label: str
    number: int
    revision: str
    location: str
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """Everything a registry tells of one model at one moment.

    Attributes:
        name: the model's name in the registry.
        versions: those that can be served, by ascending number.
        aliases: alias -> label; it may name a label that `versions` lacks.
        unusable: label -> why that version cannot be served (still pending, a label that is no version).
    """

    name: str
    versions: tuple[RegistryVersion, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


class ModelRegistry(Protocol):
    """A place that holds model versions. Every method may be slow; none blocks the event loop.

    Attributes:
        name: as configured.
        identity: tells this store from others, without credentials: equal for two gateways on one store.
    """

    name: str
    identity: str

    async def model(self, name: str) -> RegisteredModel:
        """Return what there is of one model now.

        Raises:
            NotInRegistry: no such model.
            RegistryError: step `resolve`; the registry is down, refuses, or answers nonsense.
        """

    async def files(self, version: RegistryVersion) -> Sequence[RegistryFile]:
        """List the files of a version, all of them, in no order.

        Raises:
            RegistryError: step `fetch`.
        """

    def read(
        self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
    ) -> AsyncIterator[bytes]:
        """Give the bytes [start, end) of a file in pieces; to its end when `end` is None.

        Raises:
            RegistryError: step `fetch`, from any step of the iteration; also when the file is no longer the
                one listed (its etag changed) or ends early.
            RangeUnsupported: `start` is not 0 and this file can only be read from its beginning.
        """

    async def aclose(self) -> None:
        """Free connections and threads."""


class RangeUnsupported(Exception):
    """A file of a registry can only be read whole, from its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchProgress:
    """How far a version's files are.

    Attributes:
        state: FETCHING or VERIFYING.
        done_bytes: bytes here, those of an earlier attempt included.
        total_bytes: of all files; None while some size is unknown.
    """

    state: VersionState
    done_bytes: int
    total_bytes: int | None


class ArtifactProvider(Protocol):
    """Gets the files of one version of a registry onto the local disk, verified.

    One provider stands for one version; it is cheap to make and does nothing until `obtain`.
    """

    def obtain(self, report: Callable[[FetchProgress], None]) -> AbstractAsyncContextManager[Artifact]:
        """Fetch and verify, or find it in the cache; the files stay until the context is left.

        `report` is called on the event loop, a few times a second at most. Cancelling keeps what has been
        fetched for the next attempt.

        Raises:
            RegistryError: step `fetch` or `verify`.
        """

    def narrow(self, artifact: Artifact, signature: ModelSignature) -> None:
        """Compare the model file's signature with what the registry says of it, which may only narrow it.

        Raises:
            RegistryError: step `verify`; they contradict each other.
        """
