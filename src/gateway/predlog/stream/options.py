"""Where a monitor is, and how long it is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files in PEM form, read at each connection.

    Attributes:
        ca: of the monitor's certificate.
        certificate: the gateway's own, for monitors that ask who is there; with `key` or not at all.
        key: its key.
        server_name: the name in the monitor's certificate; empty: that of the address.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How the stream is held.

    Attributes:
        address: `unix:/path/to.sock`, or `host:port`.
        tls: for TCP; None: neither encrypted nor authenticated.
        producer: the gateway's name, told as metadata `gateway-producer`.
        epoch: of this process, told as metadata `gateway-epoch`.
        open_timeout_s: the monitor's greeting is waited for so long.
        credit_wait_s: `send` blocks for credit at most so long; at most a second.
        silence_s: a monitor that has frames and says nothing for so long counts as lost.
        close_s: at the end, the last frames' acknowledgement is waited for so long.
    """

    address: str
    producer: str
    epoch: int
    tls: ClientTls | None = None
    open_timeout_s: float = 1.0
    credit_wait_s: float = 0.5
    silence_s: float = 10.0
    close_s: float = 2.0
