"""Trace and log settings kept in memory."""

from __future__ import annotations

import pytest

from gateway.api.server_metadata import installed_metadata
from gateway.api.settings import InMemoryLogSettings, InMemoryTraceSettings, LogValues, TraceValues
from gateway.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("trace_level", ("TENSORS",)),
        ("trace_level", ("OFF", "TIMESTAMPS")),
        ("trace_rate", ("0",)),
        ("trace_rate", ("fast",)),
        ("trace_rate", ("1", "2")),
        ("trace_rate", ("",)),
        ("trace_count", ("-2",)),
        ("trace_count", ("9" * 5000,)),
        ("log_frequency", ("-1",)),
        ("log_frequency", ("\u0663",)),
        ("trace_file", ("x",)),
    ],
)
def test_trace_settings_refuse(name: str, values: tuple[str, ...]) -> None:
    """A value that a trace setting can't take, or an unknown name, is refused by name and changes nothing."""
    settings = InMemoryTraceSettings()
    before = settings.get()
    with pytest.raises(InvalidRequest, match=name):
        settings.update({"trace_rate": ("7",), name: values} if name != "trace_rate" else {name: values})
    assert settings.get() == before


def test_trace_settings_of_a_model_shadow_the_servers() -> None:
    """A model's own setting holds until it is put back, and then the server's present one is in force."""
    settings = InMemoryTraceSettings({"trace_rate": ("50",)})
    settings.update({"trace_rate": ("5",)}, "m")
    settings.update({"trace_rate": ("70",), "trace_level": ("TIMESTAMPS",)})
    assert settings.get("m")["trace_rate"] == ("5",)
    assert settings.get("m")["trace_level"] == ("TIMESTAMPS",)
    assert settings.update({"trace_rate": ()}, "m")["trace_rate"] == ("70",)
    assert settings.update({"trace_rate": ()})["trace_rate"] == ("50",)


def test_trace_settings_tell_of_changes() -> None:
    """The listener hears the model and all its settings after each change, and nothing of a refused one."""
    heard: list[tuple[str, TraceValues]] = []
    settings = InMemoryTraceSettings(on_change=lambda model, values: heard.append((model, values)))
    settings.update({"trace_count": ("3",)}, "m")
    with pytest.raises(InvalidRequest):
        settings.update({"nonsense": ("1",)})
    assert heard == [("m", settings.get("m"))]


def test_trace_settings_of_models_that_are_gone_are_dropped() -> None:
    """Models that come and go leave nothing behind, and the listener hears that they have no settings."""
    there = {"a", "b"}
    heard: list[tuple[str, TraceValues]] = []
    settings = InMemoryTraceSettings(
        on_change=lambda model, values: heard.append((model, values)), exists=there.__contains__
    )
    settings.update({"trace_count": ("3",)}, "a")
    settings.update({"trace_count": ("4",)}, "b")
    there.remove("a")
    settings.update({"trace_count": ("5",)}, "b")
    assert heard[-2:] == [("a", {}), ("b", settings.get("b"))]
    assert settings.get("a") == settings.get()


def test_a_model_whose_settings_were_all_put_back_has_none_of_its_own() -> None:
    """The listener hears that the server's are in force again, and later changes of those are followed."""
    heard: list[tuple[str, TraceValues]] = []
    settings = InMemoryTraceSettings(on_change=lambda model, values: heard.append((model, values)))
    settings.update({"trace_rate": ("5",), "trace_count": ("1",)}, "m")
    settings.update({"trace_rate": ()}, "m")
    assert heard[-1] == ("m", settings.get("m"))
    assert settings.update({"trace_count": ()}, "m") == settings.get()
    assert heard[-1] == ("m", {})


@pytest.mark.parametrize(
    "changes",
    [
        {"log_verbose_level": -1},
        {"log_verbose_level": True},
        {"log_verbose_level": 1 << 32},
        {"log_verbose_level": "1"},
        {"log_info": 1},
        {"log_error": "true"},
        {"log_file": "x"},
    ],
)
def test_log_settings_refuse(changes: LogValues) -> None:
    """A value that a log setting can't take, or an unknown name, is refused by name and changes nothing."""
    settings = InMemoryLogSettings()
    before = settings.get()
    with pytest.raises(InvalidRequest, match=next(iter(changes))):
        settings.update({"log_warning": False, **changes})
    assert settings.get() == before


def test_log_settings_change_and_tell() -> None:
    """A change is kept, returned and told to the listener."""
    heard: list[LogValues] = []
    settings = InMemoryLogSettings({"log_info": False}, heard.append)
    after = settings.update({"log_verbose_level": 2})
    assert after == {"log_info": False, "log_warning": True, "log_error": True, "log_verbose_level": 2}
    assert heard == [after]
    assert settings.get() == after


def test_installed_metadata_names_what_is_implemented() -> None:
    """The server calls itself by its distribution and claims neither sequences nor shared memory."""
    metadata = installed_metadata()
    assert metadata.name == "model-gateway"
    assert metadata.version
    assert "statistics" in metadata.extensions
    assert not any("memory" in name or name == "sequence" for name in metadata.extensions)
