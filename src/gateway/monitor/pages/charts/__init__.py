"""Charts: functions from what the view gives and a palette to a Bokeh figure.

Every data source has a name and every chart of one key the same sources in the same order, so that a page in
a browser takes new data into the charts that it has.
"""
