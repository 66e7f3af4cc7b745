"""Sinks beside the stream to a monitor: each a module of its own, importing its library only there."""
