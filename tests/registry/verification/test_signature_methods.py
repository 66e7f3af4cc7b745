"""Signatures by certificate, and by sigstore as far as that goes without its service."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.registry import RegistryError
from gateway.registry.verification.policy import SignaturePolicy
from gateway.registry.verification.signatures import SignatureVerifier
from tests.registry.verification.signed_models import (
    manifest,
    new_certificate,
    new_signer,
    sign,
    sign_with_certificate,
    write_version,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.registry.verification.bundle import SignedStatement


class Authority:
    """An authority that people trust, or not, with one signer whom it vouches for."""

    def __init__(self, folder: Path, name: str, **certificate: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._key = new_signer(folder, name)
        self.certificate = new_certificate(folder, name, self._key)
        self.signer = new_signer(folder, "alice")
        self.leaf = new_certificate(folder, "alice", self.signer, (self._key, name), **certificate)

    def sign(self, version: Path) -> Path:
        return sign_with_certificate(version, self.signer, self.leaf, [self.certificate])


def trusting(authority: Authority, **settings: Any) -> SignatureVerifier:
    """Return a verifier that requires certificates of an authority."""
    policy = SignaturePolicy(
        policy="require", method="certificate", certificate_chain=(authority.certificate,), **settings
    )
    return SignatureVerifier(policy)


def test_certificate(tmp_path: Path) -> None:
    """A signer whom the authority vouches for passes and is named; a changed file does not pass."""
    ours = Authority(tmp_path / "ours", "our authority")
    version = ours.sign(write_version(tmp_path / "version"))
    report = trusting(ours).check(version, manifest(version))
    assert report.signed
    assert report.by.startswith("CN=alice (certificate sha256:")
    (version / "model.onnx").write_bytes(b"changed")
    with pytest.raises(RegistryError, match=r"'model\.onnx' is not as signed"):
        trusting(ours).check(version, manifest(version))
    (version / ".git").write_bytes(b"added")
    with pytest.raises(RegistryError, match=r"'\.git' is not covered"):
        trusting(ours).check(version, manifest(version))


def test_certificate_of_an_unknown_authority(tmp_path: Path) -> None:
    """An authority of the same name with another key is not the one that is trusted."""
    ours = Authority(tmp_path / "ours", "our authority")
    version = Authority(tmp_path / "theirs", "our authority").sign(write_version(tmp_path / "version"))
    with pytest.raises(
        RegistryError, match=r"certificate in 'model\.sig' does not lead to a trusted one"
    ) as caught:
        trusting(ours).check(version, manifest(version))
    assert not caught.value.may_pass


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # the library's
def test_certificate_that_is_not_for_signing(tmp_path: Path) -> None:
    """A certificate for something else is refused."""
    ours = Authority(tmp_path / "ours", "our authority", signs=False)
    version = ours.sign(write_version(tmp_path / "version"))
    with pytest.raises(RegistryError, match="cannot be used for signing"):
        trusting(ours).check(version, manifest(version))


@pytest.mark.parametrize(
    ("identity", "passes"), [("alice", True), ("alice@example.com", True), ("bob", False)]
)
def test_identity_of_a_certificate(tmp_path: Path, identity: str, passes: bool) -> None:
    """A policy may name the holder, by common name or alternative name."""
    ours = Authority(tmp_path / "ours", "our authority", emails=("alice@example.com",))
    version = ours.sign(write_version(tmp_path / "version"))
    checking = trusting(ours, identity=identity)
    if passes:
        assert checking.check(version, manifest(version)).signed
    else:
        with pytest.raises(RegistryError, match="signed with the certificate of 'CN=alice', not of 'bob'"):
            checking.check(version, manifest(version))


def test_methods_do_not_mix(tmp_path: Path) -> None:
    """A good signature of one method is none of another."""
    ours = Authority(tmp_path / "ours", "our authority")
    by_certificate = ours.sign(write_version(tmp_path / "by-certificate"))
    by_key = sign(write_version(tmp_path / "by-key"), ours.signer)
    with pytest.raises(RegistryError, match=r"'model\.sig' holds no signature of method certificate"):
        trusting(ours).check(by_key, manifest(by_key))
    policy = SignaturePolicy(policy="require", public_key=ours.signer.public)
    with pytest.raises(RegistryError, match=r"'model\.sig' holds no signature of method key"):
        SignatureVerifier(policy).check(by_certificate, manifest(by_certificate))


SIGSTORE: dict[str, Any] = {
    "policy": "require",
    "method": "sigstore",
    "identity": "alice@example.com",
    "issuer": "https://accounts.example.com",
}


def test_sigstore_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trust root that cannot be fetched is said, with what to do, and may be there later."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for directory in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(directory, str(tmp_path / "home"))
    version = sign(write_version(tmp_path / "version"), new_signer(tmp_path, "ours"))
    with pytest.raises(
        RegistryError, match=r"trust root of sigstore cannot be fetched.*trust_config"
    ) as caught:
        SignatureVerifier(SignaturePolicy(**SIGSTORE)).check(version, manifest(version))
    assert caught.value.may_pass
    report = SignatureVerifier(SignaturePolicy(**{**SIGSTORE, "policy": "warn"})).check(
        version, manifest(version)
    )
    assert not report.signed


def test_sigstore_with_a_trust_configuration(tmp_path: Path) -> None:
    """With the trust root in a file nothing is fetched, and a bundle without sigstore's proofs is refused."""
    stored = resources.files("sigstore") / "_store" / "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
    trust = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": json.loads((stored / "trusted_root.json").read_text()),
        "signingConfig": json.loads((stored / "signing_config.v0.2.json").read_text()),
    }
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    ours = Authority(tmp_path / "ours", "our authority")
    checking = SignatureVerifier(SignaturePolicy(**SIGSTORE, trust_config=tmp_path / "trust.json"))
    for version in (
        sign(write_version(tmp_path / "by-key"), ours.signer),
        ours.sign(write_version(tmp_path / "by-certificate")),
    ):
        with pytest.raises(
            RegistryError, match=r"'model\.sig' holds no signature of method sigstore"
        ) as caught:
            checking.check(version, manifest(version))
        assert not caught.value.may_pass


class _Trusting:
    """Stands for sigstore's service: takes every bundle for verified."""

    def __init__(self, policy: SignaturePolicy, statement: SignedStatement) -> None:
        self.asked = (policy.identity, statement.name)

    def verify(self, model_path: Path, signature_path: Path) -> None:
        assert signature_path.is_relative_to(model_path)


def test_what_follows_a_sigstore_verification(tmp_path: Path) -> None:
    """Once sigstore vouches for a bundle, the report names the identity; files are compared all the same."""
    version = sign(write_version(tmp_path / "version"), new_signer(tmp_path, "ours"))
    checking = SignatureVerifier(SignaturePolicy(**SIGSTORE), _Trusting)
    report = checking.check(version, manifest(version))
    assert (report.signed, report.by) == (True, "alice@example.com (https://accounts.example.com)")
    (version / ".git").write_bytes(b"added")
    with pytest.raises(RegistryError, match=r"'\.git' is not covered by the signature"):
        checking.check(version, manifest(version))
