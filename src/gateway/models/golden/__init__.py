"""Golden tests: inputs that a model version brings, and the answers it must give before it serves."""
