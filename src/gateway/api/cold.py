"""Requests that need a model's signature before they can be read, while the model is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.core.errors import GatewayError, NotReady
from gateway.core.types import InferRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.api.context import ApiContext
    from gateway.core.calls import CancelHook
    from gateway.core.interfaces import ServedVersion

T = TypeVar("T")


class ColdStarts(Protocol):
    """Where requests wait whose model is loaded on first use."""

    def enter(
        self,
        request: InferRequest,
        refused: NotReady,
        *,
        attempt: Callable[[], None],
        fail: Callable[[GatewayError], object],
    ) -> Callable[[], bool]:
        """Wait; exactly one of `attempt`, without NotReady, and `fail` ends it. Returns what takes it out.

        Raises:
            GatewayError: it cannot wait: `refused`, where the model is not loaded on first use.
        """

    async def ready(self, request: InferRequest, refused: NotReady) -> None:
        """Wait until the model may be READY; raises likewise."""


def begin_when_ready(
    context: ApiContext,
    known: InferRequest,
    refused: NotReady,
    begin: Callable[[], CancelHook],
    refuse: Callable[[Exception], CancelHook],
) -> CancelHook:
    """Begin a request when its model is loaded.

    Args:
        context: where it may wait.
        known: what is known of the request: model, version, size, deadline.
        refused: what `begin` raised.
        begin: begins it; raises NotReady, having done nothing, while its model is not READY.
        refuse: answers it with an error.

    Returns:
        What cancels it, wherever it is.
    """
    if context.cold_starts is None:
        return refuse(refused)
    stage = _Stage(begin)
    try:
        leave = context.cold_starts.enter(known, refused, attempt=stage.attempt, fail=refuse)
    except GatewayError as error:
        return refuse(error)
    return lambda: None if leave() else stage.cancel()


async def when_ready(context: ApiContext, asked: Callable[[], InferRequest], attempt: Callable[[], T]) -> T:
    """Return what `attempt` does once it raises no NotReady, waiting for the model meanwhile.

    Args:
        context: where it may wait.
        asked: returns what is known of the request: model, version, size, deadline.
        attempt: needs the model READY; called again after each wait.

    Raises:
        GatewayError: as `attempt`; or it cannot wait, or no longer, as `ColdStarts.ready`.
    """
    while True:
        try:
            return attempt()
        except NotReady as refused:
            if context.cold_starts is None:
                raise
            await context.cold_starts.ready(asked(), refused)


async def served_when_ready(
    context: ApiContext, model: str, version: str, deadline_s: float | None = None
) -> ServedVersion:
    """Return a READY version, loaded first if that happens on first use.

    Raises:
        GatewayError: as `ModelCatalog.get`, or it cannot be loaded before `deadline_s`, monotonic time.
    """

    def asked() -> InferRequest:
        return InferRequest(model_name=model, model_version=version, inputs=(), deadline_s=deadline_s)

    return await when_ready(context, asked, lambda: context.catalog.get(model, version))


class _Stage:
    """A request that has yet to begin, or has begun."""

    def __init__(self, begin: Callable[[], CancelHook]) -> None:
        self._begin = begin
        self._hook: CancelHook | None = None

    def attempt(self) -> None:
        self._hook = self._begin()

    def cancel(self) -> None:
        if self._hook is not None:
            self._hook()
