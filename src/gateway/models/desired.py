"""A version that a source wants served, and the digests that identify it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway._proto import model_config_pb2
from gateway.core.options import VersionPolicy
from gateway.core.types import VersionId

if TYPE_CHECKING:
    from gateway.core.options import ModelSpec
    from gateway.core.registry import ArtifactProvider
    from gateway.core.types import Artifact, VersionOrigin


@dataclass(slots=True, kw_only=True)
class DesiredVersion:
    """A WantedVersion. Treated as immutable (not frozen: the seam's attributes are plain ones).

    Attributes:
        id: the version; its digest covers files and spec.
        artifact: its files.
        spec: how to serve it.
        problem: why it cannot be loaded although it is wanted (a config.pbtxt that does not parse, a link out
            of the repository): the load fails with this reason, and an older version goes on serving.
        provider: gets the files here first; None when they are at `artifact` already. With one, `artifact`
            has empty paths until then, and the digest of what was resolved.
        origin: where a version of a registry comes from.
    """

    id: VersionId
    artifact: Artifact
    spec: ModelSpec
    problem: str = ""
    provider: ArtifactProvider | None = None
    origin: VersionOrigin | None = None


def desired(number: int, artifact: Artifact, spec: ModelSpec, problem: str = "") -> DesiredVersion:
    """Return the DesiredVersion of `artifact` served as `spec` says, with its identity."""
    digest = hashlib.sha256(f"{artifact.digest}\0{spec_digest(spec)}\0{problem}".encode()).hexdigest()
    return DesiredVersion(
        id=VersionId(spec.name, number, digest), artifact=artifact, spec=spec, problem=problem
    )


def spec_digest(spec: ModelSpec) -> str:
    """Return the SHA-256 of what decides how a version is loaded and run.

    `required`, `lazy`, `versions`, `allow_breaking` and the version policy in `declared_config` are left out:
    they say whether a version is served, not how, so a change of them reloads nothing.
    """
    config = model_config_pb2.ModelConfig.FromString(spec.declared_config)
    config.ClearField("version_policy")
    declared = config.SerializeToString(deterministic=True)
    neutral = dataclasses.replace(
        spec,
        required=True,
        lazy=False,
        versions=VersionPolicy(),
        declared_config=declared,
        allow_breaking=False,
    )
    return hashlib.sha256(json.dumps(_plain(neutral), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return `value` as JSON types, so that equal settings have equal text."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
