"""The prediction log: batches that ran, sampled, redacted, encoded in columns and delivered, accounts kept.

The request path only appends a reference to a bounded ring (`tap`); all else happens in threads of the log's
own. `rows` and `wire` are shared with the monitor; `seams` says what a sink is.
"""
