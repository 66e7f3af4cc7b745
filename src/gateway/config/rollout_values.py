"""The words of rollout files: durations, percentages, versions, names, and how they are written."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from gateway.core.rollout import PPM

RESERVED_NAMES: Final = frozenset({"ui", "events"})
MAX_DURATION_S: Final = 366 * 86_400.0
_UNITS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)")
_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s?%")
_TARGET: Final = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9_.+\-]{0,127}")
_PPM_OF_PERCENT: Final = PPM // 100


def parse_duration(value: Any) -> float:
    """Return the seconds of `40ms`, `10s`, `10m`, `24h` or `7d`.

    Raises:
        ValueError: anything else, or beyond `MAX_DURATION_S`.
    """
    if not isinstance(value, str) or not (match := _DURATION.fullmatch(value)):
        raise ValueError(
            f"expected a duration with its unit, such as 40ms, 10s, 10m, 24h or 7d, got {value!r}"
        )
    number, unit = match.groups()
    seconds = float(Decimal(number) * _UNITS[unit])
    if seconds > MAX_DURATION_S:
        raise ValueError(f"{value} is longer than {MAX_DURATION_S / 86_400:g} days")
    return seconds


def parse_percent(value: Any) -> int:
    """Return the parts per million of `1%` or `0.05%`.

    Raises:
        ValueError: anything else, beyond 100 %, or not a whole number of parts per million.
    """
    if not isinstance(value, str) or not (match := _PERCENT.fullmatch(value)):
        raise ValueError(f"expected a percentage such as 1% or 0.05%, got {value!r}")
    return _whole_ppm(Decimal(match[1]), value)


def parse_share(value: Any) -> int:
    """Return the parts per million of `90`, `0.5` or `90%`, all per cent; raises as `parse_percent`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
        return _whole_ppm(Decimal(repr(value)), str(value))
    return parse_percent(value)


def _whole_ppm(percent: Decimal, text: str) -> int:
    ppm = percent * _PPM_OF_PERCENT
    if ppm > PPM:
        raise ValueError(f"{text} is more than 100%")
    if ppm != ppm.to_integral_value():
        raise ValueError(f"{text} is finer than 0.0001%, one part in a million")
    return int(ppm)


def percent_text(ppm: int) -> str:
    """Return parts per million as a file writes them: 500 is `0.05%`."""
    return f"{(Decimal(ppm) / _PPM_OF_PERCENT).normalize():f}%"


def duration_text(seconds: float) -> str:
    """Return seconds as a file writes them, in the largest unit that leaves few digits: `2h`, `1.5m`."""
    for unit in ("d", "h", "m", "s"):
        size = float(_UNITS[unit])
        if seconds >= size and round(seconds / size, 1) * size == seconds:
            return f"{seconds / size:.10g}{unit}"
    return f"{seconds:.10g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:.10g}ms"


def parse_target(value: Any) -> str:
    """Return `@alias` or the text of a version.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return str(value)
    if isinstance(value, str) and "://" in value:
        raise ValueError(
            f"expected an alias such as '@challenger' or a version of the model's own source, got {value!r}; "
            "where the model comes from stands in the gateway's configuration"
        )
    if not isinstance(value, str) or not _TARGET.fullmatch(value):
        raise ValueError(
            f"expected an alias in quotes such as '@challenger', a version number, or a label in quotes such "
            f"as '1.4.2', got {value!r}"
        )
    return value


def parse_version(value: Any) -> str:
    """Return the text of a version; raises as `parse_target`, for an alias too."""
    text = parse_target(value)
    if text.startswith("@"):
        raise ValueError(f"expected a version, got the alias {text!r}: a plain split follows no alias")
    return text


def parse_header(value: Any) -> str:
    """Return a header's name in lower case.

    Raises:
        ValueError: it is no header name.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9!#$&'*+.^_`|~-]{1,128}", value):
        raise ValueError(f"expected the name of a header, got {value!r}")
    return value.lower()


def check_rollout_name(name: str) -> str:
    """Return the name of a rollout.

    Raises:
        ValueError: `/rollouts/NAME` on the administration port is something else.
    """
    if name in RESERVED_NAMES:
        raise ValueError(
            f"a rollout cannot be called '{name}': the administration port has a page of that name"
        )
    return name


def check_url(url: str) -> str:
    """Return `url` if it is an HTTP one; a ValueError tells otherwise."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError(f"expected a URL such as http://127.0.0.1:8010/verdict, got {url!r}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL in this file must not hold credentials")
    return url


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


_DURATION_SCHEMA: Final = {
    "type": "string",
    "pattern": rf"^{_DURATION.pattern}$",
    "examples": ["40ms", "30s", "10m", "24h", "7d"],
}
_PERCENT_SCHEMA: Final = {
    "type": "string",
    "pattern": rf"^{_PERCENT.pattern}$",
    "examples": ["1%", "0.05%", "25%"],
}
_TARGET_SCHEMA: Final = {
    "anyOf": [{"type": "string", "pattern": rf"^{_TARGET.pattern}$"}, {"type": "integer", "minimum": 1}],
    "examples": ["@challenger", 2, "1.4.2"],
}

Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds."""
PositiveDuration = Annotated[
    float, AfterValidator(_positive), BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)
]
"""Seconds, more than 0."""
Percent = Annotated[int, BeforeValidator(parse_percent), WithJsonSchema(_PERCENT_SCHEMA)]
"""Parts per million."""
PositivePercent = Annotated[
    int, AfterValidator(_positive), BeforeValidator(parse_percent), WithJsonSchema(_PERCENT_SCHEMA)
]
"""Parts per million, more than 0."""
Rate = Annotated[
    float, BeforeValidator(lambda value: parse_percent(value) / PPM), WithJsonSchema(_PERCENT_SCHEMA)
]
"""A fraction of 1, written as a percentage."""
PositiveRate = Annotated[
    float,
    AfterValidator(_positive),
    BeforeValidator(lambda value: parse_percent(value) / PPM),
    WithJsonSchema(_PERCENT_SCHEMA),
]
"""The same, more than 0."""
Share = Annotated[
    int,
    BeforeValidator(parse_share),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 100}, _PERCENT_SCHEMA]}),
]
"""Parts per million, written as a percentage whose sign may be left out."""
TargetText = Annotated[str, BeforeValidator(parse_target), WithJsonSchema(_TARGET_SCHEMA)]
"""`@alias`, a version number or a registry's label."""
VersionText = Annotated[str, BeforeValidator(parse_version), WithJsonSchema({"type": "string"})]
"""The same without aliases; the key of a mapping."""
HeaderName = Annotated[str, BeforeValidator(parse_header), WithJsonSchema({"type": "string"})]
"""In lower case."""
HttpUrl = Annotated[str, AfterValidator(check_url)]
"""Of a server that is asked."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$")]
"""Of a rollout, a shadow or a group of gates."""
RolloutName = Annotated[Name, AfterValidator(check_rollout_name)]
"""Of a rollout; not one of the addresses beside those of rollouts."""
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,128}$")]
"""Public name of a model."""
