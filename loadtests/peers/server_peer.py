"""A peer as most of them are: a venv, a command, and a payload; satisfies `base.Peer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loadtests.peers import venvs
from loadtests.peers.running import Launch, RunningServer, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from loadtests.peers.base import Floats, Place, WireAnswer, WireRequest
    from loadtests.peers.wires import Wire
    from loadtests.requests_on_file import BenchModel


@dataclass(slots=True, kw_only=True)
class ServerPeer:
    """One server to compare with; the attributes up to `connections` are those of `base.Peer`.

    Attributes:
        launch: writes what the server needs into the working directory and says how to start it.
        wire: how it is asked and read.
        echoes: it runs no model and answers with its input, which is then what `read` returns.
    """

    name: str
    label: str
    protocols: tuple[str, ...]
    packages: tuple[str, ...]
    settings: dict[str, str]
    launch: Callable[[Place], Launch]
    wire: Wire
    connections: tuple[int, ...] = field(default=(1, 8, 64))
    echoes: bool = False

    def install(self, venv: Path) -> None:
        """Make `venv` and install `packages`; nothing if it holds exactly those already.

        Raises:
            PeerUnavailable: it cannot be installed.
        """
        if self.packages:
            venvs.install(venv, self.packages)

    def start(self, place: Place) -> AbstractContextManager[RunningServer]:
        """Lend a started server, perhaps not ready yet; its whole process tree is gone after the block.

        Raises:
            PeerUnavailable: it cannot be started.
        """
        row = np.zeros((1, place.model.features), np.float32)
        probes = {protocol: self.request(protocol, place.model, row) for protocol in self.protocols}
        return running(self.launch(place), place, probes)

    def request(self, protocol: str, model: BenchModel, array: Floats) -> WireRequest:
        """Return the request that asks for `array`, of shape [rows, features]."""
        return self.wire.request(protocol, model, array)

    def read(self, protocol: str, answer: WireAnswer) -> Floats:
        """Return the first output of a good answer, of shape [rows, ...].

        Raises:
            ValueError: it cannot be read, which counts as a wrong answer.
        """
        return self.wire.read(protocol, answer)
