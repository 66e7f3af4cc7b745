"""Runs schemathesis against a gateway's own OpenAPI document."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EXAMPLES: Final = 200
"""Generated requests for each operation and kind, in a full run."""
SEED: Final = 20

# 501, 503 and 504 have the causes that docs/errors.md lists; a 500 has none.
_CONFIG: Final = """\
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503, 504]
"""
_NAMED: Final = """\
[parameters]
"path.model" = "offset"
"path.version" = "1"
"""
# What the document and the gateway promise: no 500, and no status, media type, header or body beside it.
_CHECKS: Final = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method"
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run found.

    Attributes:
        exit_code: 0 when every check passed.
        failures: its report when one did not, empty otherwise.
    """

    exit_code: int
    failures: str


def run_schemathesis(http_port: int, examples: int, directory: Path, *, named: bool) -> Findings:
    """Send `examples` requests for each operation, the same ones every time.

    Args:
        http_port: of the running gateway.
        examples: how many for each operation.
        directory: where its configuration and caches are written.
        named: put the name of a model that is served into every path, in place of made-up ones.
    """
    config = directory / "schemathesis.toml"
    config.write_text(_NAMED + _CONFIG if named else _CONFIG)
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(config), "run"]
    command += [f"http://127.0.0.1:{http_port}/openapi.json", "--checks", _CHECKS]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(max(1, examples))]
    command += ["--seed", str(SEED), "--generation-deterministic", "--no-color", "--continue-on-failure"]
    command += ["--no-shrink", "--warnings", "off"]
    # A terminal's settings change what it prints; PYTHONWARNINGS would reach libraries that are not ours.
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("SCHEMATHESIS_", "PYTHONWARNINGS"))
    }
    run = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    return Findings(run.returncode, "" if run.returncode == 0 else run.stdout + run.stderr)
