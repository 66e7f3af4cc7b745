"""Breaks the books one by one, and looks whether a test notices.

I15 of the rollouts' design, nothing gets lost between log and counters: every request is counted once, and
every row that was offered is applied, in flight, spooled or dropped by reason. Run as
`python -m tests.predlog.mutants [WORD ...]`; it exits 1 if a mutant survives, or if a rule is no longer
written as this list has it.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.mutation import Mutant, survivors

LOG: Final = ("predlog/test_log.py",)
LANE: Final = tuple(
    f"predlog/delivery/{name}.py" for name in ("test_lane", "test_lane_log", "test_crash_points")
)
BATCHING: Final = ("batching",)

MUTANTS: Final = (
    Mutant(
        "I15 a refused batch is not dropped",
        "predlog/tap.py",
        '        self._accounts.dropped("shutdown" if self._closed else "ring_full", rows)\n',
        "        pass\n",
        LOG,
    ),
    Mutant(
        "I15 a refused batch is not produced",
        "predlog/tap.py",
        "        self._accounts.produced(version.model, version.number, arm_of(request), rows)\n",
        "",
        LOG,
    ),
    Mutant(
        "I15 rows of batches are not offered",
        "predlog/tap.py",
        "        self._accounts.offered(rows)\n        entry",
        "        entry",
        LOG,
    ),
    Mutant(
        "I15 copied rows are not offered",
        "predlog/tap.py",
        "                self._accounts.offered(rows)\n                return\n",
        "                return\n",
        LOG,
    ),
    Mutant(
        "I15 abandoned copies are not produced",
        "predlog/encoder.py",
        "                arms, counts = entry.arms, entry.offered().rows\n",
        "                arms, counts = [], []\n",
        LOG,
    ),
    Mutant(
        "I15 rejected requests are not offered",
        "predlog/tap.py",
        "        self._accounts.offered(1)\n",
        "",
        LOG,
    ),
    Mutant(
        "I15 a request counts twice",
        "batching/answers.py",
        "        if ticket.counted or ticket.error is None:\n            return\n",
        "        if ticket.error is None:\n            return\n",
        BATCHING,
    ),
    Mutant(
        "I15 a failure does not count",
        "batching/answers.py",
        "        self._statistics.fail.add(int((now_s - ticket.enqueued_s) * 1e9))\n",
        "",
        BATCHING,
    ),
    Mutant(
        "I15 a run counts as one request",
        "batching/answers.py",
        "sum([now_s - job.ticket.enqueued_s for job in jobs]) * 1e9), count)",
        "sum([now_s - job.ticket.enqueued_s for job in jobs]) * 1e9), 1)",
        BATCHING,
    ),
    Mutant(
        "I15 sampled rows are not dropped",
        "predlog/encoder.py",
        '        self._accounts.dropped("sampled", picked.left_out)\n',
        "        pass\n",
        LOG,
    ),
    Mutant(
        "I15 redacted rows are not dropped",
        "predlog/encoder.py",
        '            self._accounts.dropped("redaction", left)\n',
        "            pass\n",
        LOG,
    ),
    Mutant(
        "I15 a frame without room is not dropped",
        "predlog/lane.py",
        "                self._books.dropped(frame.epoch, SHUTDOWN if closed else no_room, frame.rows)\n",
        "                pass\n",
        LANE,
    ),
    Mutant(
        "I15 expired frames are not dropped",
        "predlog/lane_log.py",
        "            self._books.dropped(frame.epoch, reason, frame.rows)\n",
        "            pass\n",
        LANE,
    ),
)

if __name__ == "__main__":
    sys.exit(survivors(MUTANTS, "", "", sys.argv[1:]) > 0)
