"""Choosing the version that answers a request."""
