"""A real MLflow server as a ModelRegistry."""

import http.server
import json
import queue
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from cryptography.fernet import Fernet

from gateway.core.datatypes import Datatype
from gateway.core.registry import (
    NotInRegistry,
    RangeUnsupported,
    RegistryError,
    RegistryFile,
    RegistryVersion,
)
from gateway.core.types import ModelSignature, TensorSpec
from gateway.registry.mlflow.mlmodel import model_filename
from gateway.registry.mlflow.narrowing import narrow
from gateway.registry.mlflow.registry import MlflowOptions, MlflowRegistry
from gateway.registry.mlflow.stored import store_opener
from gateway.registry.mlflow.webhook import Hint, WebhookVerifier
from gateway.registry.stores import ObjectStoreOptions
from tests.registry.mlflow_publishing import Publisher
from tests.registry.registry_contract import FILES, MODEL, ModelRegistryContract, RegistryUnderTest
from tests.servers.mlflow import ENVIRONMENT, MlflowServer, mlflow_server
from tests.servers.seaweed import Seaweed

pytestmark = pytest.mark.slow

NOBODY = "http://127.0.0.1:9"
"""Nothing listens there."""
USER, PASSWORD = "somebody", "a-password-never-to-be-shown"


@pytest.fixture(scope="module")
def server() -> Iterator[MlflowServer]:
    # MLflow sends webhooks to public addresses by https alone, unless it is told otherwise.
    hooks = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
    }
    with mlflow_server(environment=hooks) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(server: MlflowServer) -> Publisher:
    return Publisher(server)


@pytest.fixture
async def registry(server: MlflowServer) -> AsyncIterator[MlflowRegistry]:
    opened = MlflowRegistry("mlflow", MlflowOptions(tracking_uri=server.uri))
    yield opened
    await opened.aclose()


@pytest.fixture
def name() -> str:
    """A model that no other test has."""
    return f"fraud-{uuid.uuid4().hex}"


class TestContract(ModelRegistryContract):
    """What every registry must do."""

    @pytest.fixture
    async def subject(
        self, server: MlflowServer, publisher: Publisher, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[RegistryUnderTest]:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        registries = [
            MlflowRegistry("mlflow", MlflowOptions(tracking_uri=uri))
            for uri in (server.uri, server.uri, NOBODY)
        ]
        ours, other, unreachable = registries
        yield RegistryUnderTest(
            registry=ours,
            other=other,
            unreachable=unreachable,
            publish=publisher.publish,
            set_alias=publisher.set_alias,
            delete_alias=publisher.delete_alias,
            delete_version=publisher.delete_version,
            secrets=(PASSWORD,),
            model=name,
        )
        for each in registries:
            await each.aclose()


IRIS = ModelSignature(
    inputs=(TensorSpec("X", Datatype.FP32, (-1, 4)),),
    outputs=(TensorSpec("label", Datatype.INT64, (-1,)), TensorSpec("probabilities", Datatype.FP32, (-1, 3))),
)


def train(server: MlflowServer, name: str, kind: str) -> dict[str, Any]:
    """Train and register a version as people do; return what it answers."""
    script = Path(__file__).with_name("mlflow_training_script.py")
    done = subprocess.run(
        [str(ENVIRONMENT / "bin" / "python"), str(script), server.uri, name, "--kind", kind],
        env={"PATH": "/usr/bin:/bin", "HOME": str(server.directory), "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=server.directory,
        capture_output=True,
        text=True,
        check=True,
    )
    answered: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answered


async def only_version(registry: MlflowRegistry, name: str) -> RegistryVersion:
    (version,) = (await registry.model(name)).versions
    return version


async def content(registry: MlflowRegistry, version: RegistryVersion, file: RegistryFile) -> bytes:
    return b"".join([piece async for piece in registry.read(version, file, 0, None)])


async def downloaded(registry: MlflowRegistry, version: RegistryVersion, into: Path) -> list[str]:
    """Write a version's files to a directory, and return their paths."""
    files = await registry.files(version)
    for file in files:
        (into / file.path).parent.mkdir(parents=True, exist_ok=True)
        (into / file.path).write_bytes(await content(registry, version, file))
    return [file.path for file in files]


@pytest.mark.parametrize(("kind", "more_files"), [("small", 0), ("external", 1)])
async def test_a_trained_model_answers_as_it_did_in_training(
    server: MlflowServer, registry: MlflowRegistry, tmp_path: Path, kind: str, more_files: int
) -> None:
    """A scikit-learn model, converted and registered by MLflow's client; its weights may be beside it."""
    name = f"iris-{kind}"
    expected = train(server, name, kind)
    version = await only_version(registry, name)
    assert version.label == expected["version"]
    paths = await downloaded(registry, version, tmp_path)
    assert len(paths) == 5 + more_files
    narrow(tmp_path, IRIS)
    session = ort.InferenceSession(tmp_path / model_filename(tmp_path))
    rows = np.array(expected["rows"], np.float32)
    (probabilities,) = session.run(["probabilities"], {"X": rows})
    np.testing.assert_allclose(probabilities, expected["probabilities"], rtol=1e-4, atol=1e-5)


async def test_lineage_tells_of_run_and_data(
    server: MlflowServer, registry: MlflowRegistry, name: str
) -> None:
    """What MLflow knows of where the version comes from."""
    train(server, name, "small")
    lineage = (await only_version(registry, name)).lineage
    assert lineage["experiment"] == "Default"
    assert lineage["model_id"].startswith("m-")
    assert lineage["source"] == f"models:/{lineage['model_id']}"
    assert len(lineage["run_id"]) == 32
    assert [dataset["name"] for dataset in lineage["datasets"]] == ["iris"]
    assert lineage["datasets"][0]["digest"]
    assert abs(lineage["created_s"] - time.time()) < 600


async def test_a_version_without_onnx_says_what_to_do(
    server: MlflowServer, registry: MlflowRegistry, name: str, tmp_path: Path
) -> None:
    """A model logged as scikit-learn's own."""
    train(server, name, "sklearn")
    await downloaded(registry, await only_version(registry, name), tmp_path)
    with pytest.raises(RegistryError, match=r"it has python_function, sklearn\): log it with mlflow\.onnx"):
        model_filename(tmp_path)


async def test_what_people_edit_changes_no_revision(
    publisher: Publisher, registry: MlflowRegistry, name: str
) -> None:
    """Tags and descriptions are lineage, not content."""
    label = publisher.version(name, FILES, tags={"team": "risk"}, description="first")
    before = await only_version(registry, name)
    publisher.client.set_model_version_tag(name, label, "approved", "yes")
    publisher.client.update_model_version(name, label, "second")
    after = await only_version(registry, name)
    assert after.revision == before.revision
    assert before.lineage["tags"] == {"team": "risk"}
    assert before.lineage["description"] == "first"
    assert after.lineage["tags"] == {"team": "risk", "approved": "yes"}
    assert after.lineage["description"] == "second"


async def test_a_model_registered_anew_has_other_revisions(
    publisher: Publisher, registry: MlflowRegistry, name: str
) -> None:
    """Its versions begin again at 1, and even where their files came from may be the same."""
    publisher.version(name, FILES)
    old = publisher.client.get_model_version(name, "1")
    before = await only_version(registry, name)
    publisher.client.delete_registered_model(name)
    with pytest.raises(NotInRegistry):
        await registry.model(name)
    publisher.client.create_registered_model(name)
    publisher.client.create_model_version(name, old.source, old.run_id)
    after = await only_version(registry, name)
    assert after.label == before.label
    assert after.revision != before.revision


async def test_only_the_newest_versions_are_looked_at(
    server: MlflowServer, publisher: Publisher, name: str
) -> None:
    """And those that an alias names."""
    labels = [publisher.version(name, {"MLmodel": b"x"}) for _ in range(4)]
    publisher.client.set_registered_model_alias(name, "champion", labels[0])
    registry = MlflowRegistry("mlflow", MlflowOptions(tracking_uri=server.uri, max_versions=2))
    known = await registry.model(name)
    assert [version.label for version in known.versions] == [labels[0], labels[2], labels[3]]
    assert known.aliases == {"champion": labels[0]}


@pytest.mark.parametrize("quoted", ["it's", 'so "called"', "with 'both\" kinds"])
async def test_names_with_quotes(
    publisher: Publisher, registry: MlflowRegistry, name: str, quoted: str
) -> None:
    """Filters of MLflow have no escapes: a name with both kinds cannot be searched for."""
    name = f"{quoted} {name}"
    label = publisher.version(name, {"MLmodel": b"x"})
    if "both" in quoted:
        with pytest.raises(RegistryError, match="both kinds of quotes"):
            await registry.model(name)
    else:
        assert (await only_version(registry, name)).label == label


async def test_files_that_are_gone_are_missed(
    publisher: Publisher, registry: MlflowRegistry, name: str
) -> None:
    """The registration stays when somebody cleans up the artifacts."""
    label = publisher.version(name, FILES)
    version = await only_version(registry, name)
    files = {file.path: file for file in await registry.files(version)}
    directory = publisher.directory(name, label)
    (directory / "model.onnx").write_bytes(MODEL[:-1])
    with pytest.raises(RegistryError, match=r"model\.onnx is not of the size .* changed") as changed:
        await content(registry, version, files["model.onnx"])
    (directory / "model.onnx").unlink()
    with pytest.raises(RegistryError, match=r"model\.onnx is not among the artifacts") as missing:
        await content(registry, version, files["model.onnx"])
    assert changed.value.may_pass
    assert missing.value.may_pass


async def test_a_server_that_comes_back_is_used_again(
    server: MlflowServer, publisher: Publisher, registry: MlflowRegistry, name: str
) -> None:
    """Nothing is kept of the connection that was, and what it held is as before."""
    publisher.version(name, FILES)
    before = await registry.model(name)
    (version,) = before.versions
    files = await registry.files(version)
    server.stop()
    try:
        with pytest.raises(RegistryError, match=r"127\.0\.0\.1:\d+ cannot be reached") as looking:
            await registry.model(name)
        with pytest.raises(RegistryError, match=r"model\.onnx: MLflow at .* cannot be reached") as reading:
            await content(registry, version, next(file for file in files if file.path == "model.onnx"))
    finally:
        server.start()
    assert looking.value.may_pass
    assert reading.value.may_pass
    assert await registry.model(name) == before
    assert {file.path: await content(registry, version, file) for file in files} == FILES


@pytest.fixture(scope="module")
def bucket(s3: Seaweed) -> str:
    name = f"mlflow-{uuid.uuid4().hex}"
    s3.bucket(name).put("made", b"")
    return name


async def test_a_server_that_fetches_from_a_bucket_is_asked_for_whole_files(
    s3: Seaweed, bucket: str, name: str
) -> None:
    """It would answer each range at the price of the file."""
    environment = {
        "AWS_ACCESS_KEY_ID": s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": s3.endpoint,
    }
    with mlflow_server(f"s3://{bucket}/proxied", environment) as server:
        Publisher(server).version(name, FILES)
        registry = MlflowRegistry("mlflow", MlflowOptions(tracking_uri=server.uri))
        version = await only_version(registry, name)
        files = {file.path: file for file in await registry.files(version)}
        assert {path: await content(registry, version, file) for path, file in files.items()} == FILES
        with pytest.raises(RangeUnsupported):
            await anext(registry.read(version, files["model.onnx"], 1, 2))


async def test_files_in_a_bucket_are_read_from_there(
    server: MlflowServer, publisher: Publisher, s3: Seaweed, bucket: str, name: str
) -> None:
    """MLflow need not hand them out; it says where they are."""
    for path, part in FILES.items():
        await s3.bucket(bucket).put_async(f"direct/{path}", part)
    publisher.model(name)
    publisher.client.create_model_version(name, f"s3://{bucket}/direct")
    settings = ObjectStoreOptions(
        url="s3://any", endpoint=s3.endpoint, credentials=s3.credentials, allow_http=True
    )
    options = MlflowOptions(tracking_uri=server.uri)
    registry = MlflowRegistry("mlflow", options, store_opener(settings))
    version = await only_version(registry, name)
    files = await registry.files(version)
    assert {file.path: await content(registry, version, file) for file in files} == FILES
    model = next(file for file in files if file.path == "model.onnx")
    middle = b"".join([piece async for piece in registry.read(version, model, 1000, 2000)])
    assert middle == MODEL[1000:2000]
    with pytest.raises(RegistryError, match=r"'s3:\.\.\.', which needs .*model-gateway\[object-store\]"):
        await MlflowRegistry("mlflow", options).files(version)


async def test_a_webhook_says_which_alias_moved(publisher: Publisher, name: str) -> None:
    """MLflow's own delivery, signed by it."""
    received: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.put(({key.lower(): value for key, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    secret = "between the two"
    label = publisher.version(name, {"MLmodel": b"x"})
    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        try:
            hook = publisher.client.create_webhook(
                f"hook-{name}",
                f"http://127.0.0.1:{receiver.server_port}/",
                ["model_version_alias.created", "model_version_alias.deleted"],
                secret=secret,
            )
            publisher.client.set_registered_model_alias(name, "champion", label)
            moved = received.get(timeout=60)
            publisher.client.delete_registered_model_alias(name, "champion")
            deleted = received.get(timeout=60)
            publisher.client.delete_webhook(hook.webhook_id)
        finally:
            receiver.shutdown()
    verifier = WebhookVerifier(secret)
    hints = [verifier.accept(*delivery, time.time()) for delivery in (moved, deleted)]
    assert hints == [Hint(event=f"model_version_alias.{did}", model=name) for did in ("created", "deleted")]
