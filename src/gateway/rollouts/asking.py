"""Asks gates that are answered from outside: a verdict by HTTP, or a number by PromQL."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import math
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from gateway.core.rollout import ExternalGate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.rollout import PrometheusGate
    from gateway.rollouts.effects import AskGate

_log = logging.getLogger(__name__)

VERDICTS: Final = frozenset({"pass", "fail", "hold", "no_data"})
_MAX_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 16
_MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        verdict: one of VERDICTS, for an external gate; empty on error.
        value: for a prometheus gate; None: no data.
        reason: that came with the verdict.
        error: why there is no answer; empty when there is one.
    """

    verdict: str = ""
    value: float | None = None
    reason: str = ""
    error: str = ""


class Asker:
    """Asks the gates of one line, each in a thread of its own, one question of a gate at a time.

    A server may take for ever by sending a little now and then; its gate is not asked again before that ends,
    and nobody else waits for it, the end of the process included.
    """

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}

    async def ask(self, question: AskGate, model: str) -> Answer:
        """Ask once, within the gate's timeout; whatever goes wrong becomes an `error`.

        An external gate is sent `rollout`, `rollout_id`, `step`, `model` and each arm's version in the query.
        """
        before = self._threads.get(question.place)
        if before is not None and before.is_alive():
            return Answer(error=f"{question.gate.url} has not answered the question before")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def answer() -> None:
            found = _answer(question, model)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_give, answered, found)

        thread = threading.Thread(target=answer, name=f"ask {question.place}", daemon=True)
        self._threads[question.place] = thread
        thread.start()
        try:
            async with asyncio.timeout(2 * question.gate.timeout_s):
                return await answered
        except TimeoutError:
            return _late(question)


def _give(answered: asyncio.Future[Answer], answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)


def _answer(question: AskGate, model: str) -> Answer:
    gate = question.gate
    read: Callable[[bytes], Answer]
    if isinstance(gate, ExternalGate):
        url, read = external_url(gate, question, model), verdict_of
    else:
        url, read = prometheus_url(gate, question, model), value_of
    try:
        return read(_fetch(url, gate.timeout_s))
    except urllib.error.HTTPError as error:
        return Answer(error=f"{gate.url} answered {error.code}{_detail(error)}")
    except TimeoutError:
        return _late(question)
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            return _late(question)
        return Answer(error=f"{gate.url}: {reason}"[:_MAX_REASON])
    except Exception as error:  # noqa: BLE001 - any: an answer is waited for
        _log.exception("asking gate %s failed", question.place)
        return Answer(error=f"{gate.url}: {error!r}"[:_MAX_REASON])


def _late(question: AskGate) -> Answer:
    return Answer(error=f"{question.gate.url} did not answer within {question.gate.timeout_s:g} s")


def external_url(gate: ExternalGate, question: AskGate, model: str) -> str:
    """Return the URL that asks for a verdict."""
    about = {
        "rollout": question.rollout,
        "rollout_id": question.rollout_id,
        "step": question.step,
        "model": model,
        **question.versions,
    }
    return f"{gate.url}{'&' if '?' in gate.url else '?'}{urlencode(about)}"


def prometheus_url(gate: PrometheusGate, question: AskGate, model: str) -> str:
    """Return the URL of the instant query, its blanks filled in."""
    query = gate.query.replace("{model}", model)
    for arm, version in question.versions.items():
        query = query.replace(f"{{{arm}}}", str(version))
    return f"{gate.url.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"


def verdict_of(body: bytes) -> Answer:
    """Return what an external gate answered.

    Raises:
        ValueError: it is no verdict.
    """
    document = json.loads(body)
    verdict = document.get("verdict") if isinstance(document, dict) else None
    if not isinstance(verdict, str) or verdict not in VERDICTS:
        raise ValueError(f"expected a verdict, one of {', '.join(sorted(VERDICTS))}, got {body[:80]!r}")
    return Answer(verdict=verdict, reason=str(document.get("reason", ""))[:_MAX_REASON])


def value_of(body: bytes) -> Answer:
    """Return the one number that an instant query came to; None where it came to nothing or NaN.

    Raises:
        ValueError: it is no answer of Prometheus, or came to more than one number.
    """
    document = json.loads(body)
    if not isinstance(document, dict) or document.get("status") != "success":
        raise ValueError(f"expected an answer of Prometheus, got {body[:80]!r}")
    samples = _samples(document.get("data"))
    if len(samples) > 1:
        raise ValueError(f"the query gives {len(samples)} series; aggregate them into one, with sum() say")
    try:
        value = float(samples[0]) if samples else math.nan
    except TypeError:
        raise ValueError(f"expected a number, got {body[:80]!r}") from None
    return Answer(value=None if math.isnan(value) else value)


def _samples(data: Mapping[str, Any] | None) -> list[str]:
    match data:
        case {"resultType": "scalar", "result": [_, value]}:
            return [value]
        case {"resultType": "vector", "result": [*rows]}:
            return [value for row in rows for value in _values(row)]
    raise ValueError("the query must give a scalar or an instant vector")


def _values(row: object) -> list[str]:
    match row:
        case {"value": [_, value]}:
            return [value]
    raise ValueError("a series without a value")


def _fetch(url: str, timeout_s: float) -> bytes:
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 - checked by config
    ends_s = time.monotonic() + timeout_s
    body = bytearray()
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - likewise
        while chunk := answer.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > _MAX_BYTES:
                raise ValueError(f"the answer is longer than {_MAX_BYTES} bytes")
            if time.monotonic() > ends_s:
                raise TimeoutError
    return bytes(body)


def _detail(error: urllib.error.HTTPError) -> str:
    """Return what Prometheus says is wrong with a query."""
    try:
        document = json.loads(error.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return ""
    text = document.get("error") if isinstance(document, dict) else None
    return f": {str(text)[:_MAX_REASON]}" if text else ""
