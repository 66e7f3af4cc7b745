"""How the channel to an endpoint is set up: TLS, keepalive, reconnecting, sizes."""

from __future__ import annotations

import ipaddress
import re
import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc

from gateway.backends.triton.codec import MAX_MESSAGE_BYTES
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from gateway.core.remote import Address, FleetOptions, TlsClientOptions

_HUNG_UP: Final = re.compile(r"failed to connect.*(?:socket closed|connection reset)", re.IGNORECASE)


def is_local(address: Address) -> bool:
    """Whether an endpoint is reached over the loopback interface."""
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


class Credentials(NamedTuple):
    """TLS files that were read, for each of the two clients.

    Attributes:
        channel: for gRPC's C core.
        context: for connections of our own, with ALPN `h2`.
    """

    channel: grpc.ChannelCredentials
    context: ssl.SSLContext


def credentials(tls: TlsClientOptions, fleet: str) -> Credentials:
    """Read TLS files.

    Args:
        tls: which.
        fleet: its name, for messages.

    Raises:
        ConfigError: one cannot be read, or is not what it should be.
    """
    try:
        # First, for it raises for files that gRPC would take, and then fail every handshake with.
        context = _context(tls)
        channel = grpc.ssl_channel_credentials(
            root_certificates=None if tls.ca is None else tls.ca.read_bytes(),
            private_key=None if tls.key is None else tls.key.read_bytes(),
            certificate_chain=None if tls.certificate is None else tls.certificate.read_bytes(),
        )
    except OSError as error:  # an SSLError is one, and names no file
        files = f"ca_file {tls.ca}, cert_file {tls.certificate}, key_file {tls.key}"
        raise ConfigError(f"fleet '{fleet}': TLS files cannot be read: {error} ({files})") from error
    return Credentials(channel, context)


def _context(tls: TlsClientOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    context.set_alpn_protocols(["h2"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # never asked for at the terminal
    return context


def channel_arguments(options: FleetOptions) -> list[tuple[str, Any]]:
    """Return a channel's settings as the C core's arguments (grpc_types.h), where times are milliseconds."""
    connect_ms = max(20, round(options.connect_timeout_s * 1000))
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", max(1000, round(options.keepalive_s * 1000))),
        ("grpc.keepalive_timeout_ms", max(1000, round(options.keepalive_s * 500))),
        # Without calls there are probes; Triton tells clients that ping more than it likes to go away.
        ("grpc.keepalive_permit_without_calls", 0),
        # How long one attempt to connect may take, and how soon and how late the next one is made.
        ("grpc.min_reconnect_backoff_ms", connect_ms),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", max(100, round(options.probe_interval_s * 1000))),
        # Retries are the fleet's to decide; a proxy of the environment is for other hosts.
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        # Two connections to one address are two: what one meets is not the other's.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if options.tls is not None and options.tls.server_name:
        arguments.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return arguments


def advice(reason: str, tls: TlsClientOptions | None) -> str:
    """Return what an operator may look at, where the reason of a failed handshake leaves that open.

    An endpoint that wants TLS, or another certificate than it gets, hangs up without a word.

    Args:
        reason: why it cannot be asked, as gRPC says.
        tls: how it was spoken to.

    Returns:
        The advice; empty for a reason that says enough.
    """
    if "WRONG_VERSION_NUMBER" in reason:
        return "it may not speak TLS: `tls` of the fleet"
    if not _HUNG_UP.search(reason):
        return ""
    if tls is None:
        return "it may expect TLS: `tls` of the fleet"
    if tls.certificate is None:
        return "it may ask for a certificate of the gateway: `tls.cert_file` of the fleet"
    return "it may not accept the certificate of the gateway: `tls.cert_file` of the fleet"
