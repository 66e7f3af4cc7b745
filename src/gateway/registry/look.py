"""Makes a RegisteredModel of a model's listed files, and reads the small files that it needs for that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.core.registry import RegisteredModel, RegistryError, RegistryVersion
from gateway.registry import lineage
from gateway.registry.model_specs import MAX_MODEL_FILE_BYTES, ModelFile
from gateway.registry.stored_versions import StoredModel, StoredObject, StoredVersion, printable, same_version

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

MAX_ALIASES: Final = 256
MAX_LINEAGES: Final = 64
"""Versions of one model, newest and aliased ones first, whose lineage is read."""
_LINEAGE_READS: Final = 16
"""Lineage files read in one look; the rest in the next looks."""
_MAX_ALIAS_BYTES: Final = 1024
_CONCURRENT_READS: Final = 8


class Vanished(Exception):
    """A file that was listed is not there any more."""


@dataclass(slots=True)
class _Known:
    """What is kept of one model between looks.

    Attributes:
        contents: path -> (etag, content) of the small files that the last look used.
        offered: label -> the version as it was last offered.
        beside: path -> file beside the versions, as of the last look.
    """

    contents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    offered: dict[str, RegistryVersion] = field(default_factory=dict)
    beside: Mapping[str, StoredObject] = field(default_factory=dict)


class ModelLooks:
    """Turns listings into RegisteredModels; keeps small files by etag, so that an unchanged model costs none.

    A version that was offered and is being written again is offered as it was. Bounded by the models asked
    for: of each it keeps at most `MAX_ALIASES` aliases and `MAX_LINEAGES` lineages. One event loop.

    Args:
        read: gives the first bytes of (model, file), as many as asked for. Raises Vanished, RegistryError.
        source: tells people where a version's files are, by (model, label).
    """

    def __init__(
        self, read: Callable[[str, StoredObject, int], Awaitable[bytes]], source: Callable[[str, str], str]
    ) -> None:
        self._read = read
        self._source = source
        self._known: dict[str, _Known] = {}
        self._slots = asyncio.Semaphore(_CONCURRENT_READS)

    async def model(self, name: str, stored: StoredModel) -> RegisteredModel:
        """Return what the files of one model say.

        Raises:
            RegistryError: step `resolve`; an alias cannot be read, or there are too many.
        """
        known = self._known.setdefault(name, _Known())
        kept: dict[str, tuple[str, bytes]] = {}
        aliases = await self._aliases(name, stored, kept)
        lineages = await self._lineages(name, _first(stored, aliases), kept)
        versions = {
            label: self._version(name, version, lineages.get(label, {}))
            for label, version in stored.versions.items()
        }
        unusable = dict(stored.unusable)
        for label, why in stored.moving.items():
            if label in known.offered:
                versions[label] = known.offered[label]
            else:
                unusable[label] = why
        known.contents, known.offered, known.beside = kept, versions, stored.beside
        ordered = tuple(sorted(versions.values(), key=lambda version: version.number))
        named = {alias: same_version(label, versions) for alias, label in aliases.items()}
        return RegisteredModel(name=name, versions=ordered, aliases=named, unusable=unusable)

    def forget(self, name: str) -> None:
        """Forget a model that is gone."""
        self._known.pop(name, None)

    def knows(self, name: str) -> bool:
        """Whether there has been a look at this model since it was there."""
        return name in self._known

    async def beside(self, name: str, path: str, known: ModelFile | None) -> ModelFile | None:
        """As `ModelFileReader.model_file`, of the files that the last look listed beside the versions."""
        seen = self._known[name].beside.get(path) if name in self._known else None
        if seen is None or (known is not None and known.etag == seen.etag):
            return known if seen is not None else None
        if seen.size > MAX_MODEL_FILE_BYTES:
            raise RegistryError(
                "resolve",
                f"'{printable(path)}' of model '{printable(name)}' has {seen.size} bytes, more than the "
                f"{MAX_MODEL_FILE_BYTES} that are read",
                may_pass=True,
            )
        try:
            return ModelFile(seen.etag, await self._read(name, seen, MAX_MODEL_FILE_BYTES))
        except Vanished:
            return None

    async def _aliases(
        self, name: str, stored: StoredModel, kept: dict[str, tuple[str, bytes]]
    ) -> dict[str, str]:
        if len(stored.aliases) > MAX_ALIASES:
            raise RegistryError(
                "resolve",
                f"model '{printable(name)}' has {len(stored.aliases)} aliases, more than the {MAX_ALIASES} "
                "that are read; delete some",
                may_pass=True,
            )
        found = await self._contents(name, list(stored.aliases.values()), _MAX_ALIAS_BYTES, kept)
        return {
            alias: printable(found[seen.path].decode("utf-8", "backslashreplace").strip())
            for alias, seen in stored.aliases.items()
            if seen.path in found
        }

    async def _lineages(
        self, name: str, versions: Sequence[StoredVersion], kept: dict[str, tuple[str, bytes]]
    ) -> dict[str, Mapping[str, Any]]:
        files = [
            version.objects[path]
            for version in versions
            for path in (lineage.LINEAGE, lineage.MODEL_CARD)
            if path in version.objects
        ]
        known = self._known[name].contents
        new = [seen for seen in files if known.get(seen.path, ("",))[0] != seen.etag]
        later = {seen.path for seen in new[_LINEAGE_READS:]}
        wanted = [seen for seen in files if seen.path not in later]
        found = await self._contents(name, wanted, lineage.MAX_BYTES + 1, kept, needed=False)

        def content(version: StoredVersion, path: str) -> bytes | None:
            return found.get(version.objects[path].path) if path in version.objects else None

        return {
            version.label: lineage.read_lineage(
                content(version, lineage.LINEAGE), content(version, lineage.MODEL_CARD)
            )
            for version in versions
        }

    async def _contents(
        self,
        name: str,
        files: Sequence[StoredObject],
        limit: int,
        kept: dict[str, tuple[str, bytes]],
        *,
        needed: bool = True,
    ) -> dict[str, bytes]:
        """Return contents by path, and keep them; without those that vanished or, if not needed, failed."""
        known = self._known[name].contents
        outcomes = await asyncio.gather(
            *(self._content(name, seen, limit, known) for seen in files), return_exceptions=True
        )
        found: dict[str, bytes] = {}
        for seen, outcome in zip(files, outcomes, strict=True):
            if isinstance(outcome, bytes):
                found[seen.path] = outcome
                kept[seen.path] = (seen.etag, outcome)
            elif not isinstance(outcome, Vanished) and (needed or not isinstance(outcome, RegistryError)):
                raise outcome
        return found

    async def _content(
        self, name: str, seen: StoredObject, limit: int, known: dict[str, tuple[str, bytes]]
    ) -> bytes:
        etag, content = known.get(seen.path, ("", b""))
        if etag != seen.etag or not etag:
            async with self._slots:
                content = await self._read(name, seen, limit)
            known[seen.path] = (seen.etag, content)
        return content

    def _version(self, model: str, version: StoredVersion, told: Mapping[str, Any]) -> RegistryVersion:
        return RegistryVersion(
            model=model,
            label=version.label,
            number=version.number,
            revision=version.revision,
            location=f"{model}/{version.label}",
            lineage={
                "created_s": version.created_s,
                "source": self._source(model, version.label),
                **told,
            },
        )


def _first(stored: StoredModel, aliases: Mapping[str, str]) -> list[StoredVersion]:
    """Return the versions whose lineage is read, those first that people will ask about."""
    aliased = {same_version(label, stored.versions) for label in aliases.values()}
    ordered = sorted(stored.versions.values(), key=lambda v: (v.label not in aliased, -v.number))
    return ordered[:MAX_LINEAGES]
