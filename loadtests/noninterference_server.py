"""A real gateway whose shadows are told it over standard input, and the process that it runs in.

`python -m loadtests.noninterference_server CONFIG` serves as `gateway serve --ready-json` does. Each line on
its standard input is a JSON object: `{"shadows": [...]}` puts a plan in force with version 1 of MODEL as its
only arm, `{}` changes nothing. Each is answered by a line with the totals of the shadows. When its input is
over, the gateway ends.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway import wiring
from gateway.app import Gateway
from gateway.commands.serve import serve
from gateway.config.schema import load_config
from gateway.core.errors import GatewayError
from gateway.core.evidence import ArmRoute, RoutePlan, ShadowRoute
from gateway.core.rollout import PPM, Assignment, HashSpec, ShadowSpec, Target
from gateway.core.types import VersionId
from gateway.layers.stack import build_stack
from gateway.routing.mirror import ShadowMirror
from gateway.routing.router import Router
from gateway.routing.routes import RouteTable
from loadtests.soak_models import OFFSET
from loadtests.soak_server import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from gateway.api.context import ApiContext
    from gateway.batchers import Batchers
    from gateway.core.evidence import ShadowCounts
    from gateway.models.manager import ModelManager

MODEL: Final = OFFSET
_STABLE: Final = 1


class ShadowedGateway(Gateway):
    """A gateway with routes of its own, told over standard input."""

    _batchers: Batchers

    def _model_manager(self, batchers: Batchers) -> ModelManager:
        self._batchers = batchers
        return super()._model_manager(batchers)

    def _api_context(self, *parts: Any, **named: Any) -> ApiContext:
        """Put a router with routes in the place of the one without, before anybody is served."""
        slots = self._batchers._schedulers.get  # noqa: SLF001 - no part of the gateway asks for them yet
        self._mirror = ShadowMirror(self._manager, self._clock, slots)
        self._routes = RouteTable(self._clock, shadows=self._mirror)
        router = Router(self._manager, self._cold_starts, self._routes)
        self._stack = build_stack(router, wiring.stack_options(self._config.server), self._telemetry)
        return super()._api_context(*parts, **named)

    async def serve(self) -> None:
        """Serve, and do what is told, until the input ends."""
        listening = asyncio.create_task(self._listen_to_input())
        try:
            await super().serve()
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            await self._mirror.aclose()
            self._say()

    async def _listen_to_input(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            told = json.loads(line)
            if "shadows" in told:
                self._follow(told["shadows"])
            self._say()
        self.stop()

    def _follow(self, shadows: Sequence[dict[str, Any]]) -> None:
        plan = RoutePlan(
            model=MODEL,
            arms=(ArmRoute("stable", self._version(_STABLE), PPM),),
            shadows=tuple(self._shadow(**told) for told in shadows),
            assign=Assignment(HashSpec("noninterference")),
        )
        self._mirror.apply([plan])
        self._routes.apply([plan])

    def _shadow(self, *, version: int, **spec: Any) -> ShadowRoute:
        name = f"v{version}"
        return ShadowRoute(ShadowSpec(name=name, target=Target(str(version)), **spec), self._version(version))

    def _version(self, number: int) -> VersionId:
        """Return the version that is READY under a number, or one that never will be."""
        try:
            return self.catalog.get(MODEL, str(number)).id
        except GatewayError:
            return VersionId(MODEL, number, "absent")

    def _say(self) -> None:
        totals = self._mirror.totals()
        told = {name: _plain(counts) for shadows in totals.values() for name, counts in shadows.items()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def _plain(counts: ShadowCounts) -> dict[str, Any]:
    return {
        "mirrored": counts.mirrored,
        "compared": counts.compared,
        "disagreed": counts.disagreed,
        "failed": counts.failed,
        "dropped": dict(counts.dropped),
        "under_way": counts.under_way,
    }


class ShadowedProcess(GatewayProcess):
    """A ShadowedGateway in a process of its own; used like any GatewayProcess."""

    _stdin = subprocess.PIPE

    def _program(self, config: str) -> list[str]:
        return ["loadtests.noninterference_server", config]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._process.stdin is not None:
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def follow(self, *shadows: Mapping[str, Any]) -> None:
        """Put shadows in force: `version`, and fields of ShadowSpec."""
        self._ask({"shadows": shadows})

    def counts(self, version: int) -> dict[str, Any]:
        """Return the totals of a version's shadow."""
        counts: dict[str, Any] = self._ask({})[f"v{version}"]
        return counts

    def end(self) -> dict[str, Any]:
        """Have it end in good order; return the last totals of every shadow by `v` and version."""
        self.terminate()
        assert self._process.stdout is not None
        last: dict[str, Any] = json.loads(self._process.stdout.readline())
        self.wait()
        return last

    def _ask(self, told: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the gateway has ended:\n{self.log}")
        answer: dict[str, Any] = json.loads(line)
        return answer


if __name__ == "__main__":
    serve(load_config(Path(sys.argv[1])), ShadowedGateway, as_json=True)
