"""Policies that lack something are refused when they are configured, in words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.core.errors import ConfigError
from gateway.registry.verification.policy import SignaturePolicy
from gateway.registry.verification.signatures import SignatureVerifier
from tests.registry.verification.signed_models import new_certificate, new_signer

if TYPE_CHECKING:
    from pathlib import Path

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({}, "signatures of method key need public_key"),
    "no chain": ({"method": "certificate"}, "signatures of method certificate need certificate_chain"),
    "no identity": ({"method": "sigstore"}, "signatures of method sigstore need identity and issuer"),
    "no issuer": ({"method": "sigstore", "identity": "a@b.c"}, "signatures of method sigstore need issuer"),
    "both": ({"public_key": "ours.pub", "issuer": "x"}, "issuer has no meaning for signatures of method key"),
    "signature outside": ({"signature_file": "../m.sig"}, "signature_file names '../m.sig', which leaves"),
    "key missing": ({"public_key": "absent.pub"}, r"cannot read '.*absent\.pub': No such file"),
    "key private": ({"public_key": "ours.pem"}, r"'.*ours\.pem' is not a PEM public key of curve P-256"),
    "key of another curve": ({"public_key": "odd.pub"}, r"'.*odd\.pub' is not .*secp256k1"),
    "key empty": ({"public_key": "empty"}, r"'.*empty' is not a PEM public key"),
    "chain missing": ({"method": "certificate", "certificate_chain": ["ours.crt", "absent"]}, "cannot read"),
    "chain of a key": (
        {"method": "certificate", "certificate_chain": ["ours.pub"]},
        "is not PEM certificates",
    ),
    "trust config": (
        {"method": "sigstore", "identity": "a", "issuer": "b", "trust_config": "empty"},
        r"'.*empty' is not a client trust configuration of sigstore",
    ),
}


def _policy(folder: Path, settings: dict[str, Any], enforced: str = "require") -> SignaturePolicy:
    """Make a policy whose files lie in `folder`."""
    found: dict[str, Any] = {"policy": enforced, **settings}
    for key in ("public_key", "trust_config"):
        if key in found:
            found[key] = folder / found[key]
    if "certificate_chain" in found:
        found["certificate_chain"] = tuple(folder / name for name in found["certificate_chain"])
    return SignaturePolicy(**found)


@pytest.mark.parametrize(("settings", "reason"), WRONG.values(), ids=WRONG.keys())
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    """A setting that cannot work is told at start, under `warn` as well; `off` asks for nothing."""
    new_certificate(tmp_path, "ours", new_signer(tmp_path, "ours"))
    new_signer(tmp_path, "odd", ec.SECP256K1())
    (tmp_path / "empty").write_bytes(b"")
    for enforced in ("require", "warn"):
        with pytest.raises(ConfigError, match=reason):
            SignatureVerifier(_policy(tmp_path, settings, enforced))
    SignatureVerifier(_policy(tmp_path, settings, "off"))


@pytest.mark.parametrize("package", ["model_signing", "OpenSSL"])
def test_extra_that_is_not_installed(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, or what it forgets to ask for, the message says what to install."""
    policy = SignaturePolicy(policy="warn", public_key=new_signer(tmp_path, "ours").public)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"extra 'signing' \({package} is not installed\): pip install"):
        SignatureVerifier(policy)
    SignatureVerifier(SignaturePolicy())
