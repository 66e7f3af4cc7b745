"""A bucket with versions, gateways that follow it, and somebody who asks for answers all the while."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.request import Request, urlopen

from onnx import TensorProto, helper

from tests.acceptance.process import COMMAND
from tests.acceptance.zoo import model, scaled, tensor
from tests.servers.seaweed import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from obstore.store import S3Store

    from tests.servers.seaweed import Seaweed

PATIENCE_S: Final = 30
"""How long tests wait for what must come; it bounds hangs alone, and is no expectation."""
PAUSE_S: Final = 0.02
"""Between two looks at a page, and between two requests of the traffic."""
ALIAS: Final = "live"
_ANY_PORTS: Final = {"http": 0, "grpc": 0, "metrics": 0, "admin": 0}
_COLUMNS: Final = 2
_PRODUCTS: Final = 48


def onnx_version(number: int) -> bytes:
    """Return a model that computes `y = x * number`, so that its answers tell the version."""
    return scaled(float(number)).SerializeToString()


def slow_to_load(number: int) -> bytes:
    """Return the same, with seconds of work for the runtime when it folds constants."""
    constant = helper.make_node(
        "ConstantOfShape", ["shape"], ["c0"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0])
    )
    products = [helper.make_node("MatMul", [f"c{n}", "c0"], [f"c{n + 1}"]) for n in range(_PRODUCTS)]
    nodes = [
        constant,
        *products,
        helper.make_node("ReduceMax", [f"c{_PRODUCTS}"], ["zero"], keepdims=0),
        helper.make_node("Add", ["number", "zero"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    constants = [
        helper.make_tensor("shape", TensorProto.INT64, [2], [1500, 1500]),
        helper.make_tensor("number", TensorProto.FLOAT, [1], [float(number)]),
    ]
    inputs, outputs = ([tensor(name, ["batch", _COLUMNS])] for name in ("x", "y"))
    return model(nodes, inputs, outputs, constants).SerializeToString()


def with_ballast(number: int, nbytes: int) -> bytes:
    """Return the same, with `nbytes` of weights that have to be in memory."""
    rows = nbytes // (4 * _COLUMNS)
    weights = helper.make_tensor("ballast", TensorProto.FLOAT, [rows, _COLUMNS], bytes(nbytes), raw=True)
    nodes = [
        helper.make_node("Gather", ["ballast", "row"], ["zeros"], axis=0),
        helper.make_node("Mul", ["x", "number"], ["product"]),
        helper.make_node("Add", ["product", "zeros"], ["y"]),
    ]
    constants = [weights, helper.make_tensor("number", TensorProto.FLOAT, [1], [float(number)])]
    inputs = [tensor("x", ["batch", _COLUMNS]), tensor("row", [1], TensorProto.INT64)]
    constants.append(helper.make_tensor("row", TensorProto.INT64, [1], [0]))
    made = model(nodes, inputs, [tensor("y", ["batch", _COLUMNS])], constants)
    return made.SerializeToString()


def renamed(number: int) -> bytes:
    """Return the same with input `x` called `features`, which no client of the other knows."""
    made = scaled(float(number))
    made.graph.input[0].name = made.graph.node[0].input[0] = "features"
    return made.SerializeToString()


def golden(factor: float) -> bytes:
    """Return a golden test that a model which multiplies by `factor` passes."""
    return json.dumps({"inputs": {"x": [[1.0, 3.0]]}, "outputs": {"y": [[factor, 3 * factor]]}}).encode()


@dataclass(frozen=True, slots=True)
class Shelf:
    """Models of one registry, in a directory of the bucket."""

    store: S3Store
    prefix: str

    @property
    def url(self) -> str:
        """What a registry's settings name."""
        return f"s3://{BUCKET}/{self.prefix}"

    def publish(self, name: str, label: str, files: Mapping[str, bytes] | bytes) -> None:
        """Upload files of a version; bytes alone are its model.onnx."""
        for path, content in ({"model.onnx": files} if isinstance(files, bytes) else files).items():
            self.store.put(f"{self.prefix}/{name}/{label}/{path}", content)

    def remove(self, name: str, label: str, path: str) -> None:
        """Delete a file of a version."""
        self.store.delete(f"{self.prefix}/{name}/{label}/{path}")

    def point(self, name: str, label: str) -> None:
        """Let the alias name a version."""
        self.store.put(f"{self.prefix}/{name}/aliases/{ALIAS}", label.encode())


def registry(shelf: Shelf, endpoint: str, secrets: Mapping[str, Path], **settings: Any) -> dict[str, Any]:
    """Return the settings of a registry: quick to look, and soon out of patience."""
    return {
        "object_store": {
            "url": shelf.url,
            "endpoint": endpoint,
            "region": "us-east-1",
            "allow_http": True,
            "credentials": {name: {"file": str(path)} for name, path in secrets.items()},
        },
        "poll_interval_s": 0.2,
        "timeout_s": 5.0,
        "start_timeout_s": 5.0,
        "read_timeout_s": 0.5,
        **settings,
    }


def write_secrets(server: Seaweed, directory: Path) -> Mapping[str, Path]:
    """Write each credential to a file of its own."""
    paths = {name: directory / name for name in server.credentials}
    for name, path in paths.items():
        path.write_text(server.credentials[name])
    return paths


def configuration(
    registries: Mapping[str, Any], models: list[dict[str, Any]], cache: Path, **sections: Any
) -> dict[str, Any]:
    """Return the configuration of a gateway that follows the alias of each model, on free ports."""
    return {
        "server": {"ports": _ANY_PORTS},
        "registries": registries,
        "cache": {"directory": str(cache), "free_disk_reserve": 0, "part_bytes": "1MiB", "durable": False},
        "models": models,
        **sections,
    }


def followed(shelf: Shelf, name: str, **settings: Any) -> dict[str, Any]:
    """Return a model's entry."""
    return {"name": name, "source": f"{shelf.url}/{name}@{ALIAS}", **settings}


@dataclass(slots=True)
class Gateway:
    """A gateway's process after its start.

    Attributes:
        process: itself.
        ready: what `--ready-json` printed.
        log: the file with its standard error.
    """

    process: subprocess.Popen[bytes]
    ready: Mapping[str, Any]
    log: Path

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def index(self, name: str) -> dict[str, tuple[str, str]]:
        """Return version -> state and reason, as clients see them."""
        url = f"http://127.0.0.1:{self.ready['http_port']}/v2/repository/index"
        with urlopen(Request(url, b"{}", {"Content-Type": "application/json"})) as answer:
            rows = json.load(answer)
        return {r["version"]: (r["state"], r.get("reason", "")) for r in rows if r["name"] == name}

    def page(self, name: str) -> Any:
        """Return a model's page of the administration port."""
        with urlopen(f"http://127.0.0.1:{self.ready['admin_port']}/models/{name}") as answer:
            return json.load(answer)

    def versions(self, name: str) -> dict[int, dict[str, Any]]:
        """Return the versions of that page by number."""
        return {version["version"]: version for version in self.page(name)["versions"]}

    def state(self, name: str, number: int) -> str:
        """Return a version's state as operators see it; empty when there is none."""
        version = self.versions(name).get(number)
        return str(version["state"]) if version is not None else ""

    def has(self, name: str, number: int, state: str) -> bool:
        """Whether a version is in a state."""
        return self.state(name, number).upper() == state

    def failure(self, name: str, number: int, *words: str) -> str:
        """Wait until a version has failed for a reason with these words, on both pages; return it."""

        def told() -> str:
            version = self.versions(name).get(number)
            if version is None or version["state"].upper() != "FAILED":
                return ""
            state, reason = self.index(name).get(str(number), ("", ""))
            assert state != "READY"
            return reason if reason == version["reason"] and _has(reason, words) else ""

        return wait_for(told, lambda: f"version {number} to fail with {words}: {self.index(name)}")

    def serves_although(self, name: str, number: int, *words: str, status: str = "stale") -> str:
        """Wait until a version is said to serve in spite of something, on both pages; return what is said."""

        def told() -> str:
            state, reason = self.index(name).get(str(number), ("", ""))
            registry = self.page(name)["registry"]
            assert (registry["stale_since"] is not None) == (registry["status"] == "stale")
            both = state == "READY" and reason == f"serving; {registry['message']}"
            return reason if both and registry["status"] == status and _has(reason, words) else ""

        return wait_for(told, lambda: f"version {number} to serve although {words}: {self.index(name)}")


def _has(text: str, words: tuple[str, ...]) -> bool:
    return all(word in text for word in words)


def wait_for(told: Callable[[], str | bool], what: Callable[[], str]) -> str:
    """Ask until something is told; what never is fails the test, saying what it waited for."""
    hopeless_s = time.monotonic() + PATIENCE_S
    while not (answer := told()):
        assert time.monotonic() < hopeless_s, f"in vain: {what()}"
        time.sleep(PAUSE_S)
    return str(answer)


@contextmanager
def started(config: Mapping[str, Any], directory: Path, *before: str) -> Iterator[Gateway]:
    """Run a gateway until the context is left, by SIGTERM, which must end it with exit code 0.

    Args:
        config: contents of its configuration file.
        directory: for that file and its log.
        before: a command that runs the command.
    """
    path, log = directory / "gateway.yaml", directory / "log"
    path.write_text(json.dumps(config))
    command: list[str | Path] = [*before, COMMAND, "serve", "--config", path, "--ready-json"]
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the gateway ended before it was ready:\n{log.read_text()[-4000:]}"
            yield Gateway(process, json.loads(line), log)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                code = process.wait(PATIENCE_S)
                assert code == 0, f"SIGTERM ended the gateway with {code}:\n{log.read_text()[-4000:]}"
        finally:
            process.kill()


@dataclass(slots=True)
class Traffic:
    """A light client: one connection, one request at a time, each answer checked against its version.

    Attributes:
        port: of HTTP.
        name: of the model.
        factor: what every version multiplies by; None: each by its own number.
        answers: the version of each answer, in order.
        problems: what was no right answer.
    """

    port: int
    name: str
    factor: int | None = None
    answers: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._ask, name="traffic")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        assert self._thread is not None
        self._thread.join()

    def reaches(self, version: str) -> None:
        """Wait for an answer by a version."""
        wait_for(
            lambda: version in self.answers[-1:],
            lambda: f"{version} to answer: {self.problems or self.answers[-1:]}",
        )

    def goes_on(self) -> None:
        """Wait for answers to requests sent from now on."""
        count = len(self.answers) + 2
        wait_for(lambda: len(self.answers) >= count, lambda: f"further answers: {self.problems}")

    @property
    def served_by(self) -> list[str]:
        """The versions that have answered, in order, without repeats in a row."""
        return [version for version, _ in groupby(self.answers)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        count = 0
        while not self._stopped.wait(PAUSE_S):
            count += 1
            try:
                self._ask_once(connection, [float(count), float(-count)])
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"{type(error).__name__}: {error}")
                connection.close()
        connection.close()

    def _ask_once(self, connection: http.client.HTTPConnection, row: list[float]) -> None:
        sent = {"name": "x", "datatype": "FP32", "shape": [1, _COLUMNS], "data": row}
        connection.request("POST", f"/v2/models/{self.name}/infer", json.dumps({"inputs": [sent]}))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            self.problems.append(f"{answer.status}: {text.decode()}")
            return
        said = json.loads(text)
        version = said["model_version"]
        factor = int(version) if self.factor is None else self.factor
        if said["outputs"][0]["data"] != [value * factor for value in row]:
            self.problems.append(f"version {version} answered {said['outputs']} to {row}")
        self.answers.append(version)
