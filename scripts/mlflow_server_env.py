"""Build the environment in which the tests run a real MLflow server; it takes a minute and 1 GB of disk."""

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _ROOT / "requirements" / "mlflow-server.txt"


def build(requirements: Path, into: Path) -> bool:
    """Install what `requirements` pins into a fresh environment at `into`, unless it is there already.

    An environment counts as there when it was completed from the same pins by the same Python.

    Returns:
        Whether anything had to be done.

    Raises:
        subprocess.CalledProcessError: A package cannot be had, or none has a listed hash.
    """
    stamp = into / ".stamp"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        stamp.touch()
        return False
    shutil.rmtree(into, ignore_errors=True)
    venv.create(into, with_pip=True)
    pip = [str(into / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    pins = ["--only-binary", ":all:", "--require-hashes", "-r", str(requirements)]
    subprocess.run([*pip, *pins], check=True)
    stamp.write_text(wanted)
    return True


def main() -> None:
    """Build `build/mlflow-server`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "build" / "mlflow-server")
    into = parser.parse_args().into
    done = build(_REQUIREMENTS, into)
    print(f"MLflow server: {into}{'' if done else ' (there already)'}")


if __name__ == "__main__":
    main()
