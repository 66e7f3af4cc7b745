"""The JSON API: what the view knows, as it is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from gateway.core.errors import InvalidRequest
from gateway.monitor.arms.verdict import document, question_of
from gateway.monitor.export.report import FORMATS, collect
from gateway.monitor.pages.asked import Asked
from gateway.monitor.pages.jsontext import json_bytes
from gateway.monitor.pages.posted import parse, read_body, with_malformed
from gateway.monitor.pages.shown import LabelsTaken, ScoreQuery

if TYPE_CHECKING:
    from starlette.requests import Request

    from gateway.monitor.pages.drawing import Drawing
    from gateway.monitor.pages.options import PageOptions
    from gateway.monitor.pages.view import MonitorView

_MOST_SCORES = 20_000
_LONGEST_SUBJECT = 512


class Api:
    """Handlers of `/v1`.

    Args:
        view: who knows.
        options: bounds of what is posted.
        drawing: where reports are written.
    """

    def __init__(self, view: MonitorView, options: PageOptions, drawing: Drawing) -> None:
        self._view = view
        self._drawing = drawing
        self._options = options

    def routes(self) -> list[Route]:
        """Return what is served, with `{model}` as path parameter."""
        of_model = {
            "": self.model,
            "/scores": self.scores,
            "/coverage": self.coverage,
            "/distribution": self.distribution,
            "/performance": self.performance,
            "/arms": self.arms,
            "/verdict": self.verdict,
            "/report": self.report,
        }
        return [
            Route("/v1/health", self.health),
            Route("/v1/models", self.models),
            *(Route(f"/v1/models/{{model}}{path}", handler) for path, handler in of_model.items()),
            Route("/v1/alarms", self.alarms),
            Route("/v1/pipeline", self.pipeline),
            Route("/v1/labels", self.labels, methods=["POST"]),
            Route("/v1/subjects/{subject:path}", self.erase, methods=["DELETE"]),
        ]

    async def health(self, _request: Request) -> Response:
        """Say whether the monitor works: 200, or 503 with the reason."""
        shown = await self._view.health()
        return answer(shown, 200 if shown.ready else 503)

    async def models(self, _request: Request) -> Response:
        """List models."""
        return answer({"models": await self._view.models()})

    async def model(self, request: Request) -> Response:
        """Show one model with its versions, arms and signals."""
        return answer(await self._view.model(_model(request)))

    async def scores(self, request: Request) -> Response:
        """List scores: `signal`, `search`, `window`, `segment`, a period, the stream."""
        asked = self.asked(request)
        query = ScoreQuery(
            window=asked.window(),
            period=asked.period(),
            selection=asked.selection(_model(request)),
            signal=asked.text("signal"),
            search=asked.text("search"),
            every_segment=asked.text("segment") == "*",
            most=_MOST_SCORES,
        )
        if query.every_segment and query.selection:
            query = replace(query, selection=replace(query.selection, segment=""))
        found = await self._view.scores(query)
        return answer({"scores": found, "cut": len(found) >= _MOST_SCORES})

    async def coverage(self, request: Request) -> Response:
        """Show coverage over a period."""
        asked = self.asked(request)
        return answer(await self._view.coverage(asked.selection(_model(request)), asked.period()))

    async def distribution(self, request: Request) -> Response:
        """Show one `signal` over a period."""
        asked = self.asked(request)
        selection = asked.selection(_model(request))
        return answer(await self._view.distribution(selection, asked.required("signal"), asked.period()))

    async def performance(self, request: Request) -> Response:
        """Show realised and estimated performance over a period."""
        asked = self.asked(request)
        return answer(await self._view.performance(asked.selection(_model(request)), asked.period("7d")))

    async def arms(self, request: Request) -> Response:
        """Compare `candidate` with `baseline`, with pictures' data."""
        asked = self.asked(request)
        pair = asked.required("candidate"), asked.required("baseline")
        return answer(await self._view.arms(_model(request), *pair))

    async def verdict(self, request: Request) -> Response:
        """Tell a rollout's gate, in its own words, or anybody about `candidate` against `baseline`."""
        asked = self.asked(request)
        given = {
            **asked.values,
            "candidate": asked.required("candidate"),
            "baseline": asked.required("baseline"),
        }
        try:
            question = question_of(_model(request), given)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        return answer(document(question, await self._view.verdict(question)))

    async def alarms(self, request: Request) -> Response:
        """Show the ledger of a period, of one `model` or of all."""
        asked = self.asked(request)
        return answer(await self._view.alarms(asked.period("30d"), asked.text("model")))

    async def pipeline(self, _request: Request) -> Response:
        """Show how the log gets here."""
        return answer(await self._view.pipeline())

    async def labels(self, request: Request) -> Response:
        """Take labels in; durable when answered."""
        body = await read_body(request, self._options.max_body_bytes)
        post = parse(body, self._options.max_labels)
        if post.labels:
            taken = await self._view.post_labels(post.model, post.labels)
        else:
            taken = LabelsTaken(joined=0, waiting=0, unchanged=0, refused=0)
        return answer(with_malformed(taken, post.malformed))

    async def erase(self, request: Request) -> Response:
        """Delete every record of a subject."""
        subject = request.path_params["subject"]
        if not 0 < len(subject) <= _LONGEST_SUBJECT:
            raise InvalidRequest(f"a subject has 1 to {_LONGEST_SUBJECT} characters")
        return answer({"erased": await self._view.erase_subject(subject)})

    async def report(self, request: Request) -> Response:
        """Return a report on a model in a `format`: html, json or parquet."""
        asked = self.asked(request)
        name = asked.text("format", "html")
        if name not in FORMATS:
            raise InvalidRequest(f"'format' must be one of {', '.join(FORMATS)}")
        chosen = FORMATS[name]
        model = _model(request)
        report = await collect(self._view, asked.selection(model), asked.period("7d"), asked.window())
        safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in model)[:80]
        headers = {"content-disposition": f'attachment; filename="drift-{safe}.{name}"'}
        body = await self._drawing.run(partial(chosen.write, report))
        return Response(body, headers=headers, media_type=chosen.media_type)

    def asked(self, request: Request) -> Asked:
        """Return a request's query parameters."""
        options = self._options
        return Asked(dict(request.query_params), self._view.now_s(), options.windows, options.usual_range)


def answer(value: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(json_bytes(value), status, media_type="application/json")


def _model(request: Request) -> str:
    model: str = request.path_params["model"]
    return model
