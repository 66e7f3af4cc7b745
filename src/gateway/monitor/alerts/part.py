"""The part of the monitor that tells of alarms; what was told survives its restart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from gateway.monitor.alerts.book import AlertBook
from gateway.monitor.alerts.message import RETRAINING, Notice, alertmanager_alert
from gateway.monitor.alerts.posting import signing_key
from gateway.monitor.alerts.sending import AlertmanagerSender, WebhookSender
from gateway.monitor.alerts.silence import concerns, silenced

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

    from gateway.config.monitor_alerts import AlertmanagerSettings, AlertSettings
    from gateway.monitor.alerts.groups import Group
    from gateway.monitor.values import Alarm, Applied

ENDED_S: Final = 900.0
"""Ended alarms are sent to Alertmanager for so long, should it have been away."""
_RESENDS: Final = 4
"""Resends that may fail before Alertmanager takes an alert for over."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS alerts_told (
    receiver TEXT, alarm TEXT, event TEXT NOT NULL, PRIMARY KEY (receiver, alarm)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts_last (
    receiver TEXT, topic TEXT, at_s REAL NOT NULL, PRIMARY KEY (receiver, topic)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts_groups (
    alarm TEXT PRIMARY KEY, name TEXT NOT NULL, opened_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts_outbox (
    receiver TEXT, id TEXT, body BLOB NOT NULL, at_s REAL NOT NULL, PRIMARY KEY (receiver, id)) WITHOUT ROWID;
"""


class Alerts:
    """Tells receivers of alarms. A `Part`: called on the engine's thread, which nothing here keeps waiting.

    A notice is delivered at least once: what was in line at a checkpoint is in line again after a crash, and
    its id tells the receiver of repetitions.

    Args:
        settings: who is told.
        pauses_s: between attempts at a webhook; None: the sender's own.
        wall_s: wall clock, seconds since the epoch, for what threads send.

    Raises:
        ConfigError: a secret cannot be read.
    """

    name = "alerts"

    def __init__(
        self,
        settings: AlertSettings,
        pauses_s: Sequence[float] | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.book = AlertBook(settings)
        self._settings = settings
        self._wall_s = wall_s
        hooks = [(hook.name, hook.url, hook.secret) for hook in settings.webhooks]
        if settings.retraining is not None:
            hooks.append((RETRAINING, settings.retraining.url, settings.retraining.secret))
        options = {} if pauses_s is None else {"pauses_s": pauses_s}
        self.webhooks = {
            name: WebhookSender(url, signing_key(secret), wall_s=wall_s, **options)
            for name, url, secret in hooks
        }
        self.alertmanagers = [
            (target, AlertmanagerSender(target.url, target.resend)) for target in settings.alertmanagers
        ]
        self._outbox: dict[tuple[str, str], Notice] = {}
        self._grouped = 0
        self._changed = False

    def start(self) -> None:
        """Begin to send; after `restore`."""
        for sender in self._senders():
            sender.start()

    def close(self) -> None:
        """Stop sending; what is in line stays in the outbox for the next start."""
        for sender in self._senders():
            sender.close()

    def _senders(self) -> Iterator[WebhookSender | AlertmanagerSender]:
        yield from self.webhooks.values()
        yield from (sender for _, sender in self.alertmanagers)

    def observe(self, alarms: Sequence[Alarm], now_s: float) -> None:
        """Take over how alarms stand, and hand what is due to the senders. Never blocks; call it each second.

        Args:
            alarms: those that stand, and those that ended within the last `ENDED_S`.
            now_s: wall clock, seconds since the epoch.
        """
        self.book.observe(alarms, now_s)
        for notice in self.book.due(now_s):
            self._outbox[notice.receiver, notice.id] = notice
            self.webhooks[notice.receiver].offer(notice)
            self._changed = True
        for receiver, sender in self.webhooks.items():
            for notice_id in sender.settled():
                self._outbox.pop((receiver, notice_id), None)
                self._changed = True
        if self._grouped != self.book.memberships.revision:
            self._grouped = self.book.memberships.revision
            self._changed = True
        for target, manager in self.alertmanagers:
            told = [
                group
                for group in self.book.groups
                if concerns(target.about, group.first) and self._is_current(group, now_s)
            ]
            manager.put(
                frozenset((group.id, group.cleared_s) for group in told), self._alerts_of(target, told)
            )

    def _is_current(self, group: Group, now_s: float) -> bool:
        if silenced(self._settings.silences, group.first, now_s):
            return False
        return group.cleared_s is None or now_s - group.cleared_s < ENDED_S

    def _alerts_of(
        self, target: AlertmanagerSettings, told: Sequence[Group]
    ) -> Callable[[], list[dict[str, Any]]]:
        def make() -> list[dict[str, Any]]:
            lasts_s = self._wall_s() + _RESENDS * target.resend
            return [alertmanager_alert(g, self._settings.pages_url, g.cleared_s or lasts_s) for g in told]

        return make

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables."""
        for statement in _TABLES.split(";"):
            if statement.strip():
                database.execute(statement)

    def restore(self, database: sqlite3.Connection) -> None:
        """Read what was told, and put what was not delivered in line again."""
        self.book.told = {(r, a): event for r, a, event in database.execute("SELECT * FROM alerts_told")}
        self.book.last_s = {(r, t): at for r, t, at in database.execute("SELECT * FROM alerts_last")}
        grouped = database.execute("SELECT * FROM alerts_groups")
        self.book.memberships.members = {alarm: (name, opened_s) for alarm, name, opened_s in grouped}
        rows = database.execute(
            "SELECT id, receiver, body, at_s FROM alerts_outbox ORDER BY at_s, id"
        ).fetchall()
        for notice in (Notice(*row) for row in rows):
            if sender := self.webhooks.get(notice.receiver):
                self._outbox[notice.receiver, notice.id] = notice
                sender.offer(notice)

    def apply(self, applied: Applied) -> None:
        """Take no notice of rows."""

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what was told and what is in line; little, so whole."""
        if not self._changed:
            return
        for table in ("told", "last", "groups", "outbox"):
            database.execute(f"DELETE FROM alerts_{table}")  # noqa: S608 - names of our own
        database.executemany(
            "INSERT INTO alerts_told VALUES (?, ?, ?)",
            [(*key, event) for key, event in self.book.told.items()],
        )
        database.executemany(
            "INSERT INTO alerts_last VALUES (?, ?, ?)",
            [(*key, at_s) for key, at_s in self.book.last_s.items()],
        )
        database.executemany(
            "INSERT INTO alerts_groups VALUES (?, ?, ?)",
            [(alarm, *place) for alarm, place in self.book.memberships.members.items()],
        )
        database.executemany(
            "INSERT INTO alerts_outbox VALUES (?, ?, ?, ?)",
            [(n.receiver, n.id, n.body, n.at_s) for n in self._outbox.values()],
        )
        self._changed = False

    def rolled_back(self) -> None:
        """Write it again: the transaction of the last flush failed."""
        self._changed = True

    def expire(self, database: sqlite3.Connection, now_s: float) -> None:
        """Keep nothing of its own to expire: the book forgets with the alarms."""

    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:  # noqa: ARG002
        """Delete nothing: alarms hold aggregates alone."""
        return 0
