"""Gets the files of one version of a registry through the artifact cache, and finds the model among them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

from gateway.core.registry import RegistryError
from gateway.core.types import Artifact
from gateway.models.pbtxt import CONFIG_FILE
from gateway.registry.cache.artifacts import ArtifactRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from gateway.core.registry import FetchProgress, ModelRegistry, RegistryVersion
    from gateway.core.types import ModelSignature
    from gateway.registry.cache.artifacts import CachedArtifact
    from gateway.registry.cache.manifest import Manifest
    from gateway.registry.verification.policy import SignatureReport

MODEL_FILE: Final = "model.onnx"
MLMODEL_FILE: Final = "MLmodel"
_SUFFIX: Final = ".onnx"
_MOST_NAMED: Final = 8


class ArtifactStore(Protocol):
    """What is asked of the artifact cache."""

    def obtain(
        self, request: ArtifactRequest, report: Callable[[FetchProgress], None]
    ) -> AbstractAsyncContextManager[CachedArtifact]:
        """As `ArtifactCache.obtain`."""


class SignatureCheck(Protocol):
    """What is asked of the signature verifier."""

    def check(self, directory: Path, files: Mapping[str, str]) -> SignatureReport:
        """As `SignatureVerifier.check`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRules:
    """What the files of a registry's versions must be like, and how they are read.

    Attributes:
        signatures: checks who signed them; None: nobody looks.
        mlmodel_filename: version's directory, what to call the version -> the model file that its MLmodel
            names; raises RegistryError where it names none. None: MLmodel is a file like any other.
        narrow: version's directory, signature, what to call the version -> compares the signature with that
            in MLmodel; raises RegistryError where they contradict each other.
    """

    signatures: SignatureCheck | None = None
    mlmodel_filename: Callable[[Path, str], str] | None = None
    narrow: Callable[[Path, ModelSignature, str], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One version whose files may be wanted.

    Attributes:
        registry: where they are.
        version: which.
        model_filename: the model file as config.pbtxt names it; empty: found by its name.
        pinned_digest: the content digest they must have; empty for any.
    """

    registry: ModelRegistry
    version: RegistryVersion
    model_filename: str = ""
    pinned_digest: str = ""

    @property
    def title(self) -> str:
        """The version in words, for messages."""
        return f"version '{self.version.label}' of '{self.version.model}'"


class CachedProvider:
    """An ArtifactProvider over an artifact cache.

    Args:
        cache: fetches, verifies and keeps files.
        wanted: the version.
        rules: what its files must be like.

    Attributes:
        digest: the content digest of its files; empty until they were obtained.
        signature: what the last check of the signature found; None before, and where nobody looks.
    """

    def __init__(self, cache: ArtifactStore, wanted: Wanted, rules: ArtifactRules) -> None:
        self.digest = ""
        self.signature: SignatureReport | None = None
        self._cache = cache
        self._wanted = wanted
        self._rules = rules

    @asynccontextmanager
    async def obtain(self, report: Callable[[FetchProgress], None]) -> AsyncGenerator[Artifact, None]:
        """Fetch and verify, or find it in the cache; as `ArtifactProvider.obtain`."""
        wanted = self._wanted
        request = ArtifactRequest(
            registry=wanted.registry,
            version=wanted.version,
            pinned_digest=wanted.pinned_digest,
            check=self._check,
        )
        async with self._cache.obtain(request, report) as cached:
            name = await asyncio.to_thread(self._model_filename, cached.directory, cached.files)
            self.digest = cached.digest
            yield Artifact(cached.directory, cached.directory / name, cached.digest)

    def narrow(self, artifact: Artifact, signature: ModelSignature) -> None:
        """Compare with what the registry says; as `ArtifactProvider.narrow`."""
        if self._rules.narrow is not None and (artifact.directory / MLMODEL_FILE).is_file():
            self._rules.narrow(artifact.directory, signature, self._wanted.title)

    # In a worker thread.

    def _check(self, directory: Path, manifest: Manifest) -> None:
        """Refuse what could not be loaded before it is published, and what the signer did not sign."""
        files = manifest.sha256s
        if self._rules.signatures is not None:
            self.signature = self._rules.signatures.check(directory, files)
        self._model_filename(directory, files)

    def _model_filename(self, directory: Path, files: Collection[str]) -> str:
        title = self._wanted.title
        if CONFIG_FILE in files:
            raise _refused(
                f"{title} holds a {CONFIG_FILE} of its own, which would be known only after it was fetched: "
                f"put it beside the versions, or its settings into the model's entry of the configuration"
            )
        if declared := self._wanted.model_filename:
            if declared not in files:
                raise _refused(
                    f"{title} has no file '{declared}', which {CONFIG_FILE} names as its model "
                    f"({_listed(files)})"
                )
            return declared
        if self._rules.mlmodel_filename is not None and MLMODEL_FILE in files:
            named = self._rules.mlmodel_filename(directory, title)
            if named not in files:
                raise _refused(f"{title} has no file '{named}', which its {MLMODEL_FILE} names as its model")
            return named
        return find_model(files, title)


def find_model(files: Collection[str], title: str) -> str:
    """Return the model file among paths: `model.onnx`, or the only .onnx file at the root.

    Args:
        files: paths relative to the version's directory.
        title: the version in words, for messages.

    Raises:
        RegistryError: step `verify`; there is none, or several could be meant.
    """
    if MODEL_FILE in files:
        return MODEL_FILE
    models = sorted(path for path in files if PurePosixPath(path).suffix == _SUFFIX)
    at_root = [path for path in models if "/" not in path]
    if len(at_root) == 1:
        return at_root[0]
    if at_root:
        raise _refused(
            f"{title} has several model files ({_listed(at_root)}): name one '{MODEL_FILE}', or name it in "
            f"a {CONFIG_FILE} beside the versions as default_model_filename"
        )
    below = f"; '{models[0]}' does not lie at its root" if models else ""
    raise _refused(f"{title} has no {_SUFFIX} file ({_listed(files)}){below}")


def _listed(paths: Collection[str]) -> str:
    if not paths:
        return "it has no files"
    names = ", ".join(ascii(path[:200]) for path in sorted(paths)[:_MOST_NAMED])
    return names + (f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else "")


def _refused(message: str) -> RegistryError:
    return RegistryError("verify", message, may_pass=False)
