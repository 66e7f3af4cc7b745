"""Frames on the local disk while a sink is away or slow."""
