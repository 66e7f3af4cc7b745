"""Arms: a candidate against its baseline on the same traffic."""
