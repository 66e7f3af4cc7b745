"""Load tests and soaks: measure the gateway from outside, as `python -m loadtests.bench` or `.soak`."""
