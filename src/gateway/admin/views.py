"""What administration asks of the parts that it shows: small protocols, so that it knows none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import enum
    from collections.abc import Mapping, Sequence

    from gateway.core.types import VersionId


class ResolutionView(Protocol):
    """Where one model stands with its registry."""

    @property
    def model(self) -> str:
        """Public name."""

    @property
    def registry(self) -> str:
        """The registry's name in the configuration."""

    @property
    def reference(self) -> str:
        """The model's `source:`."""

    @property
    def status(self) -> enum.Enum:
        """In one word: its value is `ok`, `stale`, `missing`, `error` or `pending`."""

    @property
    def since_s(self) -> float:
        """When it came into this status, wall-clock seconds since the epoch."""

    @property
    def last_ok_s(self) -> float | None:
        """When the registry last had what the reference names, likewise; None: never, as far as is known."""

    @property
    def message(self) -> str:
        """What is amiss and what is served meanwhile; empty when nothing is."""

    @property
    def labels(self) -> Sequence[str]:
        """The registry's ids of the versions wanted, ascending."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Alias -> label as the registry had them last."""

    @property
    def next_poll_s(self) -> float | None:
        """Seconds until it is asked again; None while it is being asked, or not followed."""


class SigningView(Protocol):
    """What checking the signature of a version's files found."""

    @property
    def signed(self) -> bool:
        """Whether the policy's signer signed exactly these files."""

    @property
    def by(self) -> str:
        """Who signed, for people."""

    @property
    def detail(self) -> str:
        """What was signed, or why it does not count as signed."""


class RegistryView(Protocol):
    """A registry that is followed. Every method reads local state only and never waits."""

    @property
    def name(self) -> str:
        """Its name, unlike that of every other."""

    def resolutions(self) -> Sequence[ResolutionView]:
        """Return where each of its models stands."""

    def hint(self, registered: str | None = None) -> int:
        """Look soon at a model by its name in the registry, at every one if None; return at how many."""

    def signature(self, version: VersionId) -> SigningView | None:
        """Return what checking a version's signature found; None when nobody has looked."""


class HintView(Protocol):
    """What a genuine delivery of a webhook says has changed."""

    @property
    def event(self) -> str:
        """What happened, for logs."""

    @property
    def model(self) -> str | None:
        """The model concerned, by its name in the registry; None when it may be any."""


class WebhookReceiver(Protocol):
    """Tells genuine deliveries of a registry's webhook from others, and each from its repetition."""

    def accept(self, headers: Mapping[str, str], body: bytes, now_s: float) -> HintView | None:
        """Return what a delivery says has changed; None when it concerns no model.

        Args:
            headers: of the request, lower-case names.
            body: as received.
            now_s: wall-clock seconds since the epoch.

        Raises:
            PermissionDenied: not signed with the secret, out of time, or seen before.
            InvalidRequest: genuine, and not what is expected; PayloadTooLarge: too long.
            Overloaded: too many deliveries to remember.
        """
