"""What each verb of the command line does; `gateway.cli` only parses and calls."""
