"""The servers' side, run with the Python of a peer's venv, where this project is not installed."""
