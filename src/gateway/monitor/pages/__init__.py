"""Pages and API of the monitor on port 8010, over the seam `view.MonitorView`."""
