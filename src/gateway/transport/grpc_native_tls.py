"""TLS of the native gRPC listener: ALPN h2, and certificates that are read again when their files change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ConfigError
from gateway.transport.tls import server_context

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from gateway.transport.options import TlsOptions

_log: Final = logging.getLogger(__name__)

ALPN: Final = "h2"
_Stamp = tuple[tuple[int, int, int], ...]


class ReloadedTls:
    """One TLS context for a listener, whose handshakes use the files as they are now.

    A handshake looks at the files (three `stat` calls). Files that cannot be used, because they are being
    replaced just then or are wrong, are reported once, and the ones before them stay in use.

    Attributes:
        context: for the listener.

    Raises:
        ConfigError: the files cannot be used at the start.
    """

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._stamp = _stamp(options)
        self.context = self._current = _context(options)
        self.context.sni_callback = self._on_hello

    def _on_hello(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: object) -> None:
        """Give the handshake the newest context; OpenSSL calls, with or without a server name."""
        stamp = _stamp(self._options)
        if stamp != self._stamp:
            self._stamp = stamp
            self._reload()
        if self._current is not self.context:
            connection.context = self._current

    def _reload(self) -> None:
        try:
            self._current = _context(self._options)
        except ConfigError:
            _log.exception("tls_reload_failed")
        else:
            _log.info("tls_reloaded", extra={"certificate": str(self._options.certificate)})


def _context(options: TlsOptions) -> ssl.SSLContext:
    context = server_context(options)
    context.set_alpn_protocols([ALPN])
    return context


def _stamp(options: TlsOptions) -> _Stamp:
    """Return what changes when a file does: where it is on disk, its time, its size."""
    paths = (options.certificate, options.key, options.client_ca)
    return tuple(_file_stamp(path) for path in paths if path is not None)


def _file_stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
