"""Break the delivery of the prediction log: every step of its disk in process, and a real process by kill -9.

`python -m loadtests.predlog_crashes [--seeds N] [--kills N]` prints a table and exits 1 if a row was lost,
counted twice or not accounted for. A seed is some 1,400 points.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tests.predlog.delivery.crash_points import faults
from tests.predlog.delivery.killing import kill_many


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="of the points in process")
    parser.add_argument("--kills", type=int, default=50, help="of a real process")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    points, found = faults(given.seeds)
    print(f"points in process   {points:8}  faults {len(found)}")
    with tempfile.TemporaryDirectory() as directory:
        tally = kill_many(Path(directory), given.kills, seed=1)
    print(f"kills of a process  {tally.kills:8}  faults {len(tally.faults)}")
    print(f"stops of a monitor  {tally.stops:8}")
    print(f"rows delivered      {tally.rows:8}  frames that came again {tally.copies}")
    for fault in [*found, *tally.faults][:20]:
        print(fault)
    return 1 if found or tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
