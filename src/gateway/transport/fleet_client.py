"""The native gRPC client as the connections of a fleet use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.transport.grpc_native_client import ClientMemory, ClientOptions, GrpcClient

if TYPE_CHECKING:
    import ssl

    from gateway.core.remote import Address, FleetOptions

_LARGEST_MESSAGE_BYTES: Final = (1 << 31) - 1
_SHORTEST_KEEPALIVE_S: Final = 1.0


class FleetDial:
    """Makes the clients of endpoints; what they remember of field blocks they share."""

    def __init__(self) -> None:
        self._memory = ClientMemory()

    def __call__(
        self, address: Address, path: str, options: FleetOptions, tls: ssl.SSLContext | None
    ) -> GrpcClient:
        """Return a client of one method, which connects when it is used.

        Args:
            address: of the endpoint.
            path: of the method.
            options: of the fleet.
            tls: with ALPN `h2`; None: in the clear.
        """
        keepalive_s = options.keepalive_s
        return GrpcClient(
            ClientOptions(
                host=address.host,
                port=address.port,
                path=path,
                tls=tls,
                server_name="" if options.tls is None else options.tls.server_name,
                connect_timeout_s=options.connect_timeout_s,
                keepalive_time_s=max(_SHORTEST_KEEPALIVE_S, keepalive_s),
                keepalive_timeout_s=max(_SHORTEST_KEEPALIVE_S, keepalive_s / 2),
                max_backoff_s=options.probe_interval_s,
                max_message_bytes=_LARGEST_MESSAGE_BYTES,
            ),
            self._memory,
        )
