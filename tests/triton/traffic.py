"""Clients that ask one model again and again, and what they were answered."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.acceptance.process import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.acceptance.process import RunningGateway

_CLIENTS: Final = 4
_PAUSE_S: Final = 0.01
"""Between an answer and the next request: servers that start again shall find a processor free."""


class Traffic:
    """Asks a model `y = x * factor`, whose factor tells its versions apart; every `x` is another.

    Attributes:
        versions: version -> how many requests it answered, rightly.
        wrong: answers that are not what their version gives; there must be none, ever.
        errors: what requests were refused with.
    """

    def __init__(self, gateway: RunningGateway, model: str, factors: Mapping[str, float]) -> None:
        self._address = gateway.grpc
        self._model = model
        self._factors = factors
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self.versions: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(_CLIENTS)]

    @property
    def answered(self) -> int:
        """How many requests were answered rightly."""
        return self.versions.total()

    def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        enough = self.answered + count
        until(lambda: self.answered >= enough or bool(self.wrong))
        assert self.wrong == []

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Ask until the context is left."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()
        assert self.wrong == []

    def _ask(self) -> None:
        with tritonclient.grpc.InferenceServerClient(self._address) as client:
            while not self._over.wait(_PAUSE_S):
                self._ask_once(client, next(self._numbers))

    def _ask_once(self, client: tritonclient.grpc.InferenceServerClient, number: int) -> None:
        x = np.array([[number, -number]], np.float32)
        tensor = tritonclient.grpc.InferInput("x", [1, 2], "FP32").set_data_from_numpy(x)
        try:
            result = client.infer(self._model, [tensor], client_timeout=PATIENCE_S)
        except InferenceServerException as error:
            with self._lock:
                self.errors.append(str(error))
            return
        version, got = result.get_response().model_version, result.as_numpy("y")
        with self._lock:
            if np.array_equal(got, x * self._factors[version]):
                self.versions[version] += 1
            else:
                self.wrong.append(f"version {version} of {x.tolist()}: {got.tolist()}")
