"""The provider: what it asks of the cache, and which file of a version is the model."""

from pathlib import Path

import pytest

from gateway.core.registry import RegistryError
from gateway.core.types import ModelSignature
from gateway.registry.provider import ArtifactRules, CachedProvider, Wanted, find_model
from gateway.registry.verification.policy import SignatureReport
from gateway.testing import identity_signature
from tests.registry.fakes import FakeCache, FakeRegistry, version


def provider(cache: FakeCache, rules: ArtifactRules | None = None, **wanted: str) -> CachedProvider:
    subject = Wanted(registry=FakeRegistry(), version=version("7"), **wanted)
    return CachedProvider(cache, subject, rules or ArtifactRules())


async def obtained(cache: FakeCache, rules: ArtifactRules | None = None, **wanted: str) -> str:
    async with provider(cache, rules, **wanted).obtain(lambda _progress: None) as artifact:
        assert cache.held == 1
        assert artifact.model_file.is_relative_to(artifact.directory)
        return artifact.model_file.relative_to(artifact.directory).as_posix()


def mlmodel_filename(directory: Path, subject: str) -> str:
    text = (directory / "MLmodel").read_text()
    if not text.startswith("data: "):
        raise RegistryError("verify", f"{subject} has no ONNX flavour", may_pass=False)
    return text.removeprefix("data: ")


MLFLOW = ArtifactRules(mlmodel_filename=mlmodel_filename)


@pytest.mark.parametrize(
    ("files", "declared", "rules", "expected"),
    [
        (["model.onnx", "other.onnx"], "", None, "model.onnx"),
        (["net.onnx", "weights.bin"], "", None, "net.onnx"),
        (["net.onnx", "sub/other.onnx"], "", None, "net.onnx"),
        (["model.onnx", "net.onnx"], "net.onnx", None, "net.onnx"),
        (["sub/net.onnx"], "sub/net.onnx", None, "sub/net.onnx"),
        (["model.onnx", "MLmodel"], "", None, "model.onnx"),
        (["model.onnx", "model.data", "MLmodel"], "", MLFLOW, "model.data"),
        (["model.onnx", "model.data", "MLmodel"], "model.onnx", MLFLOW, "model.onnx"),
        (["net.onnx"], "", MLFLOW, "net.onnx"),
    ],
)
async def test_the_model_is_found(
    tmp_path: Path, files: list[str], declared: str, rules: ArtifactRules | None, expected: str
) -> None:
    """As config.pbtxt says, else MLmodel, else by its name, else the only one; given back at the end."""
    cache = FakeCache(tmp_path, dict.fromkeys(files, b"data: model.data"))
    assert await obtained(cache, rules, model_filename=declared) == expected
    assert cache.held == 0


@pytest.mark.parametrize(
    ("files", "declared", "rules", "says"),
    [
        (
            {"a.onnx", "b.onnx"},
            "",
            None,
            r"several model files \('a.onnx', 'b.onnx'\): name one 'model.onnx'",
        ),
        ({"weights.bin"}, "", None, r"has no .onnx file \('weights.bin'\)"),
        ({"sub/net.onnx"}, "", None, "'sub/net.onnx' does not lie at its root"),
        (set(), "", None, "it has no files"),
        ({"model.onnx"}, "net.onnx", None, "no file 'net.onnx', which config.pbtxt names as its model"),
        ({"model.onnx", "config.pbtxt"}, "", None, "config.pbtxt of its own, .* put it beside the versions"),
        ({"model.onnx", "MLmodel"}, "", MLFLOW, "version '7' of 'fraud' has no ONNX flavour"),
    ],
)
async def test_no_model_is_found(
    tmp_path: Path, files: set[str], declared: str, rules: ArtifactRules | None, says: str
) -> None:
    """A fault of the version for good, told before its files are published."""
    cache = FakeCache(tmp_path, dict.fromkeys(files, b"bytes"))
    with pytest.raises(RegistryError, match=says) as caught:
        await obtained(cache, rules, model_filename=declared)
    assert (caught.value.step, caught.value.may_pass) == ("verify", False)
    assert cache.held == 0
    assert str(tmp_path) not in str(caught.value)


async def test_a_model_that_mlmodel_names_and_nobody_fetched(tmp_path: Path) -> None:
    """Only files of the manifest may be loaded."""
    rules = ArtifactRules(mlmodel_filename=lambda _directory, _subject: "../model.onnx")
    cache = FakeCache(tmp_path, {"MLmodel": b"", "model.onnx": b""})
    with pytest.raises(RegistryError, match=r"no file '../model.onnx', which its MLmodel names"):
        await obtained(cache, rules)


async def test_what_the_cache_is_asked(tmp_path: Path) -> None:
    """The version with its pinned digest; nothing before it is obtained."""
    cache = FakeCache(tmp_path)
    subject = provider(cache, pinned_digest="d" * 64)
    assert cache.requests == []
    async with subject.obtain(lambda _progress: None):
        (request,) = cache.requests
    assert (request.version, request.pinned_digest) == (version("7"), "d" * 64)


@pytest.mark.parametrize("signed", [True, False])
async def test_a_signature_is_checked_and_told(tmp_path: Path, signed: bool) -> None:
    """The verifier sees the private directory with the digests found in it; its report is kept for people."""
    seen: list[tuple[bool, list[str]]] = []

    class Verifier:
        def check(self, directory: Path, files: dict[str, str]) -> SignatureReport:
            seen.append(((directory / "model.onnx").is_file(), sorted(files)))
            return SignatureReport(signed=signed, by="ops", detail="why")

    subject = provider(FakeCache(tmp_path), ArtifactRules(signatures=Verifier()))  # type: ignore[arg-type]  # takes a Mapping as well
    reports = [subject.signature]
    async with subject.obtain(lambda _progress: None):
        reports.append(subject.signature)
    assert reports == [None, SignatureReport(signed=signed, by="ops", detail="why")]
    assert seen == [(True, ["model.onnx"])]


async def test_a_signature_that_is_refused(tmp_path: Path) -> None:
    """The files are not handed out."""

    class Verifier:
        def check(self, directory: Path, files: object) -> SignatureReport:
            raise RegistryError("verify", "the version is not signed", may_pass=False)

    cache = FakeCache(tmp_path)
    with pytest.raises(RegistryError, match="verify: the version is not signed"):
        await obtained(cache, ArtifactRules(signatures=Verifier()))
    assert cache.held == 0


async def test_the_signature_of_mlmodel_narrows(tmp_path: Path) -> None:
    """It is compared where a version brings one."""
    asked: list[ModelSignature] = []

    def narrow(directory: Path, signature: ModelSignature, subject: str) -> None:
        assert (directory / "MLmodel").is_file()
        assert subject == "version '7' of 'fraud'"
        asked.append(signature)

    rules = ArtifactRules(narrow=narrow)
    for files in ({"model.onnx": b""}, {"model.onnx": b"", "MLmodel": b""}):
        subject = provider(FakeCache(tmp_path / str(len(files)), files), rules)
        async with subject.obtain(lambda _progress: None) as artifact:
            subject.narrow(artifact, identity_signature())
    assert asked == [identity_signature()]


def test_messages_name_few_of_many_files() -> None:
    """A version of thousands of files makes no message of thousands of names."""
    with pytest.raises(RegistryError, match="and 992 more") as caught:
        find_model([f"{n:04}{'x' * 500}.bin" for n in range(1000)], "version '7'")
    assert len(str(caught.value)) < 3000
