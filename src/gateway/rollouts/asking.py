"""Asks gates that are answered from outside: a verdict by HTTP, or a number by PromQL."""

from __future__ import annotations

import asyncio
import json
import math
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from gateway.core.rollout import ExternalGate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.rollout import PrometheusGate
    from gateway.rollouts.effects import AskGate

VERDICTS: Final = frozenset({"pass", "fail", "hold", "no_data"})
_MAX_BYTES: Final = 1 << 20
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


async def ask(question: AskGate, model: str) -> Answer:
    """Ask once, in a thread, within the gate's timeout; whatever goes wrong becomes an `error`.

    An external gate is sent `rollout`, `rollout_id`, `step`, `model` and each arm's version in the query.
    """
    gate = question.gate
    try:
        async with asyncio.timeout(2 * gate.timeout_s):
            if isinstance(gate, ExternalGate):
                return verdict_of(
                    await asyncio.to_thread(_fetch, external_url(gate, question, model), gate.timeout_s)
                )
            return value_of(
                await asyncio.to_thread(_fetch, prometheus_url(gate, question, model), gate.timeout_s)
            )
    except urllib.error.HTTPError as error:
        return Answer(error=f"{gate.url} answered {error.code}{_detail(error)}")
    except TimeoutError:
        return Answer(error=f"{gate.url} did not answer within {gate.timeout_s:g} s")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(error=f"{gate.url}: {reason}"[:_MAX_REASON])


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
    if verdict not in VERDICTS:
        raise ValueError(f"expected a verdict, one of {', '.join(sorted(VERDICTS))}, got {body[:80]!r}")
    return Answer(verdict=str(verdict), reason=str(document.get("reason", ""))[:_MAX_REASON])


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
    value = float(samples[0]) if samples else math.nan
    return Answer(value=None if math.isnan(value) else value)


def _samples(data: Mapping[str, Any] | None) -> list[str]:
    match data:
        case {"resultType": "scalar", "result": [_, value]}:
            return [value]
        case {"resultType": "vector", "result": [*rows]}:
            return [row["value"][1] for row in rows if isinstance(row, dict) and "value" in row]
    raise ValueError("the query must give a scalar or an instant vector")


def _fetch(url: str, timeout_s: float) -> bytes:
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 - checked by config
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - likewise
        body: bytes = answer.read(_MAX_BYTES + 1)
    if len(body) > _MAX_BYTES:
        raise ValueError(f"the answer is longer than {_MAX_BYTES} bytes")
    return body


def _detail(error: urllib.error.HTTPError) -> str:
    """Return what Prometheus says is wrong with a query."""
    try:
        document = json.loads(error.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return ""
    text = document.get("error") if isinstance(document, dict) else None
    return f": {str(text)[:_MAX_REASON]}" if text else ""
