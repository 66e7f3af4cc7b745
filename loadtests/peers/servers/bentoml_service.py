"""A BentoML service with adaptive batching, which `bentoml serve` imports."""
# mypy: ignore-errors
# bentoml is installed in its peer's venv alone.

import bentoml
import numpy as np

from loadtests.peers.servers.one_thread import OneThreadModel, settings

WANTED = settings()


@bentoml.service(
    workers=1,
    metrics={"enabled": False},
    tracing={"sample_rate": 0.0},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60},
)
class Model:
    """Runs what BentoML has merged along the first dimension."""

    def __init__(self) -> None:
        self._model = OneThreadModel(WANTED["file"])

    @bentoml.api(
        batchable=WANTED["max_batch_rows"] > 1,
        max_batch_size=max(WANTED["max_batch_rows"], 2),
        max_latency_ms=WANTED["max_latency_ms"],
    )
    async def infer(self, rows: np.ndarray) -> np.ndarray:
        """Return the output for rows; on the event loop, which costs less than BentoML's threads."""
        return self._model.run(np.ascontiguousarray(rows, np.float32))
