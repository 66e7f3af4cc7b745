"""Writes the configuration references and JSON Schemas under docs/ from the schemas.

`--check` writes nothing and exits with 1 when a committed file is not in step.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from gateway.config.section import Section

# Before the first section is made.
Section.model_config["use_attribute_docstrings"] = True
from gateway.config.monitor import MonitorConfig  # noqa: E402
from gateway.config.rollout_schema import RolloutDocument, SplitDocument  # noqa: E402
from gateway.config.schema import GatewayConfig  # noqa: E402

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

DOCS = Path(__file__).parents[1] / "docs"
HEAD = """# Configuration reference

Generated from the schema by `make docs`; do not edit. `gateway validate FILE` checks a file;
`docs/gateway.schema.json` gives editors completion: put
`# yaml-language-server: $schema=docs/gateway.schema.json` on the first line.

Unknown keys, duplicate keys, anchors and tags are refused with file and line. YAML 1.2 rules hold: `on` and
`yes` are text. Sizes are bytes or text such as `64MiB`; names ending in `_s` are seconds. Relative paths are
taken from the file's directory.
"""

MONITOR_HEAD = """# Configuration reference of the monitor

Generated from the schema by `make docs`; do not edit. `gateway monitor validate FILE` checks a file;
`docs/monitor.schema.json` gives editors completion. The rules are those of the
[gateway's file](configuration.md); durations whose name does not end in `_s` are text: `30s`,
`10m`, `7d`.
"""


def schema() -> Schema:
    """Return the JSON Schema of the whole file."""
    return {"$schema": DIALECT, **GatewayConfig.model_json_schema()}


def rollout_schema() -> Schema:
    """Return the JSON Schema of rollout files."""
    documents = Annotated[RolloutDocument | SplitDocument, Field(discriminator="kind")]
    return {"$schema": DIALECT, "title": "Rollout file", **TypeAdapter(documents).json_schema()}


def monitor_schema() -> Schema:
    """Return the JSON Schema of the monitor's file."""
    return {"$schema": DIALECT, **MonitorConfig.model_json_schema()}


def reference(document: Schema, head: str = HEAD) -> str:
    """Return a reference page."""
    lines = [head]
    for path, section in sections("", document, document["$defs"]):
        lines += [f"## {path or 'Top level'}", "", clean(section.get("description", "")), ""]
        lines += ["| key | type | default | what it does |", "|---|---|---|---|"]
        required = section.get("required", ())
        lines += [row(n, f, required=n in required) for n, f in section["properties"].items()]
        lines.append("")
    return "\n".join(lines)


def sections(path: str, section: Schema, defs: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield every section with its dotted path, without what `models[]` shares with `defaults`."""
    yield path, section
    for name, field in section["properties"].items():
        for target, suffix in references(field):
            if path == "models[]" and name in defs["ModelSettings"]["properties"]:
                continue
            yield from sections(f"{path}.{name}".lstrip(".") + suffix, defs[target], defs)


def references(field: Schema, suffix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the sections a field refers to, with `[]` where it is a list of them."""
    if "$ref" in field:
        yield field["$ref"].rsplit("/", 1)[1], suffix
    for alternative in field.get("anyOf", ()):
        yield from references(alternative, suffix)
    if isinstance(field.get("items"), dict):
        yield from references(field["items"], suffix + "[]")
    for values in (field.get("additionalProperties"), *field.get("patternProperties", {}).values()):
        if isinstance(values, dict):
            yield from references(values, suffix + ".NAME")


def row(name: str, field: Schema, *, required: bool) -> str:
    """Return one table row."""
    default = "required" if required else default_of(field)
    return f"| `{name}` | {type_of(field)} | {default} | {clean(field.get('description', ''))} |"


def default_of(field: Schema) -> str:
    """Return the default as text; sections and empty collections show none."""
    if "default" not in field or field["default"] in (None, [], {}):
        return ""
    return f"`{json.dumps(field['default'])}`"


def type_of(field: Schema) -> str:
    """Return a short description of a field's type."""
    if "$ref" in field:
        return "section"
    if "anyOf" in field:
        return ", ".join(dict.fromkeys(type_of(a) for a in field["anyOf"] if a.get("type") != "null"))
    if "enum" in field:
        return " \\| ".join(f"`{v}`" for v in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if field.get("type") == "array":
        return f"list of {type_of(field['items'])}" if "items" in field else "list"
    kind = str(field.get("type", "any"))
    return {"object": "mapping", "string": "text"}.get(kind, kind)


def clean(text: str) -> str:
    """Return a description on one line."""
    return " ".join(text.split())


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if not in step")
    check = parser.parse_args().check
    document = schema()
    wanted = {
        DOCS / "gateway.schema.json": json.dumps(document, indent=2) + "\n",
        DOCS / "rollout.schema.json": json.dumps(rollout_schema(), indent=2) + "\n",
        DOCS / "configuration.md": reference(document),
        DOCS / "monitor.schema.json": json.dumps(monitor_schema(), indent=2) + "\n",
        DOCS / "monitor-configuration.md": reference(monitor_schema(), MONITOR_HEAD),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(DOCS.parent)} is not in step with the schema: run `make docs`")
        else:
            path.write_text(wanted[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
