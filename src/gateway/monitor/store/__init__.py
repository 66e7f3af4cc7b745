"""The monitor's one database, and how far each producer's log is in it."""
