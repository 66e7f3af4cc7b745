"""Write documents and audit records for ever, telling of each one that is done: `writing.py DIRECTORY`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.core.state import AuditEntry
from gateway.state import AuditChain, AuditOptions, JournalOptions, JournalStore


async def write(directory: Path) -> None:
    """Print the revision after each write, and the number after each record."""
    options = AuditOptions(max_file_bytes=2_000)
    async with (
        JournalStore(directory, JournalOptions(compact_bytes=1_000)) as store,
        AuditChain(directory / "audit", options) as chain,
    ):
        document = await store.read("a")
        revision = document.revision if document is not None else 0
        while True:
            revision = (await store.write("a", {"next": revision + 1}, revision)).revision
            print("document", revision, flush=True)  # noqa: T201 - its output
            entry = AuditEntry(kind="transition", what="advance", who="test", detail={"revision": revision})
            print("record", (await chain.append(entry)).seq, flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
