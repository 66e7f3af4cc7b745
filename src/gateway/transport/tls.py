"""Server-side TLS contexts from certificate files."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from gateway.transport.options import TlsOptions


def server_context(options: TlsOptions) -> ssl.SSLContext:
    """Return a context for HTTP/1.1 servers, TLS 1.2 or later.

    Raises:
        ConfigError: a file is missing, unreadable or not what it should be.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(options.certificate, options.key)
        if options.client_ca is not None:
            context.load_verify_locations(options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as exc:
        files = f"certificate {options.certificate}, key {options.key}, client_ca {options.client_ca}"
        raise ConfigError(f"TLS files cannot be used ({files}): {exc}") from exc
    return context
