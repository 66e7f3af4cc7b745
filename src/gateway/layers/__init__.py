"""The request stack: what every request passes before it reaches a model, one small service per concern."""
