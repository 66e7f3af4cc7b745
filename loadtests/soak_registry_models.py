"""A bucket of a real S3 server with versions of one large model, and the alias that moves between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loadtests.soak_models import OFFSET, WIDTH
from tests.servers.seaweed import BUCKET

if TYPE_CHECKING:
    from obstore.store import S3Store

    from loadtests.soak_server import Settings
    from tests.servers.seaweed import Seaweed

ALIAS: Final = "champion"
REGISTRY: Final = "bucket"
_PREFIX: Final = "soak"
_OPSET: Final = 17
_IR_VERSION: Final = 8
_SECRETS: Final = {"access_key_id": "SOAK_ACCESS_KEY_ID", "secret_access_key": "SOAK_SECRET_ACCESS_KEY"}


def table_model(version: int, size_bytes: int) -> onnx.ModelProto:
    """Build FP32 `x` `[batch, 4]` -> `y = x + version`, looked up in a table of `size_bytes`.

    A run takes next to nothing whatever the size, so that latency is the gateway's and not the model's.
    """
    rows = max(1, size_bytes // (4 * WIDTH))
    constants = [
        numpy_helper.from_array(np.full((rows, WIDTH), version, np.float32), "table"),
        numpy_helper.from_array(np.array(0, np.int64), "first"),
        numpy_helper.from_array(np.array(rows, np.int64), "rows"),
    ]
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["key"], axis=1),
        helper.make_node("Cast", ["key"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mod", ["whole", "rows"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["shift"], axis=0),
        helper.make_node("Add", ["x", "shift"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "table", ends[:1], ends[1:], constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="soak"
    )


class Publisher:
    """Writes versions and the alias as an engineer does."""

    def __init__(self, server: Seaweed) -> None:
        self._bucket: S3Store = server.bucket(BUCKET)

    def push(self, version: int, size_bytes: int) -> None:
        """Write a version; nobody serves it before the alias names it."""
        content = table_model(version, size_bytes).SerializeToString()
        self._bucket.put(f"{_PREFIX}/{OFFSET}/{version}/model.onnx", content)

    async def move(self, version: int) -> None:
        """Let the alias name a version."""
        await self._bucket.put_async(f"{_PREFIX}/{OFFSET}/aliases/{ALIAS}", b"%d\n" % version)


def following(server: Seaweed, cache: str, poll_interval_s: float) -> Settings:
    """Return the settings of a gateway that follows the alias; see `secrets`."""
    store: dict[str, Any] = {
        "url": f"s3://{BUCKET}",
        "endpoint": server.endpoint,
        "region": "us-east-1",
        "allow_http": True,
        "credentials": {name: {"env": variable} for name, variable in _SECRETS.items()},
    }
    return {
        "server": {"ports": {"http": 0, "grpc": 0, "metrics": 0, "admin": 0}},
        "registries": {REGISTRY: {"object_store": store, "poll_interval_s": poll_interval_s}},
        "cache": {"directory": cache},
        "models": [{"name": OFFSET, "source": f"s3://{BUCKET}/{_PREFIX}/{OFFSET}@{ALIAS}"}],
    }


def secrets(server: Seaweed) -> dict[str, str]:
    """Return the variables that `following` names."""
    return {variable: server.credentials[name] for name, variable in _SECRETS.items()}
