"""Build the environment in which NannyML itself runs, the oracle of estimated performance; 2 GB of disk."""

import argparse
from pathlib import Path

from mlflow_server_env import build

_ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _ROOT / "requirements" / "nannyml.txt"


def main() -> None:
    """Build `build/nannyml`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "build" / "nannyml")
    into = parser.parse_args().into
    done = build(_REQUIREMENTS, into)
    print(f"NannyML: {into}{'' if done else ' (there already)'}")


if __name__ == "__main__":
    main()
