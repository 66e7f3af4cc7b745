"""Canary and shadow rollouts: a pure controller, its gates, and the shells around them."""
