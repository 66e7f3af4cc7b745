"""Runs a gateway on one core for a load test: starts it, reads its CPU time and its metrics, stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prometheus_client.parser import text_string_to_metric_families

from loadtests import process_tree
from loadtests.direct import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtests.requests_on_file import BenchModel

_STOP_S = 60


@dataclass(frozen=True, slots=True)
class Counters:
    """What a gateway has counted for one model.

    Attributes:
        answered: requests by outcome.
        batches: runs of the model.
        rows: rows in them.
        sizes: batches by the upper bound of their size's bucket.
        closed: batches by why they were closed.
    """

    answered: Mapping[str, float]
    batches: float
    rows: float
    sizes: Mapping[str, float]
    closed: Mapping[str, float]

    def since(self, before: Counters) -> Counters:
        """Return what was counted between `before` and this."""
        return Counters(
            _less(self.answered, before.answered),
            self.batches - before.batches,
            self.rows - before.rows,
            _less(self.sizes, before.sizes),
            _less(self.closed, before.closed),
        )


def _less(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {
        key: value - before.get(key, 0.0) for key, value in after.items() if value != before.get(key, 0.0)
    }


@dataclass(slots=True)
class ServedGateway:
    """A gateway of its own process, on free ports, its models on one ONNX Runtime thread each.

    Attributes:
        models: what it serves.
        core: the core it is kept on.
        folder: for its configuration and its log.
        batching: model -> settings of its `batching` section; others have the defaults.
        overlay: laid over the whole configuration, mappings into mappings.
        flags: further arguments of `gateway serve`.
        package: folder that holds another build of the package, such as build/compiled.
    """

    models: Sequence[BenchModel]
    core: int
    folder: Path
    batching: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overlay: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    package: Path | None = None
    _process: subprocess.Popen[str] | None = None
    _ports: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Start it and wait until every model is ready.

        Raises:
            RuntimeError: it did not come up; the message names its log, or the folder without a package.
        """
        environment = dict(os.environ)
        if self.package is not None:
            if not (self.package / "gateway" / "__init__.py").is_file():
                raise RuntimeError(
                    f"no package in {self.package}; `make compiled` puts one into build/compiled"
                )
            environment["PYTHONPATH"] = str(self.package.resolve())
        config, log = self.folder / "gateway.yaml", self.folder / "gateway.log"
        config.write_text(json.dumps(_overlaid(self._config(), self.overlay)))  # YAML holds JSON
        gateway = [str(Path(sys.executable).with_name("gateway")), "serve", "--config", str(config)]
        with log.open("w") as err:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(self.core), *gateway, "--ready-json", *self.flags],
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env=environment,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line or not json.loads(line)["ready"]:
            self._process.kill()
            self._process.communicate()
            raise RuntimeError(f"the gateway did not become ready: see {log}")
        self._ports = {key: value for key, value in json.loads(line).items() if key.endswith("_port")}
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it; one that does not stop in a minute is killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _config(self) -> dict[str, Any]:
        return {
            "server": {"ports": dict.fromkeys(("http", "grpc", "metrics", "admin"), 0)},
            "defaults": {"onnxruntime": {"intra_op_threads": OPTIONS.intra_op_threads}},
            "models": [
                {
                    "name": model.name,
                    "path": str(model.folder),
                    "versions": {"specific": [model.version]},
                    "batching": dict(self.batching.get(model.name, {})),
                }
                for model in self.models
            ],
        }

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def http_port(self) -> int:
        """Where HTTP is."""
        return self._ports["http_port"]

    @property
    def grpc_port(self) -> int:
        """Where gRPC is."""
        return self._ports["grpc_port"]

    @property
    def metrics_url(self) -> str:
        """Where its metrics page is."""
        return f"http://127.0.0.1:{self._ports['metrics_port']}/metrics"

    def http_url(self, model: BenchModel) -> str:
        """Return where binary HTTP requests go."""
        return f"http://127.0.0.1:{self.http_port}/v2/models/{model.name}/infer"

    def grpc_url(self) -> str:
        """Return where gRPC infer requests go."""
        return f"http://127.0.0.1:{self.grpc_port}/inference.GRPCInferenceService/ModelInfer"

    def cpu_s(self) -> float:
        """Return the CPU seconds of the process and all it ever started, to 10 ms."""
        return process_tree.cpu_s(self.pid)

    def counters(self, model: BenchModel) -> Counters:
        """Return what it has counted for a model until now."""
        return read_counters(metrics_text(self.metrics_url), model.name)


def metrics_text(url: str) -> str:
    """Return a metrics page."""
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - a URL of our own or the scenario's
        text: str = answer.read().decode()
        return text


def read_counters(text: str, model: str) -> Counters:
    """Return what a metrics page says of a model, all its versions together."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    cumulative: dict[str, float] = defaultdict(float)
    keys = {"gateway_requests_total": "outcome", "gateway_batches_total": "close_reason"}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") != model:
                continue
            if sample.name == "gateway_batch_rows_bucket":
                cumulative[sample.labels["le"]] += sample.value
            else:
                found[sample.name][sample.labels.get(keys.get(sample.name, ""), "")] += sample.value
    return Counters(
        dict(found["gateway_requests_total"]),
        found["gateway_batch_rows_count"][""],
        found["gateway_batch_rows_sum"][""],
        _apart(cumulative),
        dict(found["gateway_batches_total"]),
    )


def _apart(cumulative: Mapping[str, float]) -> dict[str, float]:
    """Return what is in each bucket, from counts that include all smaller buckets."""
    apart: dict[str, float] = {}
    below = 0.0
    for bound in sorted(cumulative, key=float):
        apart[bound], below = cumulative[bound] - below, cumulative[bound]
    return apart


def _overlaid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with `over` laid on it: mappings are merged, everything else replaced."""
    both = {
        key: _overlaid(under[key], value)
        if isinstance(value, dict) and isinstance(under.get(key), dict)
        else value
        for key, value in over.items()
    }
    return {**under, **both}
