"""Panes: what a minute of a stream's rows came to, in sums that can be added up over any time and gateway."""
