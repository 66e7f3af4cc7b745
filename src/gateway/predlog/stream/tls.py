"""TLS of the stream to a monitor, from the files as they are now."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from gateway.predlog.seams import SinkUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.stream.options import ClientTls


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Return a context for HTTP/2.

    Raises:
        SinkUnavailable: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9113 section 9.2.1
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # `ca` may be the monitor's own certificate
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(tls.ca)
    except OSError as error:
        raise _unusable(error, tls.ca) from error
    if tls.certificate is not None:
        try:
            # Without a password OpenSSL would ask a terminal for that of an encrypted key.
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except OSError as error:
            raise _unusable(error, tls.certificate, tls.key) from error
    return context


def _unusable(error: OSError, *paths: Path | None) -> SinkUnavailable:
    files = ", ".join(str(path) for path in paths if path is not None)
    return SinkUnavailable(f"a TLS file of the stream cannot be read: {error} ({files})")
