"""What survives a restart: documents written by compare-and-set, and the audit chain.

Layout of a state directory, private (0700) to the user who runs the gateway:

    lock                        held by the one process that uses the documents; names its pid
    documents.journal           a line per write, each with its checksum; see `journal`
    audit/
        lock                    held by the one process that appends to the chain
        audit-000000000001.jsonl    a line per record, see `chain`; named by its first record

Both files grow by one line at a time, on the disk before the next begins. So after a crash at most the last
line is incomplete, and anything else that is wrong is damage, which is reported and never skipped.
"""

from gateway.state.audit import AuditChain, AuditOptions
from gateway.state.errors import OutcomeUnknown, StateDamaged
from gateway.state.journal import JournalOptions
from gateway.state.memory import MemoryStore
from gateway.state.store import JournalStore

__all__ = [
    "AuditChain",
    "AuditOptions",
    "JournalOptions",
    "JournalStore",
    "MemoryStore",
    "OutcomeUnknown",
    "StateDamaged",
]
