"""The configuration of `gateway monitor`: the whole file."""

from pathlib import Path
from typing import Literal, Self

from pydantic import ByteSize, Field, ValidationError, model_validator

from gateway.config.complaints import complaints
from gateway.config.monitor_alerts import AlertSettings
from gateway.config.monitor_detect import ArmSettings, DetectSettings, ProfileSettings
from gateway.config.monitor_ingest import EngineSettings, IngestSettings, PanesSettings
from gateway.config.monitor_labels import LabelSettings, PerformanceSettings
from gateway.config.registry_settings import SecretSettings
from gateway.config.schema import LogSettings, anchored
from gateway.config.section import Section
from gateway.config.yaml_file import read_yaml
from gateway.core.errors import ConfigError

MIB = 1 << 20


class PagesSettings(Section):
    """The monitor's pages, its API and its metrics, by HTTP; without a token on loopback addresses alone."""

    host: str = "127.0.0.1"
    """Address to bind."""
    port: int = Field(8010, ge=0, le=65535)
    """TCP port; 0 picks a free one."""
    token: SecretSettings | None = None
    """Who asks must send it, as bearer token or as the password of any user. Unset: nobody must."""
    hosts: tuple[str, ...] = Field((), max_length=64)
    """Names by which browsers reach the pages without a token, beside addresses and `localhost`."""
    range: Literal["", "1h", "6h", "1d", "7d", "30d", "90d"] = ""
    """Period that pages show at first; empty: what suits each page."""
    max_body: ByteSize = Field(ByteSize(8 * MIB), gt=0)
    """Largest body taken."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.host not in {"127.0.0.1", "::1", "localhost"} and self.token is None:
            raise ValueError(f"pages on {self.host} need a token: only a loopback address may go without")
        return self


class MonitorConfig(Section):
    """The whole file."""

    data: Path
    """Directory of the database and learned profiles, for one process alone; made if it is not there."""
    pages: PagesSettings = PagesSettings()
    """Pages, API and metrics."""
    ingest: IngestSettings = IngestSettings()
    """Where frames come from; unset: the Unix socket `log.sock` in `data`."""
    engine: EngineSettings = EngineSettings()
    """How state is kept."""
    panes: PanesSettings = PanesSettings()
    """Sums over rows."""
    profiles: ProfileSettings = ProfileSettings()
    """What windows are compared with."""
    detection: DetectSettings = DetectSettings()
    """When a difference is called drift."""
    arms: ArmSettings = ArmSettings()
    """When a candidate is said to be as good as its baseline."""
    labels: LabelSettings = LabelSettings()
    """Ground truth."""
    performance: PerformanceSettings = PerformanceSettings()
    """When a model is said to be worse than it was."""
    alerts: AlertSettings = AlertSettings()
    """Who is told."""
    subject_key: SecretSettings | None = None
    """Key that subjects are hashed with, as the gateways' `prediction_log` has it; without it no subject's
    records can be erased by name."""
    log: LogSettings = LogSettings()
    """Logs on standard error."""

    @property
    def database(self) -> Path:
        """File of the database."""
        return self.data / "monitor.sqlite"

    def effective_ingest(self) -> IngestSettings:
        """Return where frames come from, the default socket among it."""
        ingest = self.ingest
        if ingest.socket is None and not ingest.listen and ingest.nats is None:
            return ingest.model_copy(update={"socket": self.data / "log.sock"})
        return ingest

    def effective_profiles(self) -> ProfileSettings:
        """Return where profiles come from; learned ones are kept in `data` unless the file says otherwise."""
        if self.profiles.learned is not None:
            return self.profiles
        return self.profiles.model_copy(update={"learned": self.data / "profiles"})


def load_monitor_config(path: Path) -> MonitorConfig:
    """Read and check a configuration file; relative paths in it become relative to its directory.

    Raises:
        ConfigError: every complaint, one per line, as `file:line: key: what is wrong`.
    """
    file = read_yaml(path)
    try:
        config = MonitorConfig.model_validate(file.data)
    except ValidationError as exc:
        raise ConfigError("\n".join(complaints(exc, file, MonitorConfig))) from exc
    return anchored(config, path.absolute().parent)
