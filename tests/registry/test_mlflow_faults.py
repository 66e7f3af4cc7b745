"""MLflow servers that are down, slow, broken or lying, and what people are told."""

import asyncio
import base64
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from gateway.core.errors import ConfigError
from gateway.core.registry import (
    NotInRegistry,
    RangeUnsupported,
    RegistryError,
    RegistryFile,
    RegistryVersion,
)
from gateway.registry.mlflow.registry import MlflowOptions, MlflowRegistry
from tests.registry.mlflow_fake import API, ARTIFACTS, SOURCE, FakeMlflow, Request, fake_mlflow

MODEL = bytes(range(256)) * 4096
FILES = {"model.onnx": MODEL, "MLmodel": b"flavors: {}", "a dir/100% #odd?.bin": b"odd", "empty": b""}
DOWNLOAD = f"{ARTIFACTS}/"


@pytest.fixture
def mlflow() -> Iterator[FakeMlflow]:
    with fake_mlflow() as server:
        server.serve(FILES)
        yield server


@pytest.fixture
async def registry(mlflow: FakeMlflow) -> AsyncIterator[MlflowRegistry]:
    async with opened(mlflow) as one:
        yield one


def opened(mlflow: FakeMlflow, **options: Any) -> "aclosing[MlflowRegistry]":
    return aclosing(MlflowRegistry("mlflow", MlflowOptions(tracking_uri=mlflow.uri, **options)))


async def version_of(registry: MlflowRegistry) -> RegistryVersion:
    (version,) = (await registry.model("fraud")).versions
    return version


async def read(
    registry: MlflowRegistry, path: str = "model.onnx", start: int = 0, end: int | None = None
) -> bytes:
    version = await version_of(registry)
    file = next(file for file in await registry.files(version) if file.path == path)
    return b"".join([piece async for piece in registry.read(version, file, start, end)])


async def test_the_fake_is_one_that_can_be_read(registry: MlflowRegistry) -> None:
    """What follows fails for its own reason alone; names that mean something in URLs are no trouble."""
    assert {path: await read(registry, path) for path in FILES} == FILES
    assert await read(registry, start=1000, end=300_000) == MODEL[1000:300_000]
    assert await read(registry, start=len(MODEL) - 1) == MODEL[-1:]
    assert await read(registry, start=5, end=5) == b""


async def test_a_look_costs_two_requests(mlflow: FakeMlflow, registry: MlflowRegistry) -> None:
    """However often it is repeated."""
    for _ in range(3):
        mlflow.seen.clear()
        await registry.model("fraud")
        assert len(mlflow.seen) == 2


def always(status: int, body: Any = b"", **headers: str) -> Callable[[Request], None]:
    return lambda request: request.give(status, body, **headers)


def drop(request: Request) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


REST_FAULTS: dict[str, tuple[Callable[[Request], None], str, bool]] = {
    "500": (always(500), "keeps answering with errors", True),
    "503": (always(503, {"error_code": "TEMPORARILY_UNAVAILABLE"}), "keeps answering with errors", True),
    "429": (always(429), "keeps answering with errors", True),
    "401": (always(401, b"You are not authenticated."), "MLFLOW_TRACKING_USERNAME", True),
    "403": (always(403, {"error_code": "PERMISSION_DENIED", "message": "no"}), "MLFLOW_TRACKING_TOKEN", True),
    "a page for people": (
        always(200, b"<html>Welcome</html>"),
        "is this the address of a tracking server",
        True,
    ),
    "a list": (always(200, []), "is this the address of a tracking server", True),
    "what it does not take": (
        always(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "bad\nname"}),
        "INVALID_PARAMETER_VALUE: bad name",
        False,
    ),
    "a connection that breaks": (drop, "broke the connection off", True),
    "a short answer": (always(200, b"{}", Content_Length="10"), "broke the connection off", True),
    "a circle": (
        lambda request: request.give(302, b"", Location=request.path),
        "redirects in a circle",
        True,
    ),
}


@pytest.mark.parametrize("call", ["registered-models/get", "model-versions/search"])
@pytest.mark.parametrize(("answer", "message", "may_pass"), REST_FAULTS.values(), ids=REST_FAULTS.keys())
async def test_a_look_that_fails(
    mlflow: FakeMlflow, call: str, answer: Any, message: str, may_pass: bool
) -> None:
    """It names the server and what to do, and says whether waiting helps."""
    mlflow.override(API + call, answer)
    async with opened(mlflow) as registry:
        with pytest.raises(RegistryError, match=message) as caught:
            await registry.model("fraud")
    told = caught.value
    assert (told.step, told.may_pass) == ("resolve", may_pass)
    assert not isinstance(told, NotInRegistry)
    assert mlflow.uri.removeprefix("http://") in str(told)
    assert API not in str(told)
    assert str(told).isprintable()


async def test_a_model_that_is_not_there(mlflow: FakeMlflow, registry: MlflowRegistry) -> None:
    """It is said to be none, which is no fault of the server."""
    del mlflow.answers[f"{API}registered-models/get"]
    with pytest.raises(NotInRegistry, match="there is none"):
        await registry.model("fraud")


async def test_a_version_that_went_meanwhile(mlflow: FakeMlflow, registry: MlflowRegistry) -> None:
    """Its files cannot be fetched, now or later."""
    version = await version_of(registry)
    del mlflow.answers[f"{API}model-versions/get-download-uri"]
    with pytest.raises(RegistryError, match="there is none") as caught:
        await registry.files(version)
    assert (caught.value.step, caught.value.may_pass) == ("fetch", False)


async def test_a_server_that_does_not_answer(mlflow: FakeMlflow) -> None:
    """The look ends in the time it may take, and others can be taken meanwhile."""
    mlflow.override(f"{API}registered-models/get", mlflow.hang)
    async with opened(mlflow, timeout_s=0.2) as registry:
        looks = await asyncio.gather(*(registry.model("fraud") for _ in range(9)), return_exceptions=True)
    for told in looks:
        assert isinstance(told, RegistryError)
        assert "did not answer within 0.2 s" in str(told)
        assert told.may_pass


async def test_a_server_that_is_not_there() -> None:
    """It is told from one that is slow."""
    with fake_mlflow() as gone:
        pass
    async with opened(gone) as registry:
        with pytest.raises(RegistryError, match=r"127\.0\.0\.1:\d+ cannot be reached") as caught:
            await registry.model("fraud")
    assert caught.value.may_pass


async def test_lineage_is_no_condition(mlflow: FakeMlflow) -> None:
    """A run that cannot be had, or not in time, costs its part of the lineage and nothing else."""
    version = {"name": "fraud", "version": "1", "status": "READY", "source": SOURCE, "run_id": "r1"}
    mlflow.override(f"{API}model-versions/search", always(200, {"model_versions": [version]}))
    async with opened(mlflow, timeout_s=0.5) as registry:
        for answer in (always(500), always(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}), mlflow.hang):
            mlflow.override(f"{API}runs/get", answer)
            assert (await version_of(registry)).lineage["run_id"] == "r1"


STATES: dict[str, tuple[dict[str, str], str]] = {
    "pending": ({"status": "PENDING_REGISTRATION"}, "not finished"),
    "failed": (
        {"status": "FAILED_REGISTRATION", "status_message": "no space"},
        "FAILED_REGISTRATION: no space",
    ),
    "no number": ({"version": "two"}, "'two' is no positive integer"),
    "zero": ({"version": "0"}, "no positive integer"),
    "a number in disguise": ({"version": "01"}, "no positive integer"),
    "too large a number": ({"version": "9" * 19}, "no positive integer"),
}


@pytest.mark.parametrize(("changes", "reason"), STATES.values(), ids=STATES.keys())
async def test_a_version_that_cannot_be_served(
    mlflow: FakeMlflow, registry: MlflowRegistry, changes: dict[str, str], reason: str
) -> None:
    """It is left out with a reason; an alias may name it all the same."""
    versions = [
        {"name": "fraud", "version": "2", "status": "READY", "source": SOURCE, **changes},
        {"name": "fraud", "version": "1", "status": "READY", "source": SOURCE},
    ]
    model = {"name": "fraud", "aliases": [{"alias": "champion", "version": versions[0]["version"]}]}
    mlflow.override(f"{API}registered-models/get", always(200, {"registered_model": model}))
    mlflow.override(f"{API}model-versions/search", always(200, {"model_versions": versions}))
    known = await registry.model("fraud")
    assert [version.label for version in known.versions] == ["1"]
    assert reason in known.unusable[versions[0]["version"]]
    assert known.aliases == {"champion": versions[0]["version"]}


def truncated(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(MODEL)))
    request.end_headers()
    request.wfile.write(MODEL[:-1])


def truncated_in_chunks(request: Request) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"%x\r\n%b\r\n" % (1000, MODEL[:1000]))


def ended_in_chunks(request: Request) -> None:
    truncated_in_chunks(request)
    request.wfile.write(b"0\r\n\r\n")


FILE_FAULTS: dict[str, tuple[Callable[[Request], None], str]] = {
    "500": (always(500), "answered 500"),
    "401": (always(401), "MLFLOW_TRACKING_USERNAME"),
    "404": (always(404), "is not among the artifacts"),
    "truncated": (truncated, "broke the connection off"),
    "truncated in chunks": (truncated_in_chunks, "broke the connection off"),
    "ended in chunks": (ended_in_chunks, "bytes too few"),
    "another size": (always(200, MODEL + b"x"), "has changed"),
    "compressed": (always(200, MODEL, Content_Encoding="gzip"), "a proxy before MLflow .* compresses"),
    "a connection that breaks": (drop, "broke the connection off"),
}


@pytest.mark.parametrize(("answer", "message"), FILE_FAULTS.values(), ids=FILE_FAULTS.keys())
async def test_a_download_that_fails(
    mlflow: FakeMlflow, registry: MlflowRegistry, answer: Any, message: str
) -> None:
    """It names the file, and may be tried again."""
    mlflow.override(DOWNLOAD, answer)
    with pytest.raises(RegistryError, match=message) as caught:
        await read(registry)
    assert (caught.value.step, caught.value.may_pass) == ("fetch", True)
    assert "model.onnx" in str(caught.value)
    assert "/run/" not in str(caught.value)


async def test_a_download_that_stalls(mlflow: FakeMlflow) -> None:
    """It is given up when no byte has come for the time that one may take."""
    mlflow.override(DOWNLOAD, mlflow.stall)
    async with opened(mlflow, read_timeout_s=0.3) as registry:
        version = await version_of(registry)
        stream = registry.read(version, RegistryFile(path="model.onnx", size=1_000_000), 0, None)
        with pytest.raises(RegistryError, match=r"model\.onnx: .*did not answer in time"):
            await anext(stream)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (always(206, MODEL[7:9], Content_Range=f"bytes 7-8/{len(MODEL)}"), "another range"),
        (always(206, MODEL[5:9]), "another range"),
        (always(206, MODEL[5:7], Content_Range="bytes 5-6/7"), "has changed"),
        (always(206, MODEL[5:8], Content_Range=f"bytes 5-7/{len(MODEL)}"), "bytes too few"),
        (always(416), "shorter than when it was listed"),
    ],
)
async def test_a_range_that_is_another(
    mlflow: FakeMlflow, registry: MlflowRegistry, answer: Any, message: str
) -> None:
    """Its bytes are not taken for those that were asked for."""
    assert await read(registry, start=5, end=9) == MODEL[5:9]
    mlflow.override(f"{DOWNLOAD}1/run/artifacts/model/model.onnx", answer)
    with pytest.raises(RegistryError, match=message):
        await read_known(registry)


async def test_a_range_that_is_the_whole_file(mlflow: FakeMlflow, registry: MlflowRegistry) -> None:
    """Also from a server that has given ranges before."""
    assert await read(registry, start=5, end=9) == MODEL[5:9]
    mlflow.override(f"{DOWNLOAD}1/run/artifacts/model/model.onnx", always(200, MODEL))
    with pytest.raises(RangeUnsupported):
        await read_known(registry)


async def read_known(registry: MlflowRegistry) -> bytes:
    version = await version_of(registry)
    file = RegistryFile(path="model.onnx", size=len(MODEL))
    return b"".join([piece async for piece in registry.read(version, file, 5, 9)])


async def test_a_server_without_ranges(mlflow: FakeMlflow, registry: MlflowRegistry) -> None:
    """A file can only be read from its beginning, where it may end early."""

    def whole(request: Request) -> None:
        del request.headers["Range"]
        artifacts(request)

    artifacts = mlflow.answers[ARTIFACTS]
    mlflow.override(ARTIFACTS, whole)
    with pytest.raises(RangeUnsupported):
        await read(registry, start=5)
    assert await read(registry, end=9) == MODEL[:9]
    assert await read(registry) == MODEL


LISTINGS: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "has no files"),
    "no object": ([], "malformed"),
    "no list": ({"files": {}}, "malformed"),
    "no entry": ({"files": [7]}, "no file can be"),
    "a name that leads out": ({"files": [{"path": "../x"}]}, r"no file can be: '\.\./x'"),
    "the directory above": ({"files": [{"path": ".."}]}, "no file can be"),
    "an absolute name": ({"files": [{"path": "/etc/passwd"}]}, "no file can be"),
    "an empty name": ({"files": [{"path": ""}]}, "no file can be"),
    "control characters": ({"files": [{"path": "a\nb"}]}, r"no file can be: 'a\\nb'"),
    "half of a character": ({"files": [{"path": "\ud800"}]}, "no file can be"),
    "an endless name": ({"files": [{"path": "x" * 5000}]}, "no file can be"),
    "an endless tree": ({"files": [{"path": "x", "is_dir": True}]}, "no file can be|directories"),
    "a growing tree": (
        {"files": [{"path": c, "is_dir": True} for c in "abcdefgh"]},
        "more than .* directories",
    ),
    "too many files": (
        {"files": [{"path": str(n), "file_size": 1} for n in range(10_001)]},
        "more than 10000 files",
    ),
    "no JSON": (b"<html>", "not JSON"),
    "too much": (b" " * (17 << 20), "longer than"),
}


@pytest.mark.parametrize(("listing", "message"), LISTINGS.values(), ids=LISTINGS.keys())
async def test_a_listing_that_is_none(
    mlflow: FakeMlflow, registry: MlflowRegistry, listing: Any, message: str
) -> None:
    """Nothing outside the version is ever asked for, and nothing endless is read."""
    mlflow.override(ARTIFACTS, always(200, listing))
    version = await version_of(registry)
    with pytest.raises(RegistryError, match=message) as caught:
        await registry.files(version)
    assert caught.value.step == "fetch"
    assert str(caught.value).isprintable()


async def test_credentials_are_sent(mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow's client finds them, to every part of the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    basic = f"Basic {base64.b64encode(b'somebody:secret').decode()}"
    async with opened(mlflow) as registry:
        await read(registry)
        assert {request.headers["Authorization"] for request in mlflow.seen} == {basic}
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    mlflow.seen.clear()
    async with opened(mlflow) as registry:
        await read(registry)
    assert {request.headers["Authorization"] for request in mlflow.seen} == {"Bearer token"}


async def test_credentials_do_not_follow_to_another_host(
    mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be somewhere else; who serves it there need not know who asks."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    with fake_mlflow() as elsewhere:
        elsewhere.serve(FILES)
        mlflow.override(
            DOWNLOAD, lambda request: request.give(302, b"", Location=elsewhere.uri + request.path)
        )
        async with opened(mlflow) as registry:
            assert await read(registry) == MODEL
        assert [request.headers["Authorization"] for request in elsewhere.seen] == [None]


async def test_artifacts_of_another_server(mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever registers a version must not be able to send our credentials to a server of theirs."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    with fake_mlflow() as elsewhere:
        elsewhere.serve(FILES)
        host = elsewhere.uri.removeprefix("http://")
        uri = SOURCE.replace(":/", f"://{host}/", 1)
        mlflow.override(f"{API}model-versions/get-download-uri", always(200, {"artifact_uri": uri}))
        async with opened(mlflow) as registry:
            with pytest.raises(RegistryError, match="name it in artifact_hosts"):
                await read(registry)
        assert not elsewhere.seen
        async with opened(mlflow, artifact_hosts=(host,)) as registry:
            assert await read(registry) == MODEL
        assert elsewhere.seen[0].headers["Authorization"] == "Bearer token"


def test_a_call_that_hangs_does_not_hold_up_the_exit(mlflow: FakeMlflow) -> None:
    """The process ends though a thread of it waits for an answer."""
    mlflow.override(f"{API}registered-models/get", mlflow.hang)
    script = (
        "import asyncio\n"
        "from gateway.registry.mlflow.registry import MlflowOptions, MlflowRegistry\n"
        "async def main():\n"
        f"    registry = MlflowRegistry('m', MlflowOptions(tracking_uri='{mlflow.uri}', timeout_s=0.2))\n"
        "    try:\n"
        "        await registry.model('fraud')\n"
        "    except Exception as error:\n"
        "        print(error)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "100"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "did not answer within 0.2 s" in done.stdout
    assert not mlflow.ended.is_set()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "expected the address"),
        ("databricks", "expected the address"),
        ("ftp://host", "expected the address"),
        ("postgresql://user:secret@host/db", "expected the address"),
        ("http://", "expected a host"),
        ("http://[", "not a URL"),
        ("https://user:secret@host", "credentials belong in"),
        ("https://host/path?token=secret", "expected a host"),
    ],
)
def test_an_address_that_is_none(uri: str, message: str) -> None:
    """It is refused at the start, and what may be a password is not repeated."""
    with pytest.raises(ConfigError, match=message) as caught:
        MlflowRegistry("mlflow", MlflowOptions(tracking_uri=uri))
    assert "secret" not in str(caught.value)
