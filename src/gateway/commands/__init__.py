"""What each verb of the command line does; `gateway.cli` and the groups only parse and call."""
