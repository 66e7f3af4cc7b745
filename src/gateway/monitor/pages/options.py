"""What the monitor's HTTP listener is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.monitor.values import WINDOWS_S

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """Address and access, as on the administration port: loopback unless told otherwise.

    Attributes:
        host: address to bind.
        port: TCP port; 0: any.
        token: secret that every request but those for the empty pages must carry, `Authorization: Bearer`;
            empty: anybody who reaches the port may read, and only this host may post and delete.
        hosts: names by which browsers reach the port, beside addresses and `localhost`: without a token any
            other name is refused, so that no page of the web makes a browser ask for it here.
        windows: that are compared with the reference: name -> length in seconds.
        usual_range: period that pages show at first, `1h` to `90d`; empty: what suits each page.
        refresh_s: how often an open page asks for news.
        max_body_bytes: of posted labels.
        max_labels: in one post.
        max_connections: beyond them requests get 503.
    """

    host: str = "127.0.0.1"
    port: int = 8010
    token: str = ""
    hosts: tuple[str, ...] = ()
    windows: Mapping[str, int] = field(default_factory=lambda: WINDOWS_S)
    usual_range: str = ""
    refresh_s: float = 10.0
    max_body_bytes: int = 8 << 20
    max_labels: int = 20_000
    max_connections: int = 200
