"""Addresses of endpoints in text: `host:port`, one a line in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.remote import Address

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ADDRESSES: Final = 4096
"""Endpoints of one fleet; a file or an answer with more is a mistake."""
_SHOWN: Final = 80


class WrongAddresses(ValueError):
    """Text that does not name endpoints; the message says where and what is wrong."""


def parse_address(text: str) -> Address:
    """Read `host:port`, or `[host]:port` for IPv6.

    Raises:
        WrongAddresses: it is neither.
    """
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not host or any(c.isspace() or c in "[]/@#" for c in host) or (":" in host) is not bracketed:
        raise WrongAddresses(f"{text[:_SHOWN]!r} is not host:port (or [IPv6 host]:port)")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise WrongAddresses(f"{text[:_SHOWN]!r} has no port from 1 to 65535")
    return Address(host, int(port))


def parse_lines(text: str) -> tuple[Address, ...]:
    """Read one address a line, in order, without duplicates; `#` begins a comment.

    Raises:
        WrongAddresses: a line is wrong, or no line or too many have an address. A file that is being
            written looks like one that is wrong or empty: neither may take endpoints away.
    """
    found: dict[Address, None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            found[parse_address(entry)] = None
        except WrongAddresses as error:
            raise WrongAddresses(f"line {number}: {error}") from error
    return checked(found)


def checked(found: Iterable[Address]) -> tuple[Address, ...]:
    """Return addresses without duplicates, in order.

    Raises:
        WrongAddresses: there are none or too many.
    """
    addresses = tuple(dict.fromkeys(found))
    if not addresses:
        raise WrongAddresses("no address in it")
    if len(addresses) > MAX_ADDRESSES:
        raise WrongAddresses(f"{len(addresses)} addresses, at most {MAX_ADDRESSES} are taken")
    return addresses
