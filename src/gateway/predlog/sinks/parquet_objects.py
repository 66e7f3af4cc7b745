"""Parquet files of the prediction log in an object store. Blocking."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import obstore
import obstore.exceptions
import obstore.store

from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class ObjectStore:
    """A `ParquetStore` of objects below a URL; an object store's put is whole or not at all.

    Args:
        url: `s3://bucket/prefix`, `gs://...`, `az://...`, `https://...`.
        settings: credentials and the rest, by obstore's names; what is missing is the environment's.

    Raises:
        ConfigError: the URL or a setting makes no sense.
    """

    def __init__(self, url: str, settings: Mapping[str, str]) -> None:
        self._store = _opened(url, dict(settings))

    def names(self, prefix: str = "") -> list[str]:
        """Return the paths of all objects below a folder."""
        found: list[str] = []
        for page in obstore.list(self._store, prefix=prefix or None):
            found += [entry["path"] for entry in cast("Sequence[dict[str, str]]", page)]
        return sorted(path for path in found if path.endswith(".parquet"))

    def read(self, path: str) -> bytes:
        """Return an object's content."""
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
            raise FileNotFoundError(f"{path} is not there: {error}") from error
        except obstore.exceptions.BaseError as error:
            raise OSError(f"{path} cannot be read: {error}") from error

    def write(self, path: str, content: bytes) -> None:
        """Put an object."""
        try:
            obstore.put(self._store, path, content)
        except obstore.exceptions.BaseError as error:
            raise OSError(f"{path} cannot be written: {error}") from error

    def delete(self, path: str) -> None:
        """Delete an object."""
        try:
            obstore.delete(self._store, path)
        except FileNotFoundError:
            return
        except obstore.exceptions.BaseError as error:
            raise OSError(f"{path} cannot be deleted: {error}") from error

    def tidy(self, before_s: float = math.inf) -> int:  # noqa: ARG002
        """Delete nothing: what is not whole is no object."""
        return 0


def _opened(url: str, settings: dict[str, str]) -> obstore.store.ObjectStore:
    # The stub knows each provider's settings by name; here they are the configuration's.
    from_url = cast("Callable[..., obstore.store.ObjectStore]", obstore.store.from_url)
    try:
        return from_url(url, config=settings)
    except (obstore.exceptions.BaseError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"the Parquet files' store {url} cannot be used: {reason}") from error
