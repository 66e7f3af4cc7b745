"""What can be wrong with the monitor's database."""

from gateway.core.errors import GatewayError


class StoreError(GatewayError):
    """The database cannot be used as asked; the message says what to do."""


class StoreInUse(StoreError):
    """Another monitor has it."""


class StoreUnavailable(StoreError):
    """It cannot be opened: directory, permissions, or a newer version wrote it."""
