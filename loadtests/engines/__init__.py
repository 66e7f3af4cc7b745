"""The generators, by the names scenario files use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests.engines.closed import run_h2load, run_wrk
from loadtests.engines.k6 import run_k6
from loadtests.engines.replay import run_replay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtests.engines.job import Engine

ENGINES: Final[Mapping[str, Engine]] = {
    "wrk": run_wrk,
    "h2load": run_h2load,
    "k6": run_k6,
    "replay": run_replay,
}
