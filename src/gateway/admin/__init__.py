"""Administration: what operators ask, on a port of its own."""
