"""Signatures of real bundles: what must pass, and everything that must not."""

from __future__ import annotations

import base64
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing

from gateway.core.registry import RegistryError
from gateway.registry.verification.policy import SignaturePolicy
from gateway.registry.verification.signatures import SignatureVerifier
from tests.registry.verification.signed_models import (
    Signer,
    manifest,
    new_signer,
    sign,
    sign_statement,
    statement_of,
    write_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return new_signer(tmp_path, "ours")


@pytest.fixture
def version(tmp_path: Path, signer: Signer) -> Path:
    """A version that our signer signed."""
    return sign(write_version(tmp_path / "version"), signer)


def verifier(signer: Signer, **settings: Any) -> SignatureVerifier:
    """Return one that requires our signer's key, or as `settings` say."""
    return SignatureVerifier(
        SignaturePolicy(**{"policy": "require", "public_key": signer.public, **settings})
    )


def _write(path: str, content: bytes = b"more") -> Callable[[Path], object]:
    def change(version: Path) -> None:
        (version / path).parent.mkdir(parents=True, exist_ok=True)
        (version / path).write_bytes(content)

    return change


def _flip(path: str) -> Callable[[Path], object]:
    def change(version: Path) -> None:
        content = bytearray((version / path).read_bytes())
        content[len(content) // 2] ^= 1
        (version / path).write_bytes(content)

    return change


def _bundle(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write(version: Path) -> None:
        bundle = json.loads((version / "model.sig").read_text())
        change(bundle)
        (version / "model.sig").write_text(json.dumps(bundle))

    return write


def _text(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda version: (version / "model.sig").write_text(change((version / "model.sig").read_text()))


def _second_envelope(text: str) -> str:
    """Add an envelope under the other name that the library takes for it, which lists what the real lacks."""
    envelope = json.loads(text)["dsseEnvelope"]
    return text[:-1] + ', "dsse_envelope": ' + json.dumps(envelope) + "}"


def _payload(change: Callable[[bytes], bytes]) -> Callable[[dict[str, Any]], object]:
    def apply(bundle: dict[str, Any]) -> None:
        payload = change(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    return apply


NO_BUNDLE = "'model.sig' is no signature bundle"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unsigned": (
        lambda v: (v / "model.sig").unlink(),
        "the version is not signed: it has no file 'model.sig'",
    ),
    "model changed": (_flip("model.onnx"), "'model.onnx' is not as signed: changed or damaged since"),
    "data changed": (_flip("data/w.bin"), "'data/w.bin' is not as signed"),
    "settings changed": (_flip("config.pbtxt"), "'config.pbtxt' is not as signed"),
    "file added": (_write("extra.bin"), "'extra.bin' is not covered by the signature"),
    "two files added": (_write("a/b.bin"), "'a/b.bin' is not covered"),
    "file added under .git": (
        _write(".git/hooks/w.bin"),
        r"'.git/hooks/w.bin' is not covered by the signature",
    ),
    "gitattributes added": (_write(".gitattributes"), "'.gitattributes' is not covered by the signature"),
    "file removed": (lambda v: (v / "data/w.bin").unlink(), "'data/w.bin' is signed, but missing"),
    "bundle empty": (_text(lambda _: ""), NO_BUNDLE),
    "bundle cut": (_text(lambda t: t[: len(t) // 2]), NO_BUNDLE),
    "bundle not JSON": (_text(lambda _: "<html>404</html>"), NO_BUNDLE),
    "bundle not text": (_write("model.sig", b"\xff\xfe\0"), NO_BUNDLE),
    "bundle a list": (_text(lambda t: f"[{t}]"), NO_BUNDLE),
    "bundle nested deeply": (_text(lambda _: "[" * 100_000), NO_BUNDLE),
    "bundle huge": (_text(lambda t: t + " " * (32 << 20)), "'model.sig' has more than 32 MiB"),
    "bundle with two envelopes": (_text(_second_envelope), NO_BUNDLE),
    "bundle with a key twice": (_text(lambda t: t[:-1] + ", " + t[1:]), NO_BUNDLE),
    "statement changed": (
        _bundle(_payload(lambda p: p.replace(b'"version"', b'"other"'))),
        "another key, or changed",
    ),
    "statement cut": (_bundle(_payload(lambda p: p[:-30])), NO_BUNDLE),
    "signature changed": (
        _bundle(
            lambda b: b["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(b"x" * 70).decode())
        ),
        "another key, or changed afterwards",
    ),
    "no signature": (
        _bundle(lambda b: b["dsseEnvelope"].update(signatures=[])),
        "no signature of method key",
    ),
    "no key": (_bundle(lambda b: b["verificationMaterial"].pop("publicKey")), "no signature of method key"),
    "other media type": (_bundle(lambda b: b.update(mediaType="text/plain")), "no signature of method key"),
    "other payload type": (
        _bundle(lambda b: b["dsseEnvelope"].update(payloadType="text/plain")),
        "does not verify: Expected DSSE payload",
    ),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_when_required_and_told_when_not(
    change: Callable[[Path], object], reason: str, version: Path, signer: Signer
) -> None:
    """What is wrong with a version refuses it under `require`, for good, and is only told under `warn`."""
    change(version)
    files = manifest(version)
    with pytest.raises(RegistryError, match=f"^verify: .*{reason}") as caught:
        verifier(signer).check(version, files)
    assert (caught.value.step, caught.value.may_pass) == ("verify", False)
    assert str(version.parent) not in str(caught.value)
    report = verifier(signer, policy="warn").check(version, files)
    assert (report.signed, report.by) == (False, "")
    assert report.detail == str(caught.value).removeprefix("verify: ")
    assert not verifier(signer, policy="off").check(version, files).signed


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_signed_version_passes(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    """A version signed with the key passes, under both policies, and the report says by which key."""
    signer = new_signer(tmp_path, "ours", curve)
    version = sign(write_version(tmp_path / "version"), signer)
    for policy in ("require", "warn"):
        report = verifier(signer, policy=policy).check(version, manifest(version))
        assert report.signed
        assert report.by.startswith("key sha256:")
        assert report.detail == "3 files signed as 'version'"


def test_signed_by_another(tmp_path: Path, signer: Signer, version: Path) -> None:
    """A version that another key signed is refused, with the hint of our key put into its bundle as well."""
    hint = json.loads((version / "model.sig").read_text())["verificationMaterial"]["publicKey"]["hint"]
    sign(version, new_signer(tmp_path, "theirs"))
    with pytest.raises(RegistryError, match="made with another key than the one configured"):
        verifier(signer).check(version, manifest(version))
    _bundle(lambda b: b["verificationMaterial"]["publicKey"].update(hint=hint))(version)
    with pytest.raises(RegistryError, match="made with another key, or changed afterwards"):
        verifier(signer).check(version, manifest(version))


def test_what_the_signer_ignored_is_not_exempt(version: Path, signer: Signer) -> None:
    """Paths that the signer chose to ignore are recorded in the signature, and help nobody."""
    (version / "data" / "new.bin").write_bytes(b"new")
    untyped: Any = hashing.Config
    sign(version, signer, untyped().set_ignored_paths(paths=["model.sig", "data"]))
    with pytest.raises(RegistryError, match=r"'data/new.bin' and 1 more are not covered by the signature"):
        verifier(signer).check(version, manifest(version))
    sign(version, signer, untyped().set_ignored_paths(paths=["model.sig", "."]))
    with pytest.raises(RegistryError, match=r"'config.pbtxt' and 3 more are not covered by the signature"):
        verifier(signer).check(version, manifest(version))


def test_signed_git_files_pass(version: Path, signer: Signer) -> None:
    """Files of git are files like others once they are signed."""
    _write(".git/config")(version)
    untyped: Any = hashing.Config
    sign(version, signer, untyped().set_ignored_paths(paths=["model.sig"], ignore_git_paths=False))
    assert verifier(signer).check(version, manifest(version)).signed


@pytest.mark.parametrize(
    "how",
    [
        lambda config: config.use_file_serialization(hashing_algorithm="blake2"),
        lambda config: config.use_file_serialization(hashing_algorithm="blake3"),
        lambda config: config.use_shard_serialization(shard_size=1 << 20),
        lambda config: config.use_shard_serialization(shard_size=1 << 20, hashing_algorithm="blake2"),
    ],
)
def test_other_ways_of_hashing(how: Callable[[Any], Any], version: Path, signer: Signer) -> None:
    """Digests other than SHA-256 of whole files are checked as well: pass, changed, added."""
    untyped: Any = hashing.Config
    _write("data/large.bin", bytes(range(256)) * 8192)(version)
    sign(version, signer, how(untyped().set_ignored_paths(paths=["model.sig"])))
    assert verifier(signer).check(version, manifest(version)).signed
    _flip("data/large.bin")(version)
    with pytest.raises(
        RegistryError, match=r"its files are not as signed: Hash mismatch for 'data/large.bin"
    ):
        verifier(signer).check(version, manifest(version))
    _flip("data/large.bin")(version)
    _write(".git/x")(version)
    with pytest.raises(RegistryError, match=r"'.git/x' is not covered"):
        verifier(signer).check(version, manifest(version))


def test_small_pieces_are_refused(version: Path, signer: Signer) -> None:
    """Files that were signed in tiny pieces would be millions of digests to hold."""
    untyped: Any = hashing.Config
    sign(
        version,
        signer,
        untyped().use_shard_serialization(shard_size=10).set_ignored_paths(paths=["model.sig"]),
    )
    with pytest.raises(RegistryError, match="signed in pieces of 10 bytes"):
        verifier(signer).check(version, manifest(version))


def test_signature_file_that_was_not_ignored(tmp_path: Path, version: Path, signer: Signer) -> None:
    """A signature made outside and put beside the files afterwards is good under any name."""
    shutil.move(version / "model.sig", tmp_path / "outside")
    untyped: Any = hashing.Config
    sign(version, signer, untyped(), to="../version.sig")
    (version / "meta").mkdir()
    shutil.move(tmp_path / "version.sig", version / "meta" / "signature.json")
    with pytest.raises(RegistryError, match=r"no file 'model.sig'"):
        verifier(signer).check(version, manifest(version))
    assert verifier(signer, signature_file="meta/signature.json").check(version, manifest(version)).signed


def test_signature_of_another_model_passes(tmp_path: Path, version: Path, signer: Signer) -> None:
    """The format binds no model: the name that was signed is told, and nothing more."""
    moved = tmp_path / "other"
    shutil.copytree(version, moved)
    assert verifier(signer).check(moved, manifest(moved)).detail == "3 files signed as 'version'"


def test_manifest_and_disk_must_both_be_as_signed(version: Path, signer: Signer) -> None:
    """A file that changed after it was hashed, or a digest that is not the file's, is refused."""
    before = manifest(version)
    _flip("model.onnx")(version)
    with pytest.raises(RegistryError, match=r"Hash mismatch for 'model.onnx'"):
        verifier(signer).check(version, before)
    _flip("model.onnx")(version)
    with pytest.raises(RegistryError, match=r"'model.onnx' is not as signed"):
        verifier(signer).check(version, {**before, "model.onnx": "0" * 64})
    _write("unseen.bin")(version)
    with pytest.raises(RegistryError, match=r"Extra files found.*unseen.bin"):
        verifier(signer).check(version, before)


def test_link_in_the_version(tmp_path: Path, version: Path, signer: Signer) -> None:
    """A link to the very content that was signed is refused."""
    shutil.move(version / "model.onnx", tmp_path / "model.onnx")
    (version / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(RegistryError, match="symlink") as caught:
        verifier(signer).check(version, manifest(version))
    assert str(tmp_path) not in str(caught.value)


TRICKS = {
    "parent": "../version/model.onnx",
    "absolute": "/etc/passwd",
    "dot": "./model.onnx",
    "doubled": "data//w.bin",
    "hidden": "model.onnx\0",
    "backslash": "data\\w.bin",
    "empty": "",
}


@pytest.mark.parametrize("path", TRICKS.values(), ids=TRICKS.keys())
def test_tricks_with_paths(path: str, version: Path, signer: Signer) -> None:
    """A well signed statement that lists a file under a path that no version has is refused."""
    files = manifest(version)
    del files["model.sig"]
    sign_statement(version, signer, statement_of(files))
    assert verifier(signer).check(version, manifest(version)).signed, "without the trick it is good"
    sign_statement(version, signer, statement_of({**files, path: files["model.onnx"]}))
    with pytest.raises(RegistryError, match=r"the signature lists .*, which"):
        verifier(signer).check(version, manifest(version))


def test_statements_that_are_none(version: Path, signer: Signer) -> None:
    """A well signed statement about something else, or in the format before 1.0, is refused."""
    good = statement_of({p: d for p, d in manifest(version).items() if p != "model.sig"})
    for change, reason in (
        (
            {"predicateType": "https://slsa.dev/provenance/v1"},
            "signs something else than the files of a model",
        ),
        ({"predicateType": "https://model_signing/Digests/v0.1"}, "before model-signing 1.0; sign it again"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "does not verify"),
        ({"predicate": {"serialization": {"method": "none"}}}, "signs something else"),
        ({"predicate": []}, "signs something else"),
        ({"subject": []}, "signs something else"),
    ):
        sign_statement(version, signer, {**good, **change})
        with pytest.raises(RegistryError, match=reason):
            verifier(signer).check(version, manifest(version))
    twice = statement_of({p: d for p, d in manifest(version).items() if p != "model.sig"})
    twice["predicate"]["resources"].append(twice["predicate"]["resources"][0])
    sign_statement(version, signer, twice)
    with pytest.raises(RegistryError, match=r"lists '.*' twice"):
        verifier(signer).check(version, manifest(version))


def test_key_is_read_anew(tmp_path: Path, version: Path, signer: Signer) -> None:
    """A key that is replaced counts from the next check; one that is gone may come back."""
    checking = verifier(signer)
    assert checking.check(version, manifest(version)).signed
    shutil.copy(new_signer(tmp_path, "next").public, signer.public)
    with pytest.raises(RegistryError, match="another key"):
        checking.check(version, manifest(version))
    signer.public.unlink()
    with pytest.raises(RegistryError, match="cannot be checked: No such file") as caught:
        checking.check(version, manifest(version))
    assert caught.value.may_pass
