"""Clients and a proxy that others wrote, against a gateway on each transport."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio

from gateway._proto import open_inference_pb2 as pb
from tests.acceptance.process import ROOT, RunningGateway, serving, until
from tests.acceptance.test_node_client import Node, assert_answers, digits_request, installed, some_pixels
from tests.transport.grpc_wire.frames import message
from tests.transport.grpc_wire.servers import NO_LIMITS, TRANSPORTS, call, failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.transport.grpc_wire.methods import Methods

__all__ = ["installed"]

SERVICE = "inference.GRPCInferenceService"
READY = pb.ModelReadyRequest(name="digits").SerializeToString()
MIB = 1 << 20


@pytest.fixture(scope="module", params=TRANSPORTS)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """The sample models on each transport."""
    log = tmp_path_factory.mktemp("gateway") / "log"
    with serving(log, "--config", ROOT / "configs" / "demo.yaml", transport=request.param) as running:
        yield running


def command(name: str) -> str:
    """Return the path of a command, one of the test environment's own first."""
    own = Path(sys.executable).parent / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def triton_inputs(module: Any, rows: int) -> tuple[Any, list[Any]]:
    pixels = some_pixels(rows)
    tensor = module.InferInput("pixels", list(pixels.shape), "FP32")
    tensor.set_data_from_numpy(pixels)
    return pixels, [tensor]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient(gateway: RunningGateway, compression: str | None) -> None:
    """Unary calls, metadata, and a stream."""
    module = tritonclient.grpc
    with module.InferenceServerClient(gateway.grpc) as client:
        assert client.is_model_ready("digits")
        with pytest.raises(tritonclient.grpc.InferenceServerException, match="nothing"):
            client.get_model_metadata("nothing")
        _, inputs = triton_inputs(module, 3)
        answer = client.infer("digits", inputs, compression_algorithm=compression, headers={"x-a": "b"})
        assert answer.as_numpy("probabilities").shape == (3, 10)
        answers: list[Any] = []
        client.start_stream(lambda result, error: answers.append((result, error)))
        for _ in range(20):
            client.async_stream_infer("digits", inputs)
        client.stop_stream()
    assert len(answers) == 20
    assert all(error is None for _, error in answers)


async def test_tritonclient_with_asyncio(gateway: RunningGateway) -> None:
    """Many calls at once."""
    module = tritonclient.grpc.aio
    async with module.InferenceServerClient(gateway.grpc) as client:
        rows = range(1, 60)
        calls = [client.infer("digits", triton_inputs(module, count)[1]) for count in rows]
        answers = await asyncio.gather(*calls)
        assert [answer.as_numpy("probabilities").shape for answer in answers] == [(n, 10) for n in rows]


@pytest.mark.network
def test_grpc_js(installed: Path, gateway: RunningGateway) -> None:
    """Node's client: unary, stream, refusal."""
    node = Node(installed, gateway)
    pixels = some_pixels(3)
    (response,) = node.answers("ModelInfer", digits_request("7", pixels))
    assert_answers(response, "7", pixels)
    answers = node.answers("ModelStreamInfer", [digits_request("8", pixels)] * 5)
    assert len(answers) == 5
    assert node.call("ModelInfer", {**digits_request("", pixels), "model_name": "x"})["code"] == "NOT_FOUND"


K6_SCRIPT = """
import grpc from 'k6/net/grpc';
import { check } from 'k6';
import { b64encode } from 'k6/encoding';
const client = new grpc.Client();
client.load(['PROTOS'], 'open_inference.proto');
const raw = b64encode(new Float32Array(64).fill(3).buffer);
export const options = { vus: 8, iterations: 400, thresholds: { checks: ['rate==1'] } };
export default () => {
  client.connect('ADDRESS', { plaintext: true });
  for (let i = 0; i < 3; i++) {
    const inputs = [{ name: 'pixels', datatype: 'FP32', shape: [1, 64] }];
    const request = { model_name: 'digits', id: String(__ITER), inputs, raw_input_contents: [raw] };
    const answer = client.invoke('SERVICE/ModelInfer', request, { metadata: { 'x-vu': String(__VU) } });
    check(answer, { ok: (r) => r && r.status === grpc.StatusOK && r.message.id === String(__ITER) });
  }
  const missing = client.invoke('SERVICE/ModelMetadata', { name: 'nothing' });
  check(missing, { 'not found': (r) => r && r.status === grpc.StatusNotFound });
  client.close();
};
"""


def test_k6(gateway: RunningGateway, tmp_path: Path) -> None:
    """grpc-go, by way of k6: a connection for each iteration, several calls on each."""
    script = K6_SCRIPT.replace("PROTOS", str(ROOT / "protos")).replace("ADDRESS", gateway.grpc)
    path = tmp_path / "script.js"
    path.write_text(script.replace("SERVICE", SERVICE))
    run(command("k6"), "run", "--quiet", "--no-usage-report", "--address", "", path)


def test_h2load(gateway: RunningGateway, tmp_path: Path) -> None:
    """nghttp2's load generator: many streams on several connections."""
    body = tmp_path / "body"
    body.write_bytes(message(READY))
    url = f"http://{gateway.grpc}/{SERVICE}/ModelReady"
    fields = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    done = run(command("h2load"), "-n", "3000", "-c", "8", "-m", "16", "-d", body, *fields, url)
    assert "3000 succeeded, 0 failed" in done.stdout
    assert "3000 2xx" in done.stdout


@pytest.mark.parametrize("name", ["curl", "nghttp"])
def test_curl_and_nghttp(gateway: RunningGateway, tmp_path: Path, name: str) -> None:
    """Clients that know HTTP/2 and nothing of gRPC: the message and the trailers are there to see."""
    body = tmp_path / "body"
    body.write_bytes(message(READY))
    url = f"http://{gateway.grpc}/{SERVICE}/ModelReady"
    fields = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    if name == "curl":
        out, head = tmp_path / "out", tmp_path / "head"
        posted = ("--data-binary", f"@{body}", "-o", out, "-D", head)
        run(command(name), "-sS", "--http2-prior-knowledge", *fields, *posted, url)
        assert out.read_bytes() == message(pb.ModelReadyResponse(ready=True).SerializeToString())
        assert re.search(r"(?m)^grpc-status: 0\r?$", head.read_text())
    else:
        done = run(command(name), "-nv", "-d", body, *fields, url)
        assert re.search(r"grpc-status: (\S*m)?0", done.stdout)


ENVOY = {
    "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
    "static_resources": {
        "listeners": [
            {
                "name": "grpc",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [
                    {
                        "filters": [
                            {
                                "name": "envoy.filters.network.http_connection_manager",
                                "typed_config": {
                                    "@type": "type.googleapis.com/envoy.extensions.filters.network."
                                    "http_connection_manager.v3.HttpConnectionManager",
                                    "stat_prefix": "grpc",
                                    "http_filters": [
                                        {
                                            "name": "envoy.filters.http.router",
                                            "typed_config": {
                                                "@type": "type.googleapis.com/envoy.extensions.filters."
                                                "http.router.v3.Router"
                                            },
                                        }
                                    ],
                                    "route_config": {
                                        "virtual_hosts": [
                                            {
                                                "name": "all",
                                                "domains": ["*"],
                                                "routes": [
                                                    {
                                                        "match": {"prefix": "/"},
                                                        "route": {"cluster": "gateway", "timeout": "0s"},
                                                    }
                                                ],
                                            }
                                        ]
                                    },
                                },
                            }
                        ]
                    }
                ],
            }
        ],
        "clusters": [
            {
                "name": "gateway",
                "type": "STATIC",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    }
                },
            }
        ],
    },
}


@contextmanager
def envoy(upstream: str, directory: Path) -> Iterator[str]:
    """Run Envoy in front of a gRPC server; yield its address."""
    host, _, port = upstream.rpartition(":")
    config: Any = json.loads(json.dumps(ENVOY))
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    config["static_resources"]["clusters"][0]["load_assignment"] = {
        "cluster_name": "gateway",
        "endpoints": endpoints,
    }
    file, admin, log = directory / "envoy.json", directory / "admin", directory / "log"
    file.write_text(json.dumps(config))
    arguments = ["--concurrency", "1", "--use-dynamic-base-id", "--admin-address-path", str(admin)]
    with (
        log.open("wb") as errors,
        subprocess.Popen([command("envoy"), "-c", str(file), *arguments], stderr=errors) as process,
    ):
        try:
            until(lambda: process.poll() is not None or (admin.exists() and bool(admin.read_text())))
            assert process.poll() is None, log.read_text()[-3000:]
            yield _listener(admin.read_text())
        finally:
            process.terminate()
            process.wait(30)


def _listener(admin: str) -> str:
    found: list[str] = []

    def listening() -> bool:
        with urllib.request.urlopen(f"http://{admin}/listeners?format=json", timeout=30) as page:
            listeners = json.load(page).get("listener_statuses", [])
        found.extend(f"127.0.0.1:{one['local_address']['socket_address']['port_value']}" for one in listeners)
        return bool(found)

    until(listening)
    return found[0]


def test_envoy_in_front(gateway: RunningGateway, tmp_path: Path) -> None:
    """Through a proxy: many calls on its one connection, a stream, a refusal, cancelled calls."""
    module = tritonclient.grpc
    with envoy(gateway.grpc, tmp_path) as address, module.InferenceServerClient(address) as client:
        for rows in (1, 7, 64):
            _, inputs = triton_inputs(module, rows)
            assert client.infer("digits", inputs).as_numpy("probabilities").shape == (rows, 10)
        with pytest.raises(module.InferenceServerException, match="nothing"):
            client.get_model_metadata("nothing")
        with grpc.insecure_channel(address, options=NO_LIMITS) as channel:
            ready: Callable[..., Any] = channel.unary_unary(f"/{SERVICE}/ModelReady")
            pending = [ready.future(READY) for _ in range(100)]  # type: ignore[attr-defined]
            for one in pending[::7]:
                one.cancel()
            good = [one.result() for number, one in enumerate(pending) if number % 7]
            assert all(pb.ModelReadyResponse.FromString(answer).ready for answer in good)
        answers: list[Any] = []
        client.start_stream(lambda result, error: answers.append((result, error)))
        _, inputs = triton_inputs(module, 2)
        for _ in range(50):
            client.async_stream_infer("digits", inputs)
        client.stop_stream()
        assert [error for _, error in answers] == [None] * 50
        assert np.isfinite(answers[0][0].as_numpy("probabilities")).all()


async def test_envoy_carries_large_messages(start: Any, methods: Methods, tmp_path: Path) -> None:
    """10 MiB there and back, on a stream too, and the news that a client has gone."""
    server, _ = await start()
    with envoy(f"127.0.0.1:{server.port}", tmp_path) as address:
        async with grpc.aio.insecure_channel(address, options=NO_LIMITS) as channel:
            large = bytes(10 * MIB)
            assert await call(channel, "Echo", large) == large
            stream: Any = channel.stream_stream("/test.Echo/Stream")()
            for text in (b"a", large, b"b"):
                await stream.write(text)
                assert await stream.read() == b"re:" + text
            await stream.done_writing()
            assert await stream.read() == b"end"
            held = call(channel, "Hold")
            await methods.arrived.wait()
            held.cancel()
            await methods.cancelled.wait()
            assert (await failure(call(channel, "Fail", b"100%"))).details() == "100%"


async def test_envoy_moves_to_new_connections(start: Any, methods: Methods, tmp_path: Path) -> None:
    """When the server says that its old ones have lived long enough; no call is lost on the way."""
    server, _ = await start(max_connection_age_s=0.2)
    with envoy(f"127.0.0.1:{server.port}", tmp_path) as address:
        async with grpc.aio.insecure_channel(address, options=NO_LIMITS) as channel:
            peers: set[str] = set()
            while len(peers) < 4:
                texts = [b"%d" % number for number in range(8)]
                assert await asyncio.gather(*(call(channel, "Unary", text) for text in texts)) == texts
                await call(channel, "Echo")
                peers.add(methods.facts["peer"])
