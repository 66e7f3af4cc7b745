"""Detection: windows against the reference, and the alarms that follow."""
