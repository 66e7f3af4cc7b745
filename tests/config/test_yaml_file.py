"""Reading YAML files."""

import pytest

from gateway.config.yaml_file import MAX_FILE_BYTES, parse_yaml
from gateway.core.errors import ConfigError


def test_words_stay_text_and_lines_are_known() -> None:
    """YAML 1.1's `on` and `yes` are text, numbers are numbers, and every key and item has its line."""
    file = parse_yaml(b"on: yes\nlist:\n  - 1\n  - {x: '2'}\n", "f.yaml")
    assert file.data == {"on": "yes", "list": [1, {"x": "2"}]}
    assert file.line_of(("list", 1, "x")) == 4
    assert file.line_of(("list", 1, "missing")) == 4
    assert file.line_of(("nowhere",)) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a: 1\na: 2\n", 'f.yaml:2: found duplicate key "a"'),
        (b"a: &x 1\n", "f.yaml:1: anchors and aliases are not allowed"),
        (b"a: 1\nb: *a\n", "f.yaml:2: anchors and aliases are not allowed"),
        (b"a: !!python/object:os.system x\n", "f.yaml:1: the tag"),
        (b"a: [1\n", "f.yaml:2: not YAML"),
        (b"- 1\n", "f.yaml:1: expected a mapping at the top level"),
        (b"", "f.yaml:1: expected a mapping at the top level, got nothing"),
        (b"? [1]\n: 2\n", "f.yaml:1: keys must be text"),
        (b"true: 2\n", "f.yaml:1: keys must be text"),
        (b"a: 1\nb: [{c: d},<<: {e: f}]\n", "f.yaml:2: merge keys are not allowed"),
        (b"<<: {e: f}\n", "f.yaml:1: merge keys are not allowed"),
        (b"a: 1\nb: {[c, {d: [e]}]: 1}\n", "f.yaml:2: keys must be text, got a list or a mapping"),
        (b"a: " + b"[" * 50 + b"]" * 50, "f.yaml:1: nested deeper than"),
        (b"\xff\xfe\xff", "f.yaml: not YAML"),
        (b"a: " + b"x" * MAX_FILE_BYTES, "f.yaml: 4194307 bytes"),
    ],
)
def test_surprises_are_refused_with_their_line(text: bytes, complaint: str) -> None:
    """Each kind of surprise names the file and, where there is one, the line."""
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    assert str(caught.value).startswith(complaint)
