"""What a registry's versions must be signed with, and what checking one found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from gateway.core.errors import ConfigError
from gateway.registry.verification.plain_files import path_problem

if TYPE_CHECKING:
    from pathlib import Path

Enforcement: TypeAlias = Literal["require", "warn", "off"]
SigningMethod: TypeAlias = Literal["key", "certificate", "sigstore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignaturePolicy:
    """Who must have signed the versions of a registry.

    Attributes:
        policy: `require` refuses a version that is not signed as said here; `warn` serves it and says so;
            `off` looks at no signature.
        method: how versions are signed: with an elliptic-curve key, with a key that a certificate vouches
            for, or with a sigstore identity (keyless).
        public_key: of method `key`: PEM file of a P-256, P-384 or P-521 public key.
        certificate_chain: of method `certificate`: PEM files of the authorities that are trusted. Any
            certificate they issue for signing is accepted unless `identity` names one. A signature outlives
            its certificate, and revocations are not looked up.
        identity: of method `sigstore`: the signer, an e-mail address or the URI of a workflow. Of method
            `certificate`, optional: common name or alternative name of the signing certificate.
        issuer: of method `sigstore`: the OpenID Connect issuer that vouches for the identity.
        trust_config: of method `sigstore`: file with the client trust configuration. Without it the trust
            root of the public sigstore service is fetched over the network at every check.
        signature_file: where in a version the signature lies.
    """

    policy: Enforcement = "off"
    method: SigningMethod = "key"
    public_key: Path | None = None
    certificate_chain: tuple[Path, ...] = ()
    identity: str = ""
    issuer: str = ""
    trust_config: Path | None = None
    signature_file: str = "model.sig"


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """What checking one version found.

    Attributes:
        signed: the policy's signer signed exactly these files.
        by: who signed, for people: a key's fingerprint, a certificate's subject, an identity.
        detail: for people: what was signed, or why it does not count as signed.
    """

    signed: bool
    by: str
    detail: str


def check_settings(policy: SignaturePolicy) -> None:
    """Check that a policy says all that its method needs.

    Raises:
        ConfigError: what is missing or does not fit; without file and line.
    """
    if policy.policy == "off":
        return
    if problem := path_problem(policy.signature_file):
        raise ConfigError(f"signature_file names {policy.signature_file!r}, {problem}")
    needed: dict[SigningMethod, tuple[str, ...]] = {
        "key": ("public_key",),
        # Without a chain the library trusts the web's authorities, who vouch for every web site there is.
        "certificate": ("certificate_chain",),
        "sigstore": ("identity", "issuer"),
    }
    wanted = needed[policy.method]
    if missing := [name for name in wanted if not getattr(policy, name)]:
        raise ConfigError(f"signatures of method {policy.method} need {' and '.join(missing)}")
    allowed = {*wanted, *_OPTIONAL[policy.method]}
    foreign = [name for name in _OF_A_METHOD if name not in allowed and getattr(policy, name)]
    if foreign:
        raise ConfigError(f"{foreign[0]} has no meaning for signatures of method {policy.method}")


_OPTIONAL: dict[SigningMethod, tuple[str, ...]] = {
    "key": (),
    "certificate": ("identity",),
    "sigstore": ("trust_config",),
}
_OF_A_METHOD = ("public_key", "certificate_chain", "identity", "issuer", "trust_config")
