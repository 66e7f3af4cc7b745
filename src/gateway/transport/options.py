"""What an operator may set about the servers: addresses, limits, timeouts, TLS, CORS, compression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Certificates of one server, as PEM files read once when it starts.

    Attributes:
        certificate: the server's certificate chain, leaf first.
        key: its private key, without a password.
        client_ca: certificates that sign clients; set, every client must show one (mTLS). None asks for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsOptions:
    """Which web pages may call the server from a browser.

    Attributes:
        origins: allowed origins, `https://app.example`; `*` allows every page, which is safe only for a
            server without authentication on a private network.
        methods: allowed methods.
        headers: request headers a page may set beyond the always allowed ones.
        expose_headers: response headers a page may read; binary tensors need the header-length one.
        credentials: whether cookies and authorisation headers are let through; never with `*`.
        max_age_s: seconds a browser may remember the permission.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ("GET", "POST")
    headers: tuple[str, ...] = ("Content-Type", "Content-Encoding", "Inference-Header-Content-Length")
    expose_headers: tuple[str, ...] = ("Inference-Header-Content-Length", "Server-Timing", "Retry-After")
    credentials: bool = False
    max_age_s: int = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one client may cost; beyond a limit the request is refused before memory is taken for it.

    Attributes:
        max_body_bytes: most bytes of a body as sent, 413 beyond. Size it to the largest request expected.
        max_decompressed_bytes: most bytes of a gzip or deflate body once inflated, 413 beyond.
        max_ratio: most inflated bytes per compressed byte, beyond a first MiB that is always allowed; 413.
            Tensors of zeros reach 1,000; real data stays under 20.
        max_chunks: most non-empty chunks of a chunked body, 400 beyond.
        max_buffered_bytes: bytes of bodies held by all requests of this server together, 503 beyond.
            Keep it above `max_body_bytes` and below the memory the process may use.
        max_headers: most header lines, 431 beyond.
        max_header_bytes: most bytes of names and values together, 431 beyond.
        max_url_bytes: longest request target, 414 beyond.
        max_pipelined: requests one connection may have outstanding; the connection is closed beyond, after
            those before have been answered. Ordinary clients have one.
        max_connections: open connections, 503 and close beyond. Stay below the process's file limit.
        header_timeout_s: seconds from the first byte of a request (or the connection) to the end of its
            headers, 408 beyond.
        body_timeout_s: seconds a body may take beyond what `min_body_rate` allows it, 408 beyond.
        min_body_rate: bytes per second that every upload must keep up once `body_timeout_s` is used.
        send_timeout_s: seconds in which a client must have read something of its response, or the connection
            is cut; it holds the response's memory meanwhile.
        linger_s: seconds for which the rest of a refused upload is read and dropped, so that its client sees
            the answer and not a reset connection.
    """

    max_body_bytes: int = 64 * MIB
    max_decompressed_bytes: int = 64 * MIB
    max_ratio: float = 250.0
    max_chunks: int = 65536
    max_buffered_bytes: int = 1024 * MIB
    max_headers: int = 100
    max_header_bytes: int = 32 * 1024
    max_url_bytes: int = 8 * 1024
    max_pipelined: int = 64
    max_connections: int = 2048
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    min_body_rate: float = 8.0 * 1024
    send_timeout_s: float = 60.0
    linger_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServerOptions:
    """One HTTP/1.1 listener.

    Attributes:
        host: address to bind; loopback unless the server is meant to be reached from elsewhere.
        port: port to bind; 0 picks a free one.
        limits: what one client may cost.
        keep_alive_s: whole seconds an idle connection is kept; above that of any proxy in front.
        backlog: connections the kernel may hold before they are accepted.
        compression_min_bytes: smallest response that is compressed for a client that accepts it; None never
            compresses.
        compression_level: zlib level, 1 (fast) to 9; above 3 costs more time than most networks save.
        compress_octet_stream: also compress `application/octet-stream`. Float tensors hardly shrink, and
            many clients accept gzip without being asked: leave it off unless the network is slow.
        cors: which web pages may call; None sends no CORS headers.
        tls: certificates; None serves plain text.
        server_name: the `Server` header; empty sends none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    limits: HttpLimits = field(default_factory=HttpLimits)
    keep_alive_s: int = 75
    backlog: int = 2048
    compression_min_bytes: int | None = 1024
    compression_level: int = 1
    compress_octet_stream: bool = False
    cors: CorsOptions | None = None
    tls: TlsOptions | None = None
    server_name: str = "model-gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """What one client of the native gRPC transport may cost; grpcio has limits of its own instead.

    Attributes:
        connection_window_bytes: request bytes that a connection may have sent and nobody has used yet.
        stream_window_bytes: the same for one call; at least the largest message, so that it is sent at once.
        max_frame_bytes: largest frame taken, 16,384 to 16,777,215 (RFC 9113 section 4.2).
        max_header_block_bytes: most bytes of one header block as sent, in all its frames.
        max_continuations: most CONTINUATION frames of one header block.
        max_buffered_bytes: bytes of messages that have not arrived whole or are not read yet, of all calls of
            the server together; RESOURCE_EXHAUSTED beyond.
        max_unsent_bytes: response bytes waiting for one connection to read them; the call is reset beyond.
            One response of any size is always taken.
        max_resets: calls that one connection may break off, or have broken off by its own mistakes, per
            `abuse_interval_s`.
        max_control_frames: frames without use (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA) that one
            connection may send per `abuse_interval_s`, beyond four for each call and DATA frame it is sent.
        abuse_interval_s: seconds for which `max_resets` and `max_control_frames` count.
        preface_timeout_s: seconds in which a connection must have said that it speaks HTTP/2.
        header_timeout_s: seconds that a header block, or any frame but DATA, may take to arrive.
        body_timeout_s: seconds a request message may take beyond what `min_body_rate` allows it,
            DEADLINE_EXCEEDED beyond.
        min_body_rate: bytes per second that every upload must keep up once `body_timeout_s` is used.
        send_timeout_s: seconds in which a client must have read something of its response, or the call is
            reset; it holds the response's memory meanwhile.
        linger_s: seconds for which the input of a connection that broke a rule is read and dropped, so that
            its client sees the reason and not a reset connection.
        memo_bytes_per_connection: header blocks remembered for one connection, to be recognised again.
        memo_bytes: header blocks remembered for all connections of the server together.
    """

    connection_window_bytes: int = 64 * MIB
    stream_window_bytes: int = 64 * MIB
    max_frame_bytes: int = 16 * 1024
    max_header_block_bytes: int = 64 * 1024
    max_continuations: int = 256
    max_buffered_bytes: int = 1024 * MIB
    max_unsent_bytes: int = 64 * MIB
    max_resets: int = 1000
    max_control_frames: int = 10_000
    abuse_interval_s: float = 10.0
    preface_timeout_s: float = 10.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    min_body_rate: float = 8.0 * 1024
    send_timeout_s: float = 60.0
    linger_s: float = 2.0
    memo_bytes_per_connection: int = 16 * 1024
    memo_bytes: int = 32 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcServerOptions:
    """One gRPC listener.

    Attributes:
        host: address to bind; loopback unless the server is meant to be reached from elsewhere.
        port: port to bind; 0 picks a free one.
        max_receive_bytes: largest request message, RESOURCE_EXHAUSTED beyond.
        max_send_bytes: largest response message; -1 for no limit but the protocol's 2 GiB.
        accept_compression: whether compressed requests are taken; UNIMPLEMENTED otherwise. Inflating stops
            at `max_receive_bytes`, so it costs time and not memory.
        response_compression: how every response is compressed for clients that accept it.
        max_metadata_bytes: largest request metadata, RESOURCE_EXHAUSTED beyond.
        max_connections: open connections; further ones are closed at once. None for no limit, which is the
            safe choice for grpcio: it was seen not to take new connections again after some had ended. For
            the native transport stay below the process's file limit.
        max_concurrent_rpcs: calls and streams open at once on the whole server, RESOURCE_EXHAUSTED beyond;
            None for no limit. The native transport also counts calls whose client has gone until their
            method is done with them. Under grpcio a message that is still coming in is counted by no byte
            limit, for the C core gives none to Python: the incoming messages together may hold
            `max_receive_bytes` for each call that this admits. The native transport bounds them by
            `http2.max_buffered_bytes`.
        max_concurrent_streams: calls open at once on one connection; further ones wait in the client. None
            for no limit.
        keepalive_time_s: seconds of silence after which the server pings a client.
        keepalive_timeout_s: seconds such a ping may go unanswered before the connection is closed.
        min_ping_interval_s: a client that pings more often without data is cut off (`too_many_pings`).
        max_connection_idle_s: seconds after which a connection without calls is closed; None keeps it.
        max_connection_age_s: seconds after which a connection is told to go elsewhere, so that clients spread
            over new replicas; None keeps it.
        max_connection_age_grace_s: seconds its calls then have to finish; None lets them.
        http2: what one client may cost; the native transport's alone.
        tls: certificates; None serves plain text.
    """

    host: str = "127.0.0.1"
    port: int = 8001
    max_receive_bytes: int = 64 * MIB
    max_send_bytes: int = -1
    accept_compression: bool = True
    response_compression: Literal["none", "deflate", "gzip"] = "none"
    max_metadata_bytes: int = 16 * 1024
    max_connections: int | None = None
    max_concurrent_rpcs: int | None = 4096
    max_concurrent_streams: int | None = 128
    keepalive_time_s: float = 7200.0
    keepalive_timeout_s: float = 20.0
    min_ping_interval_s: float = 10.0
    max_connection_idle_s: float | None = None
    max_connection_age_s: float | None = None
    max_connection_age_grace_s: float | None = None
    http2: Http2Limits = field(default_factory=Http2Limits)
    tls: TlsOptions | None = None
