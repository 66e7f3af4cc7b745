"""Metrics, traces and logs: what operators see; alone knows Prometheus, OpenTelemetry and structlog."""
