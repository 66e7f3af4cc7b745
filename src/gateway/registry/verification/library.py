"""The model-signing library as we use it: one verifier per policy, its failures in words, who signed."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from gateway.core.errors import ConfigError
from gateway.registry.verification.bundle import SignedStatement, Unproven
from gateway.registry.verification.plain_files import shown_path

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.registry.verification.policy import SignaturePolicy

_PACKAGES: Final = ("model_signing", "OpenSSL")
_MOST_CHARACTERS: Final = 300
# Of what the library says about files: the first difference, without digests.
_DIFFERING: Final = re.compile(r"Hash mismatch for '.*?'(?=: Expected)|(?:Extra|Missing) files [^\"\]]*")


class LibraryVerifier(Protocol):
    """What we use of `model_signing.verifying.Config` once it knows a signer."""

    def verify(self, model_path: Path, signature_path: Path) -> None:
        """Raise unless the signer signed the tree at `model_path`, but for what it ignores."""


def library_verifier(policy: SignaturePolicy, statement: SignedStatement) -> LibraryVerifier:
    """Return the library's verifier for a policy, hashing as the signer of `statement` did.

    Raises:
        Unproven: of method sigstore, the trust root could not be fetched.
        OSError: a key or certificate file cannot be read.
        Exception: a file is not what the method needs.
    """
    from model_signing.verifying import Config  # noqa: PLC0415 - takes 0.6 s, and an extra to be there

    untyped: Any = Config
    config = untyped().set_hashing_config(_hashing(policy, statement))
    if policy.method == "key":
        made = config.use_elliptic_key_verifier(public_key=policy.public_key)
    elif policy.method == "certificate":
        made = config.use_certificate_verifier(certificate_chain=policy.certificate_chain)
    else:
        made = _sigstore_verifier(config, policy)
    return cast("LibraryVerifier", made)


def _sigstore_verifier(config: Any, policy: SignaturePolicy) -> Any:
    from sigstore.errors import NetworkError, TUFError  # noqa: PLC0415 - as above

    try:
        return config.use_sigstore_verifier(
            identity=policy.identity, oidc_issuer=policy.issuer, trust_config=policy.trust_config
        )
    except (NetworkError, TUFError) as error:
        raise Unproven(
            "the trust root of sigstore cannot be fetched over the network; name a trust_config file to do "
            "without it",
            may_pass=True,
        ) from error


def _hashing(policy: SignaturePolicy, statement: SignedStatement) -> Any:
    from model_signing.hashing import Config  # noqa: PLC0415 - as above

    untyped: Any = Config
    made = untyped()
    # One thread: the library would start one per file, and the event loop has to get its turn.
    how = {"hashing_algorithm": statement.algorithm, "max_workers": 1}
    if statement.shard_bytes:
        made.use_shard_serialization(shard_size=statement.shard_bytes, **how)
    else:
        made.use_file_serialization(**how)
    return made.set_ignored_paths(paths=[policy.signature_file], ignore_git_paths=False)


def check_installed() -> None:
    """Check that the library can be imported.

    Raises:
        ConfigError: it is not installed.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ConfigError(
            f"checking signatures needs the extra 'signing' ({missing[0]} is not installed): "
            "pip install 'model-gateway[signing]', or set the policy of signatures to off"
        )


def check_readable(policy: SignaturePolicy) -> None:
    """Try a policy's files, so that a wrong one is told at start and not at the first version.

    Raises:
        ConfigError: with the path, which the operator wrote.
    """
    named, wanted = {
        "key": (str(policy.public_key), "a PEM public key of curve P-256, P-384 or P-521"),
        "certificate": (", ".join(map(str, policy.certificate_chain)), "PEM certificates"),
        "sigstore": (str(policy.trust_config), "a client trust configuration of sigstore"),
    }[policy.method]
    if policy.method == "sigstore" and policy.trust_config is None:
        return  # it would ask the network
    try:
        library_verifier(policy, SignedStatement("", {}, "sha256", 0, b""))
    except OSError as error:
        raise ConfigError(f"cannot read '{error.filename}': {error.strerror}") from error
    except Exception as error:
        raise ConfigError(f"'{named}' is not {wanted}: {_one_line(error)}") from error


def unproven(error: Exception, policy: SignaturePolicy, directory: Path) -> Unproven:
    """Return the library's failure in words; to be raised from it."""
    name = policy.signature_file
    kind = type(error).__name__
    if str(error).startswith("Key mismatch"):
        return Unproven(f"the signature in '{name}' was made with another key than the one configured")
    if kind == "InvalidSignature":
        return Unproven(f"the signature in '{name}' was made with another key, or changed afterwards")
    if kind == "X509StoreContextError":
        return Unproven(f"the certificate in '{name}' does not lead to a trusted one: {_one_line(error)}")
    if differing := _DIFFERING.search(str(error).replace("\\'", "'")):
        return Unproven(f"its files are not as signed: {_shortened(differing[0], directory)}")
    if isinstance(error, KeyError | AttributeError | TypeError | IndexError) or kind in _NOT_OF_THIS_METHOD:
        return Unproven(f"'{name}' holds no signature of method {policy.method}")
    return Unproven(f"the signature in '{name}' does not verify: {_one_line(error, directory)}")


_NOT_OF_THIS_METHOD: Final = frozenset({"ValidationError", "InvalidBundle"})


def _one_line(error: Exception, directory: Path | None = None) -> str:
    return _shortened(str(error) or type(error).__name__, directory)


def _shortened(text: str, directory: Path | None) -> str:
    text = " ".join(text.split())
    if directory is not None:
        text = text.replace(f"{directory}/", "").replace(str(directory), "the version")
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


def signer(policy: SignaturePolicy, statement: SignedStatement) -> str:
    """Return who made a verified signature, for people.

    Raises:
        Unproven: a trusted certificate, but of somebody else than the policy names.
    """
    if policy.method == "key":
        assert policy.public_key is not None  # the method needs it
        return f"key sha256:{hashlib.sha256(_key_bytes(policy.public_key)).hexdigest()[:16]}"
    if policy.method == "sigstore":
        return f"{policy.identity} ({policy.issuer})"
    return _certificate_holder(policy, statement.certificate)


def _key_bytes(path: Path) -> bytes:
    """Return the key in DER, as `openssl pkey -pubin -outform DER` writes it."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - comes with the extra

    key = serialization.load_pem_public_key(path.read_bytes())
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _certificate_holder(policy: SignaturePolicy, der: bytes) -> str:
    from cryptography import x509  # noqa: PLC0415 - comes with the extra

    certificate = x509.load_der_x509_certificate(der)
    subject = certificate.subject.rfc4514_string()
    if policy.identity and policy.identity not in _names(certificate):
        raise Unproven(
            f"it was signed with the certificate of {shown_path(subject)}, not of '{policy.identity}'"
        )
    return f"{subject} (certificate sha256:{hashlib.sha256(der).hexdigest()[:16]})"


def _names(certificate: Any) -> set[str]:
    from cryptography import x509  # noqa: PLC0415 - comes with the extra

    names = {str(a.value) for a in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    kinds = (x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier)
    return names.union(*(others.get_values_for_type(kind) for kind in kinds))
