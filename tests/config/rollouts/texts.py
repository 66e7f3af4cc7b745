"""Rollout files to start from."""

HEAD = "apiVersion: gateway/v1\nkind: Rollout\n"

ROLLOUT = """\
apiVersion: gateway/v1
kind: Rollout
name: line
model: m
targets:
  stable: 1
  canary: "@challenger"
steps:
- {weight: 5%, min_bake: 10m, max_bake: 2h, gates: [safety]}
- promote: {}
gates:
  safety:
  - errors: {}
"""

SPLIT = """\
apiVersion: gateway/v1
kind: Split
model: m
split: {1: 90, 2: 10}
shadow: {3: 20%}
"""


def rollout(name: str = "line", model: str = "m", weight: str = "5%") -> str:
    """Return a valid rollout."""
    text = ROLLOUT.replace("name: line", f"name: {name}").replace("model: m", f"model: {model}")
    return text.replace("5%", weight)
