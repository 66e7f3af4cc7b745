"""Reading YAML so that every complaint carries file and line, and surprises are refused.

YAML 1.2 rules: `on`, `yes` and `no` are text. Duplicate keys, anchors, aliases and tags are refused: a
reader of the file should see what it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from ruamel.yaml.nodes import Node

MAX_FILE_BYTES: Final = 4 << 20
MAX_DEPTH: Final = 40
Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class YamlFile:
    """One parsed file.

    Attributes:
        path: where it was read from, for messages.
        data: plain dicts, lists and scalars.
        lines: location in `data` -> 1-based line.
    """

    path: str
    data: Mapping[str, Any]
    lines: Mapping[Location, int]

    def line_of(self, location: Location) -> int:
        """Return the line of `location`, or of its nearest ancestor that has one."""
        for end in range(len(location), -1, -1):
            if line := self.lines.get(location[:end]):
                return line
        return 1


def read_yaml(path: Path) -> YamlFile:
    """Read one file.

    Raises:
        ConfigError: unreadable, too large, not YAML, or not a mapping.
    """
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    return parse_yaml(text, str(path))


def parse_yaml(text: bytes, path: str) -> YamlFile:
    """Parse the text of a file named `path`; raises as `read_yaml`."""
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: {len(text)} bytes, at most {MAX_FILE_BYTES} are read")
    try:
        _refuse_surprises(text, path)
        tree = YAML(typ="rt").load(text)
    except DuplicateKeyError as exc:
        raise ConfigError(f"{path}:{_mark_line(exc)}: {_first_line(exc.problem)}") from exc
    except MarkedYAMLError as exc:
        raise ConfigError(f"{path}:{_mark_line(exc)}: not YAML: {_first_line(exc.problem)}") from exc
    except TypeError as exc:
        line = _odd_key_line(YAML(typ="rt", pure=True).compose(text)) or 1
        raise ConfigError(f"{path}:{line}: keys must be text, got a list or a mapping") from exc
    except (YAMLError, UnicodeDecodeError, ValueError) as exc:
        raise ConfigError(f"{path}: not YAML: {_first_line(str(exc))}") from exc
    if not isinstance(tree, Mapping):
        kinds = {type(None): "nothing", list: "a list"}
        found = kinds.get(type(_plain(tree, (), {}, path)), "a single value")
        raise ConfigError(f"{path}:1: expected a mapping at the top level, got {found}")
    lines: dict[Location, int] = {}
    data = _plain(tree, (), lines, path)
    return YamlFile(path, data, lines)


def _refuse_surprises(text: bytes, path: str) -> None:
    """Refuse anchors, aliases, tags and absurd nesting while the text is still a flat list of events."""
    depth = 0
    for event in YAML(typ="rt", pure=True).parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{path}:{line}: anchors and aliases are not allowed; write the value out")
        if isinstance(event, ScalarEvent) and event.value == "<<" and event.style is None:
            raise ConfigError(f"{path}:{line}: merge keys are not allowed; write the keys out")
        if getattr(event, "ctag", None) is not None:
            raise ConfigError(f"{path}:{line}: the tag {event.ctag} is not allowed")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}:{line}: nested deeper than {MAX_DEPTH} levels")


def _plain(node: Any, at: Location, lines: dict[Location, int], path: str) -> Any:
    """Return `node` without ruamel's types, noting the line of every key and item in `lines`."""
    if isinstance(node, Mapping):
        return _plain_mapping(node, at, lines, path)
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return _plain_sequence(node, at, lines, path)
    return _scalar(node)


def _plain_mapping(node: Any, at: Location, lines: dict[Location, int], path: str) -> dict[str | int, Any]:
    plain: dict[str | int, Any] = {}
    for key, value in node.items():
        line = node.lc.key(key)[0] + 1
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise ConfigError(f"{path}:{line}: keys must be text, got {key!r}")
        lines[(*at, key)] = line
        plain[key] = _plain(value, (*at, key), lines, path)
    return plain


def _plain_sequence(node: Any, at: Location, lines: dict[Location, int], path: str) -> list[Any]:
    plain: list[Any] = []
    for index, value in enumerate(node):
        lines[(*at, index)] = node.lc.item(index)[0] + 1
        plain.append(_plain(value, (*at, index), lines, path))
    return plain


def _scalar(node: Any) -> Any:
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return None if node is None else str(node)


def _mark_line(error: MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _first_line(text: str | None) -> str:
    return (text or "malformed").strip().splitlines()[0]


def _odd_key_line(node: Node | None) -> int:
    """Return the line of the first key below `node` that is no scalar; 0 without any."""
    if isinstance(node, MappingNode):
        lines = (
            _odd_key_line(value) if isinstance(key, ScalarNode) else key.start_mark.line + 1
            for key, value in node.value
        )
        return next(filter(None, lines), 0)
    return next(filter(None, map(_odd_key_line, node.value)), 0) if isinstance(node, SequenceNode) else 0
