"""Fleets of remote model servers: where a request goes, and what is done when it fails there."""
