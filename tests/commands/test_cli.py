"""The command line itself: options, environment, exit codes, and what an import costs."""

import io
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.failure import Exit

UNUSED = "127.0.0.1:1"
"""Port 1 is privileged and nobody's: a connection to it is refused."""


def gateway(*arguments: str, env: Mapping[str, str] | None = None, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, arguments, env=env, input=stdin)


def test_help_lists_every_verb() -> None:
    """`gateway --help` names the verbs and the exit codes."""
    result = gateway("--help")
    assert result.exit_code == Exit.OK
    for text in ("serve", "infer", "bench", "validate", "models", "version", "Exit codes"):
        assert text in result.output


def test_help_imports_no_heavy_library() -> None:
    """Starting up for `--help` loads neither runtime, network nor numerical libraries."""
    code = (
        "import sys; sys.argv = ['gateway', '--help']\n"
        "from gateway.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'onnxruntime', 'onnx', 'grpc', 'numpy', 'pydantic', 'starlette', 'uvloop'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_package_can_be_run() -> None:
    """`python -m gateway` is the same command."""
    command = [sys.executable, "-m", "gateway", "version"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.strip().split(" ", 1)[0] == version("model-gateway")


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["serve", "missing.onnx"],
        ["serve", "--http-port", "70000", "a.onnx"],
        ["serve", "--log-level", "loud", "a.onnx"],
        ["infer", "digits"],
        ["infer", "digits", "--input", "-", "--format", "csv"],
        ["infer", "digits", "--input", "-", "--header", "no colon"],
        ["infer", "digits", "--input", "-", "--url", "ftp://h"],
        ["bench", "digits", "--rows", "0"],
        ["bench", "digits", "--shape", "x"],
        ["bench", "digits", "--shape", "x:1,-2"],
        ["nonsense"],
    ],
)
def test_wrong_command_lines_exit_with_2(arguments: list[str]) -> None:
    """Whoever finds the mistake, typer or a verb, the code is the same and there is a message."""
    result = gateway(*arguments)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.strip()


@pytest.mark.parametrize(
    "arguments",
    [
        ["infer", "m", "--input", "-", "--url", UNUSED],
        ["models", "--url", UNUSED],
        ["bench", "m", "--url", UNUSED],
        ["bench", "m", "--url", UNUSED, "--protocol", "grpc"],
    ],
)
def test_no_gateway_exits_with_3(arguments: list[str]) -> None:
    """Every client verb asks whether the gateway is running."""
    result = gateway(*arguments, stdin=b'{"x": [1]}')
    assert result.exit_code == Exit.UNREACHABLE
    assert "is the gateway running?" in result.stderr


def test_port_in_use_is_one_line_that_names_it(tmp_path: Path) -> None:
    """Before any model is loaded, the port and the flag to change it are named."""
    model = tmp_path / "m.onnx"
    model.write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {"GATEWAY_HTTP_PORT": "0", "GATEWAY_METRICS_PORT": "0", "GATEWAY_ADMIN_PORT": "0"}
        result = gateway("serve", str(model), "--grpc-port", port, env=env)
    assert result.exit_code == Exit.FAILED
    assert result.stderr.count("\n") == 1
    assert f"port {port} (grpc) is already in use" in result.stderr
    assert "--grpc-port" in result.stderr


def test_the_environment_gives_defaults_and_options_win(digits: Any) -> None:
    """GATEWAY_URL stands for --url unless that is given."""
    env = {"GATEWAY_URL": digits.url}
    assert gateway("infer", "digits", "--input", "-", env=env, stdin=b'{"pixels": [1,2,3,4]}').exit_code == 0
    bench = gateway("bench", "digits", "--seconds", "0.1", "--concurrency", "1", env=env)
    assert bench.exit_code == Exit.OK
    over_grpc = gateway("bench", "digits", "--protocol", "grpc", env={"GATEWAY_GRPC_URL": UNUSED})
    assert over_grpc.exit_code == Exit.UNREACHABLE
    overridden = gateway("infer", "digits", "--input", "-", "--url", UNUSED, env=env, stdin=b"{}")
    assert overridden.exit_code == Exit.UNREACHABLE


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def test_infer_sends_the_file_and_prints_the_outputs(digits: Any, tmp_path: Path) -> None:
    """An npy of one item goes out as one FP32 row, the header with it, and the outputs come back readable."""
    file = tmp_path / "x.npy"
    file.write_bytes(npy([1.0, 2.0, 3.0, 4.0]))
    result = gateway("infer", "digits", "--input", str(file), "--url", digits.url, "--header", "X-Team: a")
    assert result.exit_code == Exit.OK
    for text in ("digits version 2", "probabilities", "FP32", "[1, 2]", "0.25", "0.75"):
        assert text in result.stdout
    request = digits.received[-1]
    head_bytes = int(request.headers["inference-header-content-length"])
    (sent,) = json.loads(request.body[:head_bytes])["inputs"]
    assert (sent["name"], sent["datatype"], sent["shape"]) == ("pixels", "FP32", [1, 4])
    assert np.frombuffer(request.body[head_bytes:], "<f4").tolist() == [1, 2, 3, 4]
    assert request.headers["x-team"] == "a"


def test_infer_prints_json(digits: Any) -> None:
    """With --json the answer is one JSON object with plain data."""
    result = gateway(
        "infer", "digits", "--input", "-", "--json", "--url", digits.url, stdin=b'{"pixels": [1,2,3,4]}'
    )
    answer = json.loads(result.stdout)
    assert answer["model_version"] == "2"
    assert answer["outputs"][0]["data"] == [0.25, 0.75]


def test_infer_passes_a_whole_request_on(digits: Any) -> None:
    """A request of the protocol is sent as it is, without asking for metadata."""
    request = b'{"id": "7", "inputs": [{"name":"pixels","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
    assert gateway("infer", "digits", "--input", "-", "--url", digits.url, stdin=request).exit_code == Exit.OK
    (received,) = digits.received
    assert received.body == request


def test_infer_sends_raw_bytes_with_the_zero_header(digits: Any, tmp_path: Path) -> None:
    """A .bin file is the whole body, announced by a header length of 0."""
    file = tmp_path / "x.bin"
    file.write_bytes(bytes(16))
    assert gateway("infer", "digits", "--input", str(file), "--url", digits.url).exit_code == Exit.OK
    (received,) = digits.received
    assert received.headers["inference-header-content-length"] == "0"
    assert received.body == bytes(16)


def test_infer_asks_for_classes(digits: Any) -> None:
    """--top asks for a classification of every output."""
    arguments = ("infer", "digits", "--input", "-", "--top", "3", "--url", digits.url)
    gateway(*arguments, stdin=b'{"pixels": [1,2,3,4]}')
    request = digits.received[-1]
    head = json.loads(request.body[: int(request.headers["inference-header-content-length"])])
    expected = {"name": "probabilities", "parameters": {"binary_data": True, "classification": 3}}
    assert head["outputs"] == [expected]


def test_infer_of_an_unknown_model_says_what_the_server_said(stub: Any) -> None:
    """The server's message reaches the terminal, with exit code 1."""
    result = gateway("infer", "nope", "--input", "-", "--url", stub.url, stdin=b'{"x": [1]}')
    assert result.exit_code == Exit.FAILED
    assert "404: Not Found" in result.stderr


def test_infer_of_a_missing_file(digits: Any, tmp_path: Path) -> None:
    """The file is named."""
    result = gateway("infer", "digits", "--input", str(tmp_path / "no.json"), "--url", digits.url)
    assert result.exit_code == Exit.FAILED
    assert "no.json: No such file" in result.stderr


def test_models_prints_the_table(digits: Any) -> None:
    """State, signature and memory of every version; a failed one with its reason."""
    index = [
        {"name": "digits", "version": "2", "state": "READY", "reason": ""},
        {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "truncated file"},
    ]
    digits.answer("POST", "/v2/repository/index", index)
    digits.answer(
        "GET", "/v2/models/digits/versions/2", json.loads(digits.answers["GET", "/v2/models/digits"][2])
    )
    stats = {"model_stats": [{"name": "digits", "version": "2", "inference_count": 5}]}
    digits.answer("GET", "/v2/models/stats", stats)
    page = b'# HELP x\ngateway_model_memory_bytes{model="digits",version="2"} 3.145728e+06\n'
    digits.answers["GET", "/metrics"] = (200, {}, page)
    ports = ("--url", digits.url, "--metrics-url", digits.url, "--admin-url", UNUSED)
    arguments = ("models", *ports, "--interval-s", "0.01", "--json")
    result = gateway(*arguments)
    assert result.exit_code == Exit.OK
    first, second = json.loads(result.stdout)
    assert first == {
        "model": "digits",
        "version": "2",
        "state": "READY",
        "signature": "pixels FP32[-1,4] -> probabilities FP32[-1,2]",
        "memory_bytes": 3145728,
        "rows_per_s": 0.0,
        "reason": "",
        "label": "",
        "step": "",
        "done_bytes": 0,
        "total_bytes": 0,
    }
    assert (second["state"], second["reason"], second["rows_per_s"]) == (
        "UNAVAILABLE",
        "truncated file",
        None,
    )
    table = gateway(*arguments[:-1], env={"COLUMNS": "200"}).stdout
    for text in ("digits", "UNAVAILABLE: truncated file", "3.1 MB", "pixels FP32[-1,4]"):
        assert text in table


def test_models_without_metrics_still_answers(stub: Any) -> None:
    """A metrics port that is closed to us costs one column, an administration port the labels."""
    stub.answer("POST", "/v2/repository/index", [{"name": "m", "state": "UNAVAILABLE"}])
    stub.answer("GET", "/v2/models/stats", {"model_stats": []})
    ports = ("--url", stub.url, "--metrics-url", UNUSED, "--admin-url", UNUSED)
    result = gateway("models", *ports, "--interval-s", "0.01", "--json")
    (row,) = json.loads(result.stdout)
    assert (row["memory_bytes"], row["label"], row["step"]) == (None, "", "")


@pytest.mark.parametrize("page", [{}, [], {"models": 3}, {"models": [{}]}, {"models": [{"model": []}]}, "no"])
def test_models_beside_something_else_on_the_administration_port(stub: Any, page: object) -> None:
    """What makes no sense is left out."""
    stub.answer("POST", "/v2/repository/index", [{"name": "m", "state": "UNAVAILABLE"}])
    stub.answer("GET", "/v2/models/stats", {"model_stats": []})
    stub.answer("GET", "/", page)
    ports = ("--url", stub.url, "--metrics-url", UNUSED, "--admin-url", stub.url)
    result = gateway("models", *ports, "--interval-s", "0.01", "--json")
    assert json.loads(result.stdout)[0]["label"] == ""


def test_models_shows_how_far_a_fetch_is(stub: Any) -> None:
    """The index knows that it loads; the administration port knows the label, the step and the bytes."""
    stub.answer("POST", "/v2/repository/index", [{"name": "fraud", "version": "3", "state": "LOADING"}])
    stub.answer("GET", "/v2/models/stats", {"model_stats": []})
    row = {"model": "fraud", "version": 3, "label": "1.4.2", "state": "FETCHING"}
    page = {"models": [{**row, "done_bytes": 120_000_000, "total_bytes": 231_000_000}]}
    stub.answer("GET", "/", page)
    ports = ("--url", stub.url, "--metrics-url", UNUSED, "--admin-url", stub.url)
    text = gateway("models", *ports, "--interval-s", "0.01", env={"COLUMNS": "120"}).stdout
    assert "3 (1.4.2)  FETCHING 51 % (120.0 of 231.0 MB)" in text


def test_bench_prints_figures(digits: Any) -> None:
    """A short run counts requests and rows, and says that it is only a quick look."""
    arguments = (
        "bench",
        "digits",
        "--url",
        digits.url,
        "--seconds",
        "0.2",
        "--concurrency",
        "2",
        "--rows",
        "3",
    )
    figures = json.loads(gateway(*arguments, "--json").stdout)
    assert figures["requests"] > 0
    assert figures["errors"] == {}
    assert figures["rows_per_s"] == pytest.approx(3 * figures["requests_per_s"], rel=1e-2)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    request = digits.received[-1]
    head = json.loads(request.body[: int(request.headers["inference-header-content-length"])])
    assert head["inputs"][0]["shape"] == [3, 4]
    assert "loadtests/" in gateway(*arguments).stdout


def test_bench_of_a_model_that_refuses_the_input(digits: Any) -> None:
    """The first answer is an error: it is shown, and no load is made."""
    digits.answer("POST", "/v2/models/digits/infer", {"error": "unexpected shape"}, 400)
    result = gateway("bench", "digits", "--url", digits.url, "--seconds", "0.2")
    assert result.exit_code == Exit.FAILED
    assert "400: unexpected shape" in result.stderr
    assert len([r for r in digits.received if r.method == "POST"]) == 1
