"""Faults of an endpoint's models that a test switches on, by a file that the endpoint's environment names."""

import json
import os
import time
from pathlib import Path


class Faults:
    """Reads the file before every request: `{"error_share": 0.5, "delay_s": 0.5}`; without it there are none.

    Errors come evenly spread, not by chance: of 0.5, every second request fails.
    """

    def __init__(self) -> None:
        self._path = Path(os.environ["TRITON_TESTS_CONTROL"])
        self._debt = 0.0

    def meet(self) -> str:
        """Wait as long as the file says; return the error to answer with, empty for none."""
        try:
            said = json.loads(self._path.read_text())
        except FileNotFoundError:
            return ""
        if delay_s := said.get("delay_s", 0.0):
            time.sleep(delay_s)
        self._debt += said.get("error_share", 0.0)
        if self._debt < 1:
            return ""
        self._debt -= 1
        return "the test asked for this error at /srv/models/secret.py on 10.1.2.3:8001"
