"""Threads that tell receivers: one each, so that one that hangs delays nobody else."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.monitor.alerts.posting import PostFailed, post, signed_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.monitor.alerts.message import Notice

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 256
"""Notices that wait for one webhook; the oldest goes first."""
PAUSES_S: Final = (1.0, 5.0, 25.0, 60.0, 300.0, 600.0)
"""Between attempts at one notice; then it is given up."""
_CLOSE_S: Final = 2.0


class WebhookSender:
    """Delivers notices in order, each until it is taken, refused for good, or tried often enough.

    Safe from any thread but for `start` and `close`.

    Args:
        url: posted to.
        secret: that deliveries are signed with; empty: not signed.
        pauses_s: between attempts.
        wall_s: wall clock, for signatures.

    Attributes:
        sent: notices taken.
        failed: notices given up.
    """

    def __init__(
        self,
        url: str,
        secret: bytes = b"",
        pauses_s: Sequence[float] = PAUSES_S,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self.sent = 0
        self.failed = 0
        self._secret = secret
        self._pauses_s = tuple(pauses_s)
        self._wall_s = wall_s
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Notice] = OrderedDict()
        self._settled: list[str] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"tell {url}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def offer(self, notice: Notice) -> None:
        """Put a notice in line; never blocks. A full line loses its oldest, counted as failed."""
        with self._changed:
            self._waiting[notice.id] = notice
            if len(self._waiting) > MAX_WAITING:
                self._settle(next(iter(self._waiting)), taken=False)
            self._changed.notify_all()

    def settled(self) -> list[str]:
        """Return, once, the ids of notices that are over, delivered or given up."""
        with self._changed:
            settled, self._settled = self._settled, []
            return settled

    @property
    def waiting(self) -> int:
        """Notices in line."""
        with self._changed:
            return len(self._waiting)

    def close(self) -> None:
        """Stop; what is in line stays in whatever record its owner keeps. Waits for an attempt, shortly."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _settle(self, notice_id: str, *, taken: bool) -> None:
        if self._waiting.pop(notice_id, None) is not None:
            self._settled.append(notice_id)
            self.sent += taken
            self.failed += not taken
            self._changed.notify_all()

    def _run(self) -> None:
        while (notice := self._next()) is not None:
            taken = self._deliver(notice)
            with self._changed:
                if self._closing and not taken:
                    return
                self._settle(notice.id, taken=taken)

    def _next(self) -> Notice | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting)
            return None if self._closing else next(iter(self._waiting.values()))

    def _deliver(self, notice: Notice) -> bool:
        for pause_s in (*self._pauses_s, None):
            headers = signed_headers(self._secret, notice.id, int(self._wall_s()), notice.body)
            try:
                post(self.url, notice.body, headers)
            except PostFailed as exc:
                if exc.lasting or pause_s is None:
                    _log.error(
                        "alert was not delivered", extra={"receiver": notice.receiver, "error": str(exc)}
                    )
                    return False
                _log.warning(
                    "alert is sent again",
                    extra={"receiver": notice.receiver, "in_s": pause_s, "error": str(exc)},
                )
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing, pause_s):
                        return False
            else:
                return True
        return False


class AlertmanagerSender:
    """Sends an Alertmanager the alerts as they stand, on every change and every `resend_s`.

    It holds one set of alerts, the newest: whatever did not get through is in the next one. Thread-safe.

    Args:
        url: the server's, without the API's path.
        resend_s: between sendings without a change.

    Attributes:
        sent: posts taken.
        failed: posts that were not.
        error: of the last post; empty when it was taken.
    """

    def __init__(self, url: str, resend_s: float) -> None:
        self.url = url
        self.sent = 0
        self.failed = 0
        self.error = ""
        self._endpoint = f"{url.rstrip('/')}/api/v2/alerts"
        self._resend_s = resend_s
        self._changed = threading.Condition()
        self._make: Callable[[], list[dict[str, Any]]] | None = None
        self._identity: object = None
        self._fresh = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"tell {url}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, identity: object, make: Callable[[], list[dict[str, Any]]]) -> None:
        """Replace the set of alerts.

        Args:
            identity: compared with the last one: whether it has changed.
            make: returns the alerts as of the moment they are sent; called in another thread.
        """
        with self._changed:
            self._make = make
            if identity != self._identity:
                self._identity, self._fresh = identity, True
                self._changed.notify_all()

    def close(self) -> None:
        """Stop. Standing alerts end at Alertmanager's by themselves if nobody sends them again."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        pause_s = self._resend_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._fresh, pause_s)
                if self._closing:
                    return
                self._fresh, make = False, self._make
            alerts = make() if make else []
            taken = not alerts or self._post(alerts)
            pause_s = self._resend_s if taken else min(self._resend_s, 5.0)

    def _post(self, alerts: list[dict[str, Any]]) -> bool:
        try:
            post(self._endpoint, orjson.dumps(alerts), {})
        except PostFailed as exc:
            if not self.error:
                _log.warning("alertmanager takes no alerts", extra={"url": self.url, "error": str(exc)})
            self.error = str(exc)
            self.failed += 1
            return False
        self.error = ""
        self.sent += 1
        return True
