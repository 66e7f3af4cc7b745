"""The replay engine: a process that sends wire bytes prepared beforehand, and times the answers."""
