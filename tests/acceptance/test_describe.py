"""Health, metadata, configuration, statistics and settings through every client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.acceptance.clients import Client, floats, refusal

if TYPE_CHECKING:
    from tests.acceptance.process import RunningGateway


def only(items: list[Any]) -> Any:
    """Return the only item of a list."""
    (item,) = items
    return item


def counters(client: Client, model: str, version: str = "1") -> dict[str, int]:
    """Return the counts of one version's statistics, flat; gRPC's JSON has text for 64-bit numbers."""
    found = client.describe("get_inference_statistics", model, version)["model_stats"]
    stats = only(found)
    assert (stats["name"], stats["version"]) == (model, version)
    counted = {
        name: int(stats.get(name, 0)) for name in ("inference_count", "execution_count", "last_inference")
    }
    for name, duration in stats["inference_stats"].items():
        counted[f"{name}.count"] = int(duration.get("count", 0))
        counted[f"{name}.ns"] = int(duration.get("ns", 0))
    for batch in stats.get("batch_stats", []):
        counted[f"batch.{batch['batch_size']}"] = int(batch["compute_infer"]["count"])
    return counted


def test_health(client: Client) -> None:
    """Server, model and version are live and ready."""
    assert client.call("is_server_live") is True
    assert client.call("is_server_ready") is True
    assert client.call("is_model_ready", "pair") is True
    assert client.call("is_model_ready", "digits", "1") is True


def test_an_unknown_model_is_not_ready(client: Client) -> None:
    """The HTTP clients say False, the gRPC ones raise NOT_FOUND, both as against Triton."""
    if client.transport == "http":
        assert client.call("is_model_ready", "nothing") is False
    else:
        code, message = refusal(client, lambda: client.call("is_model_ready", "nothing"))
        assert (code, message) == ("NOT_FOUND", "Request for unknown model: 'nothing' is not found")


def test_an_unknown_version_is_not_ready(client: Client) -> None:
    """A version that is not there is no mistake to raise for: it may come."""
    assert client.call("is_model_ready", "pair", "7") is False


def test_server_metadata(client: Client) -> None:
    """Name, version and the extensions that are implemented."""
    metadata = client.describe("get_server_metadata")
    assert metadata["name"]
    assert metadata["version"][0].isdigit()
    offered = {
        "classification",
        "model_repository",
        "model_configuration",
        "binary_tensor_data",
        "statistics",
    }
    assert offered <= set(metadata["extensions"])
    assert "system_shared_memory" not in metadata["extensions"]


def test_model_metadata(client: Client) -> None:
    """Tensors with names, datatypes and shapes, and the versions served."""
    metadata = client.describe("get_model_metadata", "digits")
    assert metadata["name"] == "digits"
    assert sorted(metadata["versions"]) == ["1", "2"]
    assert metadata["platform"] == "onnxruntime_onnx"
    tensors = [
        (t["name"], t["datatype"], [int(size) for size in t["shape"]])
        for t in (only(metadata["inputs"]), only(metadata["outputs"]))
    ]
    assert tensors == [("pixels", "FP32", [-1, 64]), ("probabilities", "FP32", [-1, 10])]


def test_model_config(client: Client) -> None:
    """What config.pbtxt declares, the batch axis left out of the dims."""
    config = client.describe("get_model_config", "digits", "2")
    config = config["config"] if client.transport == "grpc" else config
    assert (config["name"], config["platform"], int(config["max_batch_size"])) == (
        "digits",
        "onnxruntime_onnx",
        64,
    )
    tensor = only(config["input"])
    assert (tensor["name"], tensor["data_type"]) == ("pixels", "TYPE_FP32")
    assert [int(size) for size in tensor["dims"]] == [64]
    assert only(config["output"])["label_filename"] == "labels.txt"
    assert "dynamic_batching" in config


def test_config_made_from_the_model(client: Client) -> None:
    """A model without config.pbtxt has one all the same, with the rows and the delay it is served with."""
    config = client.describe("get_model_config", "patient")
    config = config["config"] if client.transport == "grpc" else config
    assert int(config["max_batch_size"]) == 4
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) == 3600 * 10**6


def test_statistics_count_rows_and_runs(client: Client) -> None:
    """One request of three rows is three inferences, one execution and one success."""
    before = counters(client, "scaled")
    client.infer("scaled", {"x": floats([1, 2], [3, 4], [5, 6])})
    after = counters(client, "scaled")
    moved = {name: after[name] - before.get(name, 0) for name in after}
    assert (moved["inference_count"], moved["execution_count"], moved["success.count"]) == (3, 1, 1)
    assert (moved["batch.3"], moved["fail.count"]) == (1, 0)
    for step in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert moved[f"{step}.count"] == 1
    assert 0 < moved["compute_infer.ns"] <= moved["success.ns"]
    assert after["last_inference"] >= before["last_inference"]


def test_refused_requests_are_no_inferences(client: Client) -> None:
    """A request with a wrong shape changes neither the inferences nor the executions."""
    before = counters(client, "scaled")
    with pytest.raises(InferenceServerException):
        client.infer("scaled", {"x": np.zeros((1, 3), np.float32)})
    after = counters(client, "scaled")
    assert [after[n] for n in ("inference_count", "execution_count")] == [
        before[n] for n in ("inference_count", "execution_count")
    ]


def test_statistics_of_every_model(client: Client) -> None:
    """Without a name the statistics are those of every version served."""
    found = client.describe("get_inference_statistics")["model_stats"]
    assert {("digits", "1"), ("digits", "2"), ("pair", "1")} <= {(s["name"], s["version"]) for s in found}


def test_memory_of_a_model(client: Client) -> None:
    """Statistics tell what the loaded version holds, and where."""
    (stats,) = client.describe("get_inference_statistics", "digits", "2")["model_stats"]
    (memory,) = stats["memory_usage"]
    assert (memory["type"], int(memory.get("id", 0))) == ("CPU", 0)
    assert int(memory["byte_size"]) > 10_000


def test_statistics_of_an_unknown_model(client: Client) -> None:
    """There are none, and the refusal names the model."""
    code, message = refusal(client, lambda: client.call("get_inference_statistics", "nothing"))
    assert (code, "'nothing'" in message) == ("NOT_FOUND", True)


def test_trace_settings(client: Client) -> None:
    """A setting is changed, read back and cleared to what it was."""
    before = client.describe("get_trace_settings")
    client.call("update_trace_settings", settings={"trace_rate": "7"})
    changed = client.describe("get_trace_settings")
    client.call("update_trace_settings", settings={"trace_rate": None})
    assert "7" in str(
        changed["settings"]["trace_rate"] if client.transport == "grpc" else changed["trace_rate"]
    )
    assert client.describe("get_trace_settings") == before


def test_log_settings(client: Client) -> None:
    """A switch is changed, read back and changed again."""
    for value in (False, True):
        client.call("update_log_settings", {"log_info": value})
        settings = client.describe("get_log_settings")
        found = (
            settings["settings"]["log_info"]["bool_param"]
            if client.transport == "grpc"
            else settings["log_info"]
        )
        assert found is value


def test_shared_memory_is_refused_in_tritons_words(client: Client) -> None:
    """Clients that try it first learn that it is off, as of a Triton server with default flags."""
    code, message = refusal(client, lambda: client.call("register_system_shared_memory", "r", "/r", 64))
    assert code == "UNIMPLEMENTED"
    assert message.startswith("Client shared memory is disabled.")


def test_repository_index(client: Client, zoo: RunningGateway) -> None:
    """Every version with its state."""
    index = client.describe("get_model_repository_index")
    rows = index["models"] if client.transport == "grpc" else index
    listed = {f"{row['name']}/{row['version']}": row["state"] for row in rows if row.get("version")}
    assert {name: listed.get(name) for name in ("pair/1", "digits/1", "digits/2")} == dict.fromkeys(
        ("pair/1", "digits/1", "digits/2"), "READY"
    )
    assert set(zoo.states()) <= set(listed)
