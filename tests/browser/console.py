"""What browsers complain of in their consoles, of which a test expects some and no more."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from playwright.async_api import ConsoleMessage, Page

_PATIENCE_S: Final = 30.0


class Console:
    """The complaints of some pages: errors, warnings, what scripts threw and what dialogs said.

    They come when the browser gets to it, perhaps long after what caused them was seen on the page; so what
    is expected is declared, and looked at in the end.
    """

    def __init__(self) -> None:
        self._complaints: list[str] = []
        self._expected: tuple[str, ...] = ()

    def listen_to(self, page: Page) -> None:
        """Hear a page from now on."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        page.on("dialog", lambda dialog: self._complaints.append(dialog.message))

    def expects(self, *words: str) -> None:
        """There is to be at least one complaint, and each with any of these words."""
        self._expected = words

    async def assert_as_expected(self) -> None:
        """Wait for what is expected, while pages are open, and tell what is not."""
        hopeless_s = time.monotonic() + _PATIENCE_S
        while self._expected and not self._complaints:
            assert time.monotonic() < hopeless_s, f"nobody complained of {self._expected}"
            await asyncio.sleep(0.05)
        others = [text for text in self._complaints if not any(words in text for words in self._expected)]
        assert not others, others

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._complaints.append(message.text)
