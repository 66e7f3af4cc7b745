"""The monitor: a second program that reads prediction logs and says whether the world has drifted.

One engine thread owns all state (`seams.Part`), changed by batches, minutes and labels; one SQLite
transaction makes it durable together with how far each producer's log was applied. Pages and verdicts are
read by the same thread.
"""
