"""One rollout file: its bytes into a spec, or complaints that name file and line."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pydantic import ValidationError

from gateway.config.complaints import complaint, complaints, printable, suggestion
from gateway.config.rollout_checks import rollout_complaints, rollout_warnings, split_complaints
from gateway.config.rollout_schema import RolloutDocument, SplitDocument
from gateway.config.rollout_steps import STEP_TAGS
from gateway.config.rollout_values import MAX_DURATION_S
from gateway.config.yaml_file import YamlFile, parse_yaml
from gateway.core.errors import ConfigError
from gateway.core.rollout import RolloutSpec, SplitSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.config.yaml_file import Location

Spec: TypeAlias = RolloutSpec | SplitSpec
MAX_ROLLOUT_BYTES: Final = 64 << 10
_KINDS: Final[Mapping[str, type[RolloutDocument | SplitDocument]]] = {
    "Rollout": RolloutDocument,
    "Split": SplitDocument,
}


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """A file that is valid.

    Attributes:
        spec: what it says; a rollout's `author` is filled in.
        path: where it was read from, or the place in the gateway's configuration, for messages.
        hash: SHA-256 of its bytes, hexadecimal.
        author: who wrote it: as it says, else its owner's name; empty where neither is known.
        warnings: what is odd in it, as `file:line: key: what`.
    """

    spec: Spec
    path: str
    hash: str
    author: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The rollout's name; of a split, the model's."""
        return self.spec.name if isinstance(self.spec, RolloutSpec) else self.spec.model


def content_hash(content: bytes) -> str:
    """Return the hash by which files are told apart."""
    return hashlib.sha256(content).hexdigest()


def parse_rollout(
    content: bytes, path: str, owner: str = "", *, max_window_s: float = MAX_DURATION_S
) -> RolloutFile:
    """Parse a whole file.

    Args:
        content: its bytes.
        path: its name, for messages.
        owner: who owns it on disk; the author where the file names none.
        max_window_s: longest `keep_stable_warm` allowed.

    Raises:
        ConfigError: every complaint, one per line, as `file:line: key: what is wrong`.
    """
    if len(content) > MAX_ROLLOUT_BYTES:
        raise ConfigError(f"{path}:1: {len(content)} bytes, at most {MAX_ROLLOUT_BYTES} are read")
    file = _parsed(content, path)
    document = _document(file)
    if isinstance(document, SplitDocument):
        _refuse(file, split_complaints(document))
        return RolloutFile(document.spec(), path, content_hash(content), owner)
    _refuse(file, rollout_complaints(document, max_window_s))
    author = document.author or owner
    spec = dataclasses.replace(document.spec(), author=author)
    warnings = tuple(complaint(file, at, text) for at, text in rollout_warnings(document))
    return RolloutFile(spec, path, content_hash(content), author, warnings)


def _parsed(content: bytes, path: str) -> YamlFile:
    try:
        return parse_yaml(content, path)
    except ConfigError as exc:
        text = printable(str(exc).removeprefix(path))
        if "'@'" in text:
            text += "; write an alias in quotes: '@challenger'"
        if text.startswith(": "):  # decoders know a position alone
            line = content[: _position(exc.__cause__)].count(b"\n") + 1
            text = f":{line}{text}"
        raise ConfigError(path + text) from exc


def _position(error: BaseException | None) -> int:
    position = getattr(error, "start", getattr(error, "position", 0))
    return position if isinstance(position, int) else 0


def _document(file: YamlFile) -> RolloutDocument | SplitDocument:
    kind = file.data.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        hint = suggestion(str(kind), list(_KINDS)) if kind is not None else ""
        found = f", got '{kind}'" if isinstance(kind, str) else ""
        raise ConfigError(complaint(file, ("kind",), f"expected Rollout or Split{found}{hint}"))
    document = _KINDS[kind]
    try:
        return document.model_validate(file.data)
    except ValidationError as exc:
        raise ConfigError("\n".join(complaints(exc, file, document, STEP_TAGS))) from exc


def _refuse(file: YamlFile, found: Iterable[tuple[Location, str]]) -> None:
    if texts := [complaint(file, at, text) for at, text in found]:
        raise ConfigError("\n".join(texts))
