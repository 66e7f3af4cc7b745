"""`python -m loadtests.soak_atheris SEEDS [libFuzzer's options]`: coverage-guided fuzzing of the HTTP/2 core.

Needs `atheris`, which soak_wire_fuzz.py installs into build/fuzz; PYTHONPATH has to name it. An empty folder
SEEDS is filled first, and what reaches new code is added. libFuzzer writes an input that fails to a file;
the same command with that file in place of SEEDS runs it alone.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Final

SEEDS: Final = 400


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["gateway.transport.http2"]):
        target: Any = importlib.import_module("tests.transport.grpc_wire.coverage_fuzz")
    folder = Path(sys.argv[1])
    if folder.is_dir() and not any(folder.iterdir()):
        for number, seed in enumerate(target.seeds(SEEDS)):
            (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
