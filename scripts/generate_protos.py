"""Generates the protobuf modules of `gateway._proto` from protos/, or checks that they are in step.

protoc writes modules that register in protobuf's default descriptor pool and import each other as top-level
modules. They are rewritten to register in `gateway._proto.pool.POOL`, where their names cannot meet those of
tritonclient, and to import each other, and be pickled, as members of their package. Their stubs are completed
where mypy's strict mode finds types missing.

Run it as `make protos`; `make check` runs it with --check. The output depends on the version of grpcio-tools,
which must write code for a protobuf no newer than the one that the gateway runs with: 1.81 is the last for
protobuf 6.
"""

import argparse
import difflib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOWN_DIFF_LINES = 20


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A change to protoc's output."""

    pattern: str
    replacement: str
    once: bool = False
    """Whether it must apply exactly once to each file: it is what the file's meaning hangs on."""


SIBLING_IMPORT = Rewrite(r"^import (\w+_pb2) as (\w+)$", r"from gateway._proto import \1 as \2")
MODULE_REWRITES = (
    SIBLING_IMPORT,
    Rewrite(
        r"^from google\.protobuf import descriptor_pool as _descriptor_pool$",
        "from gateway._proto.pool import POOL",
        once=True,
    ),
    Rewrite(r"\b_descriptor_pool\.Default\(\)", "POOL", once=True),
    Rewrite(r"(BuildTopDescriptorsAndMessages\(DESCRIPTOR, )'\w+_pb2'", r"\1__name__", once=True),
)
STUB_REWRITES = (
    SIBLING_IMPORT,
    Rewrite(r"\b(?<!as )_Mapping\b(?!\[)", "_Mapping[str, object]"),
    # A field whose name is a Python keyword can be given only so.
    Rewrite(r"\*\*kwargs\)", "**kwargs: object)"),
)


class GenerationError(Exception):
    """protoc failed, or wrote code of a form that this script does not know."""


def main(arguments: list[str] | None = None) -> int:
    """Generate or check.

    Args:
        arguments: Of the command line; None takes the process's own.

    Returns:
        The exit status: 0 done or in step, 1 out of step, 2 not able to generate.
    """
    options = _parse(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            fresh = generate(options.protos, Path(scratch))
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 2
    committed = read_generated(options.output)
    if not options.check:
        write(options.output, fresh, stale=committed.keys() - fresh.keys())
        return 0
    problems = compare(committed, fresh)
    if problems:
        print("\n".join([*problems, _advice(options.output)]), file=sys.stderr)
    return 1 if problems else 0


def generate(protos: Path, scratch: Path) -> dict[str, str]:
    """Generate modules and stubs for every .proto file of a folder.

    Args:
        protos: The folder; its files import each other by bare name.
        scratch: An empty folder for protoc to write into.

    Returns:
        File name to content, for `*_pb2.py` and `*_pb2.pyi`.

    Raises:
        GenerationError: protoc refused a file, or its output cannot be rewritten.
    """
    sources = sorted(path.name for path in protos.glob("*.proto"))
    if not sources:
        raise GenerationError(f"no .proto files in {protos}")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={protos}"]
    command += [f"--python_out={scratch}", f"--pyi_out={scratch}", *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerationError(f"protoc failed:\n{done.stderr}")
    return {name: rewrite(name, text) for name, text in read_generated(scratch).items()}


def rewrite(name: str, text: str) -> str:
    """Move one generated file into the package and its pool.

    Args:
        name: The file's name, which tells a module from a stub.
        text: What protoc wrote.

    Returns:
        The text to commit.

    Raises:
        GenerationError: A pattern that must occur once does not: protoc's output has changed its form.
    """
    for change in STUB_REWRITES if name.endswith(".pyi") else MODULE_REWRITES:
        text, count = re.subn(change.pattern, change.replacement, text, flags=re.MULTILINE)
        if change.once and count != 1:
            raise GenerationError(
                f"{name}: {change.pattern!r} occurs {count} times where 1 is expected; "
                f"adapt {Path(__file__).name} to grpcio-tools {version('grpcio-tools')}"
            )
    return text


def read_generated(folder: Path) -> dict[str, str]:
    """Read the generated files of a folder, file name to content."""
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*_pb2.py*"))}


def write(folder: Path, fresh: dict[str, str], stale: set[str]) -> None:
    """Write the files that are wanted and remove those whose .proto file is gone."""
    for name, text in fresh.items():
        (folder / name).write_text(text, "utf-8")
    for name in stale:
        (folder / name).unlink()


def compare(committed: dict[str, str], fresh: dict[str, str]) -> list[str]:
    """Tell what is out of step, a paragraph per file; empty when nothing is."""
    missing = [f"{name}: missing" for name in sorted(fresh.keys() - committed.keys())]
    stale = [
        f"{name}: left over, its .proto file is gone" for name in sorted(committed.keys() - fresh.keys())
    ]
    shared = sorted(committed.keys() & fresh.keys())
    changed = [
        _difference(name, committed[name], fresh[name]) for name in shared if committed[name] != fresh[name]
    ]
    return missing + stale + changed


def _difference(name: str, committed: str, fresh: str) -> str:
    diff = list(
        difflib.unified_diff(committed.splitlines(), fresh.splitlines(), "committed", "generated", "", "", 0)
    )
    shown = [f"    {line:.160}" for line in diff[:SHOWN_DIFF_LINES]]
    rest = len(diff) - len(shown)
    return "\n".join([f"{name}: differs", *shown, *([f"    and {rest} lines more"] if rest else [])])


def _advice(output: Path) -> str:
    return (
        f"{output} is not what protos/ and grpcio-tools {version('grpcio-tools')} give: "
        "run `make protos`, and commit the result with the .proto files"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of step")
    parser.add_argument("--protos", type=Path, default=ROOT / "protos", help="the folder of the .proto files")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "src/gateway/_proto", help="the folder to write to"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
