"""Fetch the data sets whose published drift and performance the tests reproduce: files of NannyML's wheel."""

import argparse
from pathlib import Path

from wheels import downloaded, read_member, write

_ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = _ROOT / "requirements" / "drift-data.txt"

FILES = (
    "synthetic_car_loan_reference.csv",
    "synthetic_car_loan_analysis.csv",
    "synthetic_car_loan_analysis_target.csv",
    "mc_reference.csv",
    "mc_analysis.csv",
    "mc_analysis_gt.csv",
)


def main() -> None:
    """Download the pinned wheel and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=_ROOT / "build" / "drift-data")
    into = parser.parse_args().into
    with downloaded(_REQUIREMENTS) as wheels:
        for name in FILES:
            write(into / name, read_member(wheels, f"/datasets/data/{name}"))
    print(f"drift data: {into}")


if __name__ == "__main__":
    main()
