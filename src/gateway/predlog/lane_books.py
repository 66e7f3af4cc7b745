"""What became of a lane's rows: those of this process, and those that earlier ones left in its spool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from gateway.predlog.spool.spool import Rows

SPOOL_FULL: Final = "spool_full"
CORRUPT: Final = "corrupt"
CREDIT: Final = "credit"
SHUTDOWN: Final = "shutdown"
ENCODE_ERROR: Final = "encode_error"


class LaneAccounts(Protocol):
    """The producer's books of a lane; `accounts.Accounts.lane` gives one. Safe from any thread."""

    def applied(self, rows: int) -> None:
        """Count rows that the sink acknowledged as durable."""

    def dropped(self, reason: str, rows: int) -> None:
        """Count rows of frames that this lane could not keep."""


class LaneBooks:
    """Counts rows as they leave a lane, each once.

    For this process: put = own_applied + in memory + spooled + sum(own_dropped). For what earlier ones left:
    recovered = earlier_applied + earlier rows still spooled + sum(earlier_dropped).

    Attributes:
        put: rows of this process that the lane was given.
        own_applied: of those, acknowledged.
        own_dropped: of those, dropped, by reason.
        recovered: rows that were in the spool when it was opened.
        earlier_applied: of those, acknowledged.
        earlier_dropped: of those, dropped, by reason.
    """

    def __init__(self, epoch: int, accounts: LaneAccounts) -> None:
        self.put = 0
        self.own_applied = 0
        self.own_dropped: dict[str, int] = {}
        self.recovered = 0
        self.earlier_applied = 0
        self.earlier_dropped: dict[str, int] = {}
        self._epoch = epoch
        self._accounts = accounts

    def applied(self, epoch: int, rows: int) -> None:
        """Count rows that the sink acknowledged."""
        if epoch == self._epoch:
            self.own_applied += rows
            self._accounts.applied(rows)
        else:
            self.earlier_applied += rows

    def dropped(self, epoch: int, reason: str, rows: int) -> None:
        """Count rows of one frame that is not kept."""
        own = rows if epoch == self._epoch else 0
        self._drop(reason, rows - own, own)

    def dropped_from_spool(self, reason: str, rows: Rows) -> None:
        """Count rows that the spool lost."""
        self._drop(reason, rows.earlier, rows.own)

    def _drop(self, reason: str, earlier: int, own: int) -> None:
        if own:
            self.own_dropped[reason] = self.own_dropped.get(reason, 0) + own
            self._accounts.dropped(reason, own)
        if earlier:
            self.earlier_dropped[reason] = self.earlier_dropped.get(reason, 0) + earlier
