"""The section `prediction_log.sinks`, and the lanes that come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config.prediction_sinks import ProducerName, SinkSettings
from gateway.core.errors import ConfigError
from gateway.prediction_sinks import begin_producer, delivery_of
from gateway.predlog.accounts import Accounts
from gateway.predlog.spool.epochs import EPOCH_FILE
from tests.predlog.delivery.frames import frame
from tests.predlog.delivery.monitor_server import MonitorServer, unix_address

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"stream": {}}, "exactly one of socket, address"),
        ({"stream": {"socket": "/a", "address": "h:1"}}, "exactly one of socket, address"),
        ({"stream": {"address": "monitor.example:8011"}}, "needs tls"),
        ({"stream": {"address": "nowhere"}}, "pattern"),
        ({"stream": {"socket": "/a", "tls": {"ca_file": "/ca"}}}, "not for a socket"),
        (
            {"stream": {"address": "h:1", "tls": {"ca_file": "/ca", "key_file": "/k"}}},
            "both certificate_file and key_file",
        ),
        ({"parquet": {}}, "exactly one of directory, url"),
        ({"parquet": {"url": "ftp://x"}}, "pattern"),
        ({"nats": {"prefix": "a.*"}}, "pattern"),
        ({"cloudevents": {"url": "http://a:b@c/"}}, "credentials"),
        ({"spool": {"directory": "/a", "max_bytes": "1KiB"}}, "greater than or equal"),
        ({"kafka": {}}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused(section: dict[str, Any], fault: str) -> None:
    """Each with a sentence of its own."""
    with pytest.raises(ValidationError, match=fault):
        SinkSettings.model_validate(section)


def test_every_sink_has_its_lane(tmp_path: Path) -> None:
    """In a folder of the spool of its own."""
    settings = SinkSettings.model_validate(
        {
            "spool": {"directory": tmp_path / "spool", "max_age": "1h", "fsync": "always"},
            "stream": {"address": "localhost:8011"},
            "parquet": {"directory": tmp_path / "files"},
            "nats": {},
            "cloudevents": {"url": "http://127.0.0.1:1/"},
        }
    )
    producer = begin_producer("gw", settings, 5)
    assert begin_producer("gw", settings, 3).epoch == producer.epoch + 1
    assert (tmp_path / "spool" / EPOCH_FILE).exists()
    delivery = delivery_of(settings, producer, Accounts(), lambda ratio: None)
    assert delivery.names == ("stream", "parquet", "nats", "cloudevents")


def test_parquet_in_an_object_store(tmp_path: Path) -> None:
    """Secrets are read when the lanes are made."""
    secret = tmp_path / "secret"
    parquet: dict[str, Any] = {
        "url": "s3://bucket/log",
        "credentials": {"secret_access_key": {"file": secret}},
    }
    settings = SinkSettings.model_validate({"parquet": {**parquet, "settings": {"region": "eu-1"}}})
    producer = begin_producer("gw", settings, 5)
    with pytest.raises(ConfigError, match="cannot be read"):
        delivery_of(settings, producer, Accounts(), lambda ratio: None)
    secret.write_text("s3cret")
    with pytest.raises(ConfigError, match="AccessKeyId"):
        delivery_of(settings, producer, Accounts(), lambda ratio: None)
    parquet["settings"] = {"region": "eu-1", "access_key_id": "key"}
    settings = SinkSettings.model_validate({"parquet": parquet})
    assert delivery_of(settings, producer, Accounts(), lambda ratio: None).names == ("parquet",)


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    """Are told with the file's name."""
    settings = SinkSettings.model_validate({"nats": {"ca_file": tmp_path / "none.pem"}})
    with pytest.raises(ConfigError, match=r"none\.pem"):
        delivery_of(settings, begin_producer("gw", settings, 5), Accounts(), lambda ratio: None)


def test_frames_reach_a_monitor(tmp_path: Path) -> None:
    """From the section to the other end of the socket, and nothing is left in the spool."""
    monitor = MonitorServer(unix_address(tmp_path))
    monitor.start()
    settings = SinkSettings.model_validate(
        {"spool": {"directory": tmp_path / "spool"}, "stream": {"socket": tmp_path / "m.sock"}}
    )
    producer = begin_producer("gw", settings, 5)
    delivery = delivery_of(settings, producer, Accounts(), lambda ratio: None)
    delivery.start()
    for sequence in range(1, 11):
        delivery.put(frame(sequence, epoch=producer.epoch))
    delivery.close(20.0)
    monitor.stop()
    assert monitor.rows == {(5, s): 2 for s in range(1, 11)}
    (status,) = delivery.status()
    assert status.applied == status.put == 20


@pytest.mark.parametrize("name", ["gäteway", "門", "a\nb", "x" * 129])
def test_a_producers_name_fits_a_header(name: str) -> None:
    """It is sent as one by the stream and by NATS."""
    names = TypeAdapter(ProducerName)
    assert names.validate_python("gateway 1.eu-west/a") == "gateway 1.eu-west/a"
    with pytest.raises(ValidationError, match=r"printable ASCII|at most 128"):
        names.validate_python(name)
