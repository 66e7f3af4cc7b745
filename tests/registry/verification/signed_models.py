"""Version directories, keys, certificates and real signatures for the tests of verification."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from model_signing import hashing, signing

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"model.onnx": b"weights of the model", "data/w.bin": b"\0" * 100, "config.pbtxt": b"name: 'm'"}
IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Signer:
    """A key pair as PEM files."""

    key: ec.EllipticCurvePrivateKey
    private: Path
    public: Path


def new_signer(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> Signer:
    """Make a key pair below `folder`."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    signer = Signer(key, folder / f"{name}.pem", folder / f"{name}.pub")
    signer.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signer.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return signer


def write_version(directory: Path, files: dict[str, bytes] | None = None) -> Path:
    """Write a version's files."""
    for path, content in (FILES if files is None else files).items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return directory


def sign(directory: Path, signer: Signer, how: Any = None, to: str = "model.sig") -> Path:
    """Sign a version as it is, the way the library's own command does."""
    untyped: Any = hashing.Config
    how = how or untyped().set_ignored_paths(paths=[to])
    config: Any = signing.Config
    config().use_elliptic_key_signer(private_key=signer.private).set_hashing_config(how).sign(
        directory, directory / to
    )
    return directory


def sign_statement(directory: Path, signer: Signer, statement: dict[str, Any]) -> None:
    """Write a bundle with a good signature over any statement, as nobody's signing tool would make it."""
    payload = json.dumps(statement).encode()
    encoded = f"DSSEv1 {len(IN_TOTO)} {IN_TOTO} {len(payload)} ".encode() + payload
    pem = signer.public.read_bytes()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": IN_TOTO,
        "signatures": [
            {
                "sig": base64.b64encode(signer.key.sign(encoded, ec.ECDSA(hashes.SHA256()))).decode(),
                "keyid": "",
            }
        ],
    }
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(pem).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }
    (directory / "model.sig").write_text(json.dumps(bundle))


def statement_of(resources: dict[str, str], **serialization: Any) -> dict[str, Any]:
    """Return the statement that lists these files with these digests, in the library's order."""
    whole = hashlib.sha256(b"".join(bytes.fromhex(resources[path]) for path in resources)).hexdigest()
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, **serialization}
    listed = [{"name": p, "algorithm": "sha256", "digest": d} for p, d in resources.items()]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": how, "resources": listed},
    }


def manifest(directory: Path) -> dict[str, str]:
    """Return path -> SHA-256 of everything below a directory."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def new_certificate(
    folder: Path,
    name: str,
    signer: Signer,
    issued_by: tuple[Signer, str] | None = None,
    *,
    signs: bool = True,
    emails: tuple[str, ...] = (),
) -> Path:
    """Write a certificate for `signer`, by itself or issued by another; one of its own is an authority."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issued_by[1] if issued_by else name)])
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issued_by is None,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(signer.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=issued_by is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if emails:
        names = x509.SubjectAlternativeName([x509.RFC822Name(email) for email in emails])
        builder = builder.add_extension(names, critical=False)
    made = builder.sign((issued_by[0] if issued_by else signer).key, hashes.SHA256())
    path = folder / f"{name}.crt"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    return path


def sign_with_certificate(directory: Path, signer: Signer, certificate: Path, chain: list[Path]) -> Path:
    """Sign a version with a certificate."""
    config: Any = signing.Config
    untyped: Any = hashing.Config
    config().use_certificate_signer(
        private_key=signer.private, signing_certificate=certificate, certificate_chain=chain
    ).set_hashing_config(untyped().set_ignored_paths(paths=["model.sig"])).sign(
        directory, directory / "model.sig"
    )
    return directory
