"""Turns what pydantic found wrong into lines as `file:line: key: what is wrong; did you mean ...`."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import ValidationError

    from gateway.config.yaml_file import Location, YamlFile

    Tags = Mapping[str, type[BaseModel]]

_NO_TAGS: Final[Tags] = MappingProxyType({})
MOST_COMPLAINTS: Final = 50


def complaints(
    error: ValidationError, file: YamlFile, root: type[BaseModel], tags: Tags = _NO_TAGS
) -> Iterator[str]:
    """Yield one line for each mistake, `MOST_COMPLAINTS` at most.

    Args:
        error: what is wrong with the file's data.
        file: the file.
        root: what the data should have been.
        tags: names of union members that stand in locations -> the member.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    for detail in details[:MOST_COMPLAINTS]:
        tagged: Location = tuple(detail["loc"])
        location = tuple(step for step in tagged if step not in tags)
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            message = "unknown key" + suggestion(str(tagged[-1]), _keys_at(tagged[:-1], root, tags))
        yield complaint(file, location, message)
    if len(details) > MOST_COMPLAINTS:
        yield f"{file.path}: {len(details) - MOST_COMPLAINTS} more"


def complaint(file: YamlFile, location: Location, message: str) -> str:
    """Return the line for one mistake."""
    where = ".".join(map(str, location)) or "file"
    return f"{file.path}:{file.line_of(location)}: {printable(f'{where}: {message}')}"


def printable(text: str) -> str:
    """Return text on one line, whatever a file held: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def suggestion(found: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` when one of those known is near what was found."""
    near = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _keys_at(location: Location, root: type[BaseModel], tags: Tags) -> list[str]:
    section: type[BaseModel] | None = root
    in_mapping = False
    for step in location:
        if step in tags:
            section = tags[str(step)]
            continue
        if isinstance(step, int) or section is None or in_mapping:
            in_mapping = False  # an index or a key of their own choice: the section stays
            continue
        field = next((f for n, f in section.model_fields.items() if step in {n, f.alias}), None)
        section = _section_in(field.annotation) if field else None
        in_mapping = field is not None and get_origin(field.annotation) is dict
    if section is None or in_mapping:
        return []
    return [field.alias or name for name, field in section.model_fields.items()]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section class inside an annotation such as `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, getattr(annotation, "__args__", ()))), None)
