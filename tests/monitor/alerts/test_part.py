"""Telling of alarms over real sockets, signatures, and what survives a crash."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.config.monitor_alerts import AlertSettings
from gateway.core.errors import ConfigError
from gateway.monitor.alerts.part import Alerts
from tests.monitor.alerts.alarms import T0, alarm
from tests.monitor.alerts.hooks import receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def alerts(database: sqlite3.Connection, **settings: Any) -> Iterator[Alerts]:
    """Lend a running part that tries again at once."""
    given = AlertSettings.model_validate({"group_wait": "0s", **settings})
    with closing(Alerts(given, pauses_s=(0.0,) * 5)) as part:
        part.create(database)
        part.restore(database)
        part.start()
        yield part


def until_settled(part: Alerts, name: str) -> None:
    """Wait until nothing is in line for a webhook."""
    sender = part.webhooks[name]
    with sender._changed:  # the condition that its own thread waits for
        assert sender._changed.wait_for(lambda: not sender._waiting, 30)


def test_a_delivery_is_signed_and_repeated_under_one_id(tmp_path: Path) -> None:
    """Two 503 and then success: three deliveries, one id, each with a signature that verifies."""
    key = b"0123456789abcdef"
    secret = tmp_path / "secret"
    secret.write_text(f"whsec_{base64.b64encode(key).decode()}\n")
    with receiver() as hook, closing(sqlite3.connect(":memory:")) as database:
        hook.statuses += [503, 429]
        webhook = {"name": "chat", "url": hook.url, "secret": {"file": str(secret)}}
        with alerts(database, webhooks=[webhook]) as part:
            part.observe([alarm()], T0)
            deliveries = [hook.next() for _ in range(3)]
    assert len({headers["webhook-id"] for headers, _ in deliveries}) == 1
    for headers, body in deliveries:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert orjson.loads(body)["alarms"][0]["subject"] == "income"


def test_a_refusal_for_good_is_not_repeated() -> None:
    """400 is counted as failed at once; the next notice is delivered."""
    with receiver() as hook, closing(sqlite3.connect(":memory:")) as database:
        hook.statuses.append(400)
        with alerts(database, webhooks=[{"name": "chat", "url": hook.url}]) as part:
            part.observe([alarm()], T0)
            part.observe([alarm(), alarm("age", kind="quality")], T0 + 1)
            subjects = [orjson.loads(hook.next()[1])["alarms"][0]["subject"] for _ in range(2)]
            until_settled(part, "chat")
            assert (part.webhooks["chat"].sent, part.webhooks["chat"].failed) == (1, 1)
    assert subjects == ["income", "age"]


def test_what_was_not_delivered_is_after_a_crash() -> None:
    """The checkpoint has it in line, with its id; what was told before is not told again."""
    missing = alarm("age", kind="quality")
    with receiver() as hook, closing(sqlite3.connect(":memory:")) as database:
        webhook = {"name": "chat", "url": hook.url}
        with alerts(database, webhooks=[webhook]) as part:
            part.observe([alarm()], T0)
            first = hook.next()[0]["webhook-id"]
            until_settled(part, "chat")
            part.observe([alarm()], T0 + 1)
            part.flush(database)
            crashed = Alerts(part._settings)  # never started: it delivers nothing
            crashed.create(database)
            crashed.restore(database)
            crashed.observe([alarm(), missing], T0 + 2)
            crashed.flush(database)
        with alerts(database, webhooks=[webhook]) as part:
            headers, body = hook.next()
            part.observe([alarm(), missing], T0 + 3)
            until_settled(part, "chat")
            part.observe([replace(alarm(), cleared_s=T0 + 4), missing], T0 + 4)
            ended = orjson.loads(hook.next()[1])["alarms"]
            part.observe([missing], T0 + 5)
            until_settled(part, "chat")
            part.observe([missing], T0 + 6)
            part.flush(database)
            assert not database.execute("SELECT * FROM alerts_outbox").fetchall()
    assert headers["webhook-id"] != first
    assert [a["subject"] for a in orjson.loads(body)["alarms"]] == ["age"]
    assert [(a["event"], a["subject"]) for a in ended] == [("cleared", "income")]


def test_a_group_is_the_same_after_a_restart() -> None:
    """Neither is its page said again, nor do what joined it, or its end, become events of their own."""
    joined = alarm("age", at_s=T0 + 60)
    with receiver() as hook, closing(sqlite3.connect(":memory:")) as database:
        webhook = {"name": "chat", "url": hook.url}
        with alerts(database, webhooks=[webhook]) as part:
            part.observe([alarm()], T0)
            hook.next()
            until_settled(part, "chat")
            part.flush(database)
            part.observe([alarm(), joined], T0 + 60)
            part.flush(database)
            (before,) = part.book.groups
        with alerts(database, webhooks=[webhook]) as part:
            part.observe([joined], T0 + 120)
            (after,) = part.book.groups
            assert (after.id, after.opened_s) == (before.id, T0)
            part.observe([replace(joined, cleared_s=T0 + 180)], T0 + 180)
            (said,) = orjson.loads(hook.next()[1])["alarms"]
            assert (said["event"], said["subject"]) == ("cleared", "age")
            assert hook.came.empty()


def test_a_secret_that_cannot_be_read_is_said_at_the_start(tmp_path: Path) -> None:
    """With the file's name."""
    webhook = {"name": "chat", "url": "http://127.0.0.1:9/", "secret": {"file": str(tmp_path / "none")}}
    with pytest.raises(ConfigError, match="none"):
        Alerts(AlertSettings.model_validate({"webhooks": [webhook]}))
