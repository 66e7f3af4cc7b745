"""Read a model-signing bundle without trusting it: which files it claims to sign. Blocking, bounded.

A bundle is JSON around a DSSE envelope around an in-toto statement that lists every file with its digest.
That the statement is authentic is for `signatures` to establish; what is read here is the same statement,
since a bundle that two readers could understand differently is refused.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.registry.verification.plain_files import path_problem, shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BUNDLE_BYTES: Final = 32 << 20
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_PREDICATE_BEFORE_1_0: Final = "https://model_signing/Digests/v0.1"
_ALGORITHMS: Final = {"sha256": "sha256", "blake2b": "blake2", "blake3": "blake3"}
_LEAST_SHARD_BYTES: Final = 1 << 20


class Unproven(Exception):
    """A version does not count as signed; the message says why, without paths of the server.

    Attributes:
        may_pass: whether the same check tried later can succeed.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """What a bundle claims to sign.

    Attributes:
        name: name of the directory that was signed; nothing binds it to a model's name.
        files: path -> hex SHA-256 of the content; empty where the signer used another digest.
        algorithm: of the digests, as the library names it when it hashes: `sha256`, `blake2` or `blake3`.
        shard_bytes: files were hashed in pieces of this size; 0: whole.
        certificate: the signing certificate, DER; empty when the bundle has none in a chain.
    """

    name: str
    files: Mapping[str, str]
    algorithm: str
    shard_bytes: int
    certificate: bytes = field(repr=False)


def read_bundle(path: Path) -> SignedStatement:
    """Read the bundle at `path`.

    Raises:
        Unproven: it is too large, no bundle, or names files in ways that a version cannot have.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        text = file.read(MAX_BUNDLE_BYTES + 1)
    if len(text) > MAX_BUNDLE_BYTES:
        raise Unproven(f"'{path.name}' has more than {MAX_BUNDLE_BYTES >> 20} MiB, too much for a signature")
    try:
        bundle = json.loads(text.decode(), object_pairs_hook=_bundle_object)
        payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
        statement = json.loads(payload.decode(), object_pairs_hook=_object)
        certificate = _certificate(bundle["verificationMaterial"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise Unproven(
            f"'{path.name}' is no signature bundle: damaged, cut short, or something else"
        ) from error
    try:
        return _statement(statement, certificate)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise Unproven(f"'{path.name}' signs something else than the files of a model") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is there twice")
    return made


def _bundle_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The library takes `dsse_envelope` for `dsseEnvelope` as well: with both, which one did it verify?
    if any("_" in key for key, _ in pairs):
        raise ValueError("a key that a bundle does not have")
    return _object(pairs)


def _certificate(material: Mapping[str, Any]) -> bytes:
    chain = material.get("x509CertificateChain")
    return base64.b64decode(chain["certificates"][0]["rawBytes"]) if chain else b""


def _statement(statement: Mapping[str, Any], certificate: bytes) -> SignedStatement:
    kind = statement["predicateType"]
    if kind == _PREDICATE_BEFORE_1_0:
        raise Unproven("it was signed in a format from before model-signing 1.0; sign it again")
    if kind != _PREDICATE:
        raise ValueError("another predicate")
    how = statement["predicate"]["serialization"]
    sharded = {"files": False, "shards": True}[how["method"]]
    files: dict[str, str] = {}
    for resource in statement["predicate"]["resources"]:
        path = _shard_path(resource["name"]) if sharded else resource["name"]
        _check_path(path)
        if path in files and not sharded:
            raise Unproven(f"the signature lists {shown_path(path)} twice")
        whole = not sharded and resource["algorithm"] == "sha256"
        files[path] = resource["digest"].lower() if whole else ""
    shard_bytes = int(how["shard_size"]) if sharded else 0
    if sharded and shard_bytes < _LEAST_SHARD_BYTES:
        raise Unproven(f"its files were signed in pieces of {shard_bytes} bytes; sign them whole")
    name = str(statement["subject"][0]["name"])
    return SignedStatement(name, files, _ALGORITHMS[how["hash_type"]], shard_bytes, certificate)


def _shard_path(name: str) -> str:
    path, _, _ = name.rsplit(":", 2)
    return path


def _check_path(path: Any) -> None:
    if not isinstance(path, str):
        raise TypeError("a path that is no text")
    if problem := path_problem(path):
        raise Unproven(f"the signature lists {shown_path(path)}, {problem}")
