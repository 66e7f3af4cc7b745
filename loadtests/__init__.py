"""Load tests and soaks: what measures the gateway from outside, run as `python -m loadtests.bench` or `.soak`."""
