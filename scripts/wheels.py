"""Fetch wheels pinned by hash and take single files out of them, without installing anything."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def downloaded(requirements: Path) -> Iterator[list[Path]]:
    """Download what a requirements file pins and lend the files until the block ends.

    Args:
        requirements: Every line pinned with ``==`` and ``--hash``. Dependencies are not followed, nothing is
            built or run.

    Yields:
        The wheels, sorted by name; deleted on leaving the block.

    Raises:
        subprocess.CalledProcessError: A file cannot be had, or none has a listed hash.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--require-hashes", "-r", str(requirements), "-d", folder], check=True)
        yield sorted(Path(folder).glob("*.whl"))


def read_member(wheels: list[Path], suffix: str) -> bytes:
    """Return the one file in these wheels whose path ends so.

    Raises:
        LookupError: No file, or more than one, has that ending.
    """
    found = [(wheel, name) for wheel in wheels for name in _names(wheel) if name.endswith(suffix)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} files end in {suffix!r} in {[w.name for w in wheels]}, expected one")
    wheel, name = found[0]
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, making its folders, so that a watcher never loads half a model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()
