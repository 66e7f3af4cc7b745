"""The model repository that a fleet shares."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

from gateway.backends.triton.control import parsed, rendered
from gateway.backends.triton.publishing import CLAIM_S, SharedRepository
from gateway.core.errors import ModelLoadError
from gateway.core.options import ModelSpec
from gateway.core.types import Artifact


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The files of a version, one of them in a folder."""
    folder = tmp_path / "version"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "weights" / "part").write_bytes(b"weights")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The repository's directory."""
    root = tmp_path / "shared"
    root.mkdir()
    return root


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_version_is_there_whole_and_nothing_else_is(root: Path, version: Path) -> None:
    """Beside it lies its digest; publishing it again changes nothing, not even a time."""
    repository = SharedRepository(root)
    repository.publish("m", 3, version, "digest")
    assert files(root) == {"m/3/model.onnx", "m/3/weights/part", "m/.3.sha256"}
    assert (root / "m" / "3" / "weights" / "part").read_bytes() == b"weights"
    before = (root / "m" / "3").stat()
    repository.publish("m", 3, version, "digest")
    assert (root / "m" / "3").stat() == before


def test_other_content_under_a_number_is_refused(root: Path, version: Path) -> None:
    """The first keeps it, and its files are as they were."""
    repository = SharedRepository(root)
    repository.publish("m", 3, version, "first")
    (version / "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelLoadError, match="never published twice"):
        repository.publish("m", 3, version, "second")
    assert (root / "m" / "3" / "model.onnx").read_bytes() == b"model"


def test_what_no_gateway_has_published_stays_as_it_is(root: Path, version: Path) -> None:
    """A version that somebody put there by hand is his."""
    (root / "m" / "3").mkdir(parents=True)
    with pytest.raises(ModelLoadError, match="no gateway has published"):
        SharedRepository(root).publish("m", 3, version, "digest")
    assert files(root) == set()


def test_a_gateway_that_died_while_it_copied_leaves_a_number_that_can_be_published(
    root: Path, version: Path
) -> None:
    """It had reserved the number, and copied a part beside."""
    repository = SharedRepository(root)
    (root / "m" / ".incoming-1").mkdir(parents=True)
    (root / "m" / ".3.sha256").write_text("digest\n")
    repository.publish("m", 3, version, "digest")
    assert (root / "m" / "3" / "model.onnx").read_bytes() == b"model"


def test_gateways_that_publish_at_once_agree(root: Path, version: Path) -> None:
    """Of many with two contents one content wins everywhere; nothing half-written is left."""
    outcomes: list[tuple[str, str]] = []
    together = threading.Barrier(8)

    def publish(digest: str) -> None:
        together.wait()
        try:
            SharedRepository(root).publish("m", 1, version, digest)
            outcomes.append((digest, "there"))
        except ModelLoadError:
            outcomes.append((digest, "refused"))

    threads = [threading.Thread(target=publish, args=(f"digest-{n % 2}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = (root / "m" / ".1.sha256").read_text().strip()
    assert {digest for digest, outcome in outcomes if outcome == "there"} == {winner}
    assert len(outcomes) == 8
    assert files(root) == {"m/1/model.onnx", "m/1/weights/part", "m/.1.sha256"}


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "", "a" * 129])
def test_a_name_never_leads_out_of_the_repository(root: Path, version: Path, name: str) -> None:
    """Nor to a folder that Triton does not look at."""
    with pytest.raises(ModelLoadError, match="cannot be the name"):
        SharedRepository(root).publish(name, 1, version, "digest")
    assert list(root.iterdir()) == []


def test_an_operators_configuration_is_never_replaced(root: Path) -> None:
    """Without one the model's own is written."""
    repository = SharedRepository(root)
    repository.configure("m", model_config_pb2.ModelConfig(name="m", max_batch_size=8))
    repository.configure("m", model_config_pb2.ModelConfig(name="m", max_batch_size=16))
    assert parsed(repository.configuration("m")).max_batch_size == 8
    assert repository.configuration("other") == ""


def test_a_full_or_read_only_file_system_is_no_fault_of_the_model(root: Path, version: Path) -> None:
    """Its error is the cause, so that it is tried again where that may help."""
    (root / "m").write_text("a file where the folder should be")
    with pytest.raises(ModelLoadError, match="publishing version 1") as caught:
        SharedRepository(root).publish("m", 1, version, "digest")
    assert isinstance(caught.value.__cause__, OSError)


def test_claims_of_others_count_until_they_are_withdrawn_or_old(root: Path) -> None:
    """One's own says nothing; a gateway that died is forgotten after a while."""
    (root / "m").mkdir()
    repository = SharedRepository(root)
    repository.claim("m", 1, "us")
    assert not repository.is_claimed("m", 1, beside="us")
    repository.claim("m", 1, "them")
    assert repository.is_claimed("m", 1, beside="us")
    assert not repository.is_claimed("m", 11, beside="us")
    long_ago = time.time() - CLAIM_S - 60
    os.utime(root / "m" / ".1.wanted-them", (long_ago, long_ago))
    assert not repository.is_claimed("m", 1, beside="us")
    repository.claim("m", 1, "them")
    repository.release("m", 1, "them")
    repository.release("m", 1, "them")
    assert not repository.is_claimed("m", 1, beside="us")


def artifact(name: str = "model.onnx") -> Artifact:
    return Artifact(Path("/x"), Path("/x") / name, "digest")


def test_a_model_without_a_configuration_is_an_onnx_model() -> None:
    """Triton completes the rest from the file."""
    config = rendered("m", artifact("net.onnx"), ModelSpec(name="public"))
    assert (config.name, config.platform, config.default_model_filename) == (
        "m",
        "onnxruntime_onnx",
        "net.onnx",
    )


def test_a_models_own_configuration_goes_along_but_for_its_version_policy() -> None:
    """Which versions are loaded is said with each load."""
    own = model_config_pb2.ModelConfig(backend="python", max_batch_size=4)
    own.version_policy.all.SetInParent()
    config = rendered("m", artifact(), ModelSpec(name="m", declared_config=own.SerializeToString()))
    assert (config.backend, config.platform, config.max_batch_size) == ("python", "", 4)
    assert not config.HasField("version_policy")
