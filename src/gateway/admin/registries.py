"""What reaches registries through the administration port: webhooks, and the wish to be looked at now."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from gateway.admin.json_text import json_answer
from gateway.admin.names import unknown
from gateway.core.errors import InvalidRequest, NotFound, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.admin.views import HintView, RegistryView, WebhookReceiver
    from gateway.core.calls import HttpRequest, HttpResponse

_RETRY_S = 60.0
"""A registry whose delivery cannot be remembered now should wait so long."""


class RegistryHttp:
    """Handlers about registries; each answers with a response or raises a GatewayError.

    Both answer 202: the registry is asked in the background, a second after the last look at the soonest.

    Args:
        registries: those followed.
        webhooks: by name of the registry, for those that have one.
        wall_s: wall-clock seconds since the epoch.
    """

    def __init__(
        self,
        registries: Sequence[RegistryView],
        webhooks: Mapping[str, WebhookReceiver],
        wall_s: Callable[[], float],
    ) -> None:
        self._registries = registries
        self._webhooks = webhooks
        self._wall_s = wall_s

    async def webhook(self, request: HttpRequest) -> HttpResponse:
        """Take a registry's word that something has changed, if it is genuine; never repeat any of it."""
        name = request.path_params["registry"]
        views = self._named(name)
        receiver = self._webhooks.get(name)
        if receiver is None:
            raise NotFound(f"registry '{name}' takes no webhooks: it has no webhook_secret")
        hint = self._accepted(receiver, request)
        count = 0 if hint is None else sum(view.hint(hint.model) for view in views)
        return json_answer({"registry": name, "looking_at": count}, 202)

    async def poll(self, request: HttpRequest) -> HttpResponse:
        """Look at a registry's models now, or at the one that `model` names as the registry does."""
        name = request.path_params["registry"]
        views = self._named(name)
        model = _model_of(request.query)
        count = sum(view.hint(model) for view in views)
        if model is not None and not count:
            followed = sorted(f"{r.model} = {r.reference}" for view in views for r in view.resolutions())
            raise NotFound(
                f"registry '{name}' is asked for no model '{model[:100]}'; give the registry's own name. "
                f"What is followed: {', '.join(followed)[:2000] or 'nothing'}"
            )
        return json_answer({"registry": name, "looking_at": count}, 202)

    def _accepted(self, receiver: WebhookReceiver, request: HttpRequest) -> HintView | None:
        try:
            return receiver.accept(request.headers, bytes(request.body), self._wall_s())
        except Overloaded as error:
            # Not 429: it is not this sender that asks for too much.
            raise Unavailable(str(error), retry_after_s=_RETRY_S) from error

    def _named(self, name: str) -> Sequence[RegistryView]:
        """Return what follows a registry: under its own name, or the one that the configuration gives it."""
        named = [
            view
            for view in self._registries
            if view.name == name or any(r.registry == name for r in view.resolutions())
        ]
        if not named:
            raise unknown("registry", name, [view.name for view in self._registries])
        return named


def _model_of(query: str) -> str | None:
    try:
        parameters = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=8)
    except ValueError as error:
        raise InvalidRequest("the query is malformed: expected nothing, or ?model=NAME") from error
    models = parameters.pop("model", [])
    if parameters or len(models) > 1 or "" in models:
        raise InvalidRequest("expected no query, or ?model=NAME once")
    return models[0] if models else None
