"""Where MLflow may say that files are, and which of it is read."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.core.registry import RegistryError, RegistryFile
from gateway.registry.mlflow.library import set_defaults
from gateway.registry.mlflow.local import LocalArtifacts
from gateway.registry.mlflow.locations import Local, Proxied, Stored, locate, tracking
from gateway.registry.mlflow.registry import MlflowOptions, MlflowRegistry
from gateway.registry.mlflow.stored import store_opener
from gateway.registry.mlflow.threads import BlockingCalls
from gateway.registry.stores import ObjectStoreOptions

SERVER = tracking("https://MLflow.example.com:8443/team/")
DATABASE = tracking("sqlite:////data/mlflow.db")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("mlflow-artifacts:/1/a/m", Proxied("https://mlflow.example.com:8443/team", "1/a/m")),
        ("mlflow-artifacts:///1/a#b?c%20/", Proxied("https://mlflow.example.com:8443/team", "1/a#b?c%20")),
        (
            "mlflow-artifacts://MLFLOW.example.com:8443/1/a",
            Proxied("https://MLFLOW.example.com:8443/team", "1/a"),
        ),
        ("mlflow-artifacts://files.example.com/1/a", Proxied("https://files.example.com/team", "1/a")),
        ("s3://bucket/a/b", Stored("s3://bucket/a/b")),
        ("gs://bucket/a", Stored("gs://bucket/a")),
        (
            "abfss://box@account.dfs.core.windows.net/a",
            Stored("abfss://box@account.dfs.core.windows.net/a"),
        ),
    ],
)
def test_what_a_server_may_name(uri: str, place: object) -> None:
    """Its own artifacts, those of servers that the configuration names, and buckets."""
    assert locate(uri, SERVER, ["Files.example.com"]) == place


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///etc", "--serve-artifacts"),
        ("/etc", "--serve-artifacts"),
        ("mlruns/0/a", "--serve-artifacts"),
        ("mlflow-artifacts://other.example.com/1/a", "'other.example.com', not at mlflow.example.com:8443"),
        ("mlflow-artifacts://mlflow.example.com/1/a", "name it in artifact_hosts"),
        ("mlflow-artifacts:/1/../../a", "empty parts"),
        ("mlflow-artifacts:/1//a", "empty parts"),
        ("mlflow-artifacts:/", "empty parts"),
        ("https://other.example.com/a", "'https:...'"),
        ("dbfs:/a", "'dbfs:...'"),
        ("runs:/a/b", "'runs:...'"),
        ("s3:///a", "'s3:...'"),
        ("http://[", "not a URL"),
        ("", "--serve-artifacts"),
    ],
)
def test_what_a_server_must_not_name(uri: str, message: str) -> None:
    """Our own disk, servers that nobody named, and what cannot be read."""
    with pytest.raises(RegistryError, match=message) as caught:
        locate(uri, SERVER, ["files.example.com"])
    assert (caught.value.step, caught.value.may_pass) == ("fetch", False)


def test_a_database_of_this_machine_names_directories() -> None:
    """Absolute ones, and no server's."""
    assert locate("/data/a b", DATABASE, []) == Local(Path("/data/a b"))
    assert locate("file:///data/a%20b", DATABASE, []) == Local(Path("/data/a b"))
    for uri in ("mlruns/0", "file://host/data", "mlflow-artifacts:/1/a"):
        with pytest.raises(RegistryError):
            locate(uri, DATABASE, [])


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "s3://bucket/",
        "abfss://box@evil.example.com/a",
        "s3://u@b/a",
    ],
)
def test_a_bucket_that_is_none(url: str) -> None:
    """A client is made for no other host than the cloud's or the configuration's."""
    with pytest.raises(RegistryError, match="that is no"):
        store_opener(ObjectStoreOptions(url="s3://any"))(url)


async def test_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client on a directory of this machine."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    set_defaults(10.0)
    uri = f"file://{tmp_path}/store"

    def publish() -> None:
        from mlflow import MlflowClient

        client: Any = MlflowClient(uri)
        run = client.create_run("0")
        (tmp_path / "model.onnx").write_bytes(b"model")
        client.log_artifact(run.info.run_id, str(tmp_path / "model.onnx"), "model")
        client.create_registered_model("fraud")
        client.create_model_version("fraud", f"{run.info.artifact_uri}/model", run.info.run_id)

    await asyncio.to_thread(publish)
    registry = MlflowRegistry("mlflow", MlflowOptions(tracking_uri=uri))
    (version,) = (await registry.model("fraud")).versions
    (file,) = await registry.files(version)
    assert [piece async for piece in registry.read(version, file, 1, 3)] == [b"od"]


async def test_files_of_a_directory_are_plain_and_stay(tmp_path: Path) -> None:
    """A link is not followed, and a file that changes is noticed."""
    source = LocalArtifacts(tmp_path, BlockingCalls("test", 1))
    with pytest.raises(RegistryError, match="has no files"):
        await source.files()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(b"abc")
    (file,) = await source.files()
    assert (file.path, file.size) == ("sub/a.bin", 3)
    (tmp_path / "sub" / "a.bin").write_bytes(b"abcd")
    with pytest.raises(RegistryError, match=r"sub/a\.bin has changed"):
        await anext(source.read(file, 0, None))
    with pytest.raises(RegistryError, match="cannot be read: No such file"):
        await anext(source.read(RegistryFile(path="lost", size=1), 0, None))
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(RegistryError, match="'link' is not a plain file"):
        await source.files()
    with pytest.raises(RegistryError, match="cannot be read"):
        await anext(source.read(RegistryFile(path="link", size=1), 0, None))
