"""Take Triton's own server out of the wheel that ships it, for the tests; 200 MB of disk.

Its Python backend runs models with the packages of the environment whose python3 comes first in PATH: here
one that has an older numpy, and everything else of the tests' own environment.
"""

import argparse
import hashlib
import shutil
import sys
import venv
import zipfile
from pathlib import Path

from wheels import downloaded

_ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _ROOT / "requirements" / "tritonserver.txt"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_STUB = f"pytriton/tritonserver/python_backend_stubs/{_PYTHON}/"
_BACKEND = "pytriton/tritonserver/backends/python/"
_KEPT = ("pytriton/tritonserver/bin/", _BACKEND, _STUB, "nvidia_pytriton.libs/")
_PACKAGES = Path("lib", f"python{_PYTHON}", "site-packages")


def build(requirements: Path, into: Path) -> bool:
    """Unpack the server below `into`, unless it is there already; a reader never meets half of it.

    The stub of this Python is put beside the backend's library, where Triton looks for it; `python` is the
    environment of the models.

    Returns:
        Whether anything had to be done.

    Raises:
        subprocess.CalledProcessError: The wheel cannot be had, or has none of the listed hashes.
        LookupError: It has no server for this Python.
    """
    stamp = into / ".stamp"
    wanted = hashlib.sha256(requirements.read_bytes() + Path(__file__).read_bytes() + sys.version.encode())
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest():
        stamp.touch()
        return False
    partial = into.with_name(f"{into.name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    packages = partial / "python" / _PACKAGES
    venv.create(partial / "python", symlinks=True)
    (packages / "tests.pth").write_text(f"{_ROOT / '.venv' / _PACKAGES}\n")
    with downloaded(requirements) as wheels:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                if wheel.name.startswith("nvidia_pytriton"):
                    _unpack(archive, partial)
                else:
                    archive.extractall(packages)
    (partial / ".stamp").write_text(wanted.hexdigest())
    shutil.rmtree(into, ignore_errors=True)
    partial.rename(into)
    return True


def _unpack(archive: zipfile.ZipFile, into: Path) -> None:
    names = [name for name in archive.namelist() if name.startswith(_KEPT) and not name.endswith("/")]
    if not any(name.startswith(_STUB) for name in names):
        raise LookupError(f"the wheel has no {_STUB}")
    for name in names:
        path = into / name.replace(_STUB, _BACKEND)
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        path.chmod(0o755)


def main() -> None:
    """Build `build/tritonserver`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "build" / "tritonserver")
    into = parser.parse_args().into
    done = build(_REQUIREMENTS, into)
    print(f"Triton server: {into}{'' if done else ' (there already)'}")


if __name__ == "__main__":
    main()
