"""What the protocol's slower methods do, whatever transport asks: statistics, repository, settings."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from gateway.core.errors import BackendUnavailable, InvalidRequest, ModelLoadError, Unsupported
from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.api.context import ApiContext
    from gateway.api.settings import LogValues, TraceValues
    from gateway.core.interfaces import ServedVersion
    from gateway.core.types import VersionStatus

# A name that is too long, or a file where a directory must be, is the client's; these are not.
_SERVERS_FAULTS: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)
CONFIG_PARAMETER: Final = "config"
FILE_PREFIX: Final = "file:"


class Operations:
    """The methods behind both front ends. Event loop only; what is not a coroutine never waits."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def served(self, model: str, version: str) -> Sequence[ServedVersion]:
        """Return READY versions: all of the server's, all of one model's, or one.

        Raises:
            NotFound: no such model or version.
            NotReady: that version is known and not READY.
            InvalidRequest: the version is no positive integer, or is given without a model.
        """
        catalog = self._context.catalog
        if not model:
            if version:
                raise InvalidRequest(f"version '{version}' is given without a model name")
            return catalog.served()
        if version:
            return [catalog.get(model, version)]
        return [catalog.get(model, str(number)) for number in catalog.ready_versions(model)]

    def index(self, repository: str, *, ready: bool) -> Sequence[VersionStatus]:
        """Return what the repository holds; with `ready` only what can serve.

        Raises:
            Unsupported: a repository is named.
        """
        _refuse_repository(repository)
        rows = self._context.catalog.index()
        return [row for row in rows if row.state is VersionState.READY] if ready else rows

    async def load(self, repository: str, model: str, config: str, files: Mapping[str, bytes]) -> None:
        """Load or reload a model; returns when it serves. What served before goes on until then.

        Cancelling the caller gives up waiting, as `RepositoryControl.load` says.

        Raises:
            Unsupported: a repository is named.
            InvalidRequest: no model is named, files are given without a config, or what the client sent of
                them cannot be loaded; a full disk stays a ModelLoadError.
            BackendUnavailable: the device is lost or memory is short, whatever the client sent.
            Unavailable, ModelLoadError, NotFound: as `RepositoryControl.load`.
        """
        _refuse_repository(repository)
        _require_name(model)
        if files and not config:
            raise InvalidRequest(
                f"load of model '{model}' overrides files, so it needs the parameter 'config' as well"
            )
        try:
            await self._context.repository.load(model, config, files or None)
        except ModelLoadError as error:
            cause = error.__cause__
            if isinstance(cause, BackendUnavailable | MemoryError):
                raise BackendUnavailable(str(error)) from error
            if not config or (isinstance(cause, OSError) and cause.errno in _SERVERS_FAULTS):
                raise
            # The model as it lies in the repository may be sound: what the client put in its place is not.
            raise InvalidRequest(str(error)) from error

    async def unload(self, repository: str, model: str) -> None:
        """Unload every version of a model; returns when no request uses it.

        Raises:
            Unsupported: a repository is named.
            InvalidRequest: no model is named.
            Unavailable, NotFound: as `RepositoryControl.unload`.
        """
        _refuse_repository(repository)
        _require_name(model)
        await self._context.repository.unload(model)

    def trace(self, model: str, changes: TraceValues) -> TraceValues:
        """Change trace settings and return those in force.

        Raises:
            NotFound: no such model.
            InvalidRequest: an unknown setting or value.
        """
        if model:
            self._context.catalog.is_model_ready(model)  # raises for a model that is not known
        settings = self._context.trace_settings
        return settings.update(changes, model) if changes else settings.get(model)

    def log(self, changes: LogValues) -> LogValues:
        """Change log settings and return all.

        Raises:
            InvalidRequest: an unknown setting or value.
        """
        settings = self._context.log_settings
        return settings.update(changes) if changes else settings.get()

    def model_ready(self, model: str, version: str) -> bool:
        """Return whether a model version serves now.

        Raises:
            NotFound: no such model.
            InvalidRequest: the version is no positive integer.
        """
        return self._context.catalog.is_model_ready(model, version) and not self._context.readiness.draining

    def server_ready(self) -> bool:
        """Return whether every required model serves and the server is not going."""
        return self._context.catalog.is_ready() and not self._context.readiness.draining


def load_parameter(name: str, *, is_text: bool, is_file: bool) -> None:
    """Check the name of one load parameter against the kind of its value.

    Raises:
        InvalidRequest: a name that load does not have, or a value of the wrong kind.
    """
    if name == CONFIG_PARAMETER:
        if not is_text:
            raise InvalidRequest(
                "load parameter 'config' must be a string holding the JSON model configuration"
            )
    elif not name.startswith(FILE_PREFIX):
        raise InvalidRequest(
            f"unrecognized load parameter '{name[:80]}'; there are 'config' and 'file:<path>'"
        )
    elif not is_file:
        raise InvalidRequest(f"load parameter '{name[:80]}' must hold the content of the file")


def _refuse_repository(repository: str) -> None:
    if repository:
        raise Unsupported("'repository_name' specification is not supported")


def _require_name(model: str) -> None:
    if not model:
        raise InvalidRequest("no model is named")
