"""Rollout files mutated, torn, half-written, binary, huge and deep, while somebody reads what is in force.

`python -m loadtests.fuzz_rollouts [COUNT [SEED]]` writes COUNT such files, one after the other, and checks
after each that what is in force is the last good version of every file, whole and never mixed, and that what
is said of a bad file names the file and a line.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config.rollout_directory import RolloutDirectory
from gateway.config.rollout_file import MAX_ROLLOUT_BYTES, content_hash, parse_rollout
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.rollout_set import RolloutFiles

_FILES: Final = 6
_SETTLE_S: Final = 0.002
_SEED_TEXT: Final = """\
apiVersion: gateway/v1
kind: Rollout
name: {name}
model: {name}
targets: {{stable: 1, canary: "@challenger"}}
assign:
  key: [{{header: x-user-id}}, {{request_id: true}}]
steps:
- {{weight: {weight}%, min_bake: 10m, max_bake: 2h, gates: [safety]}}
- pause: 10m
- promote: {{keep_stable_warm: 1h}}
gates:
  safety:
  - srm: {{}}
  - errors: {{min_requests: 500, or_abs_below: 0.1%}}
freeze: [{{cron: "0 17 * * FRI", for: 63h, tz: UTC}}]
"""
_WORDS: Final = (
    *(b"&a", b"*a", b"!!python/object:os.system", b"<<: ", b"{", b"}", b"[", b"]", b": ", b"- ", b"? "),
    *(
        b"\t",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x00",
        b"\x85",
        b"\xe2\x80\xa8",
    ),
    *(b"|\n", b">\n", b"'", b'"', b"\\x", b"#", b"@", b"`", b"null", b"~", b".nan", b".inf", b"-1", b"1e400"),
    *(
        b"0x1f",
        b"0o7",
        b"9" * 5000,
        b"2026-13-45",
        b"2026-01-01T00:00:00Z",
        b"1_000",
        b"1:30",
        b"yes",
        b"on:",
    ),
    *(b"100%", b"0%", b"101%", b"1e9h", b"-5m", b"\r", b"\r\n", b"\xf0\x9f\x92\xa5"),
)
"""What text files stumble over, YAML's above all."""


class Broken(AssertionError):
    """Something that must hold did not."""


@dataclass(slots=True)
class Report:
    """What was done.

    Attributes:
        files: contents written.
        kinds: by the way they were made.
        refused: contents found wrong.
        reads: looks of the reader at what was in force, while files changed.
        slowest_s: longest time from a write until it was judged.
    """

    files: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    reads: int = 0
    slowest_s: float = 0.0


class Fuzzer:
    """One directory, its writer and what it knows to be right."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.report = Report()
        self._directory = directory
        self._random = random.Random(seed)
        self._rollouts = RolloutDirectory(directory, settle_s=_SETTLE_S)
        self._paths = [directory / f"{n}.yaml" for n in range(_FILES)]
        self._good: dict[Path, str] = {}
        """Path -> hash of its last valid content."""
        self._whole: set[tuple[str, str]] = set()
        """(path, hash) of every valid content that was written whole."""
        self._mutations: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._cut,
            self._drop,
            self._double,
            self._word,
            self._line,
            self._binary,
            self._huge,
            self._deep,
            self._as_it_is,
        )

    async def run(self, count: int) -> Report:
        """Write `count` contents and check after each; raises Broken."""
        for path in self._paths:
            self._put(path, self._valid(path))
        await self._settle()
        stop = asyncio.Event()
        reader = asyncio.ensure_future(self._read(stop))
        try:
            for _ in range(count):
                await self._one(self._random.choice(self._paths))
                if reader.done():
                    break
        finally:
            stop.set()
            await reader
        return self.report

    async def _one(self, path: Path) -> None:
        mutation = self._random.choice(self._mutations)
        content = mutation(self._valid(path))
        way = self._random.choice((self._replace, self._replace, self._half_first, self._away_first))
        self.report.kinds[mutation.__name__.strip("_")] += 1
        self.report.kinds[way.__name__.strip("_")] += 1
        self.report.files += 1
        started_s = time.perf_counter()
        await way(path, content)
        found = await self._settle()
        self.report.slowest_s = max(self.report.slowest_s, time.perf_counter() - started_s)
        self._check(path, content, found)

    async def _replace(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f".{path.name}")
        draft.write_bytes(content)
        draft.rename(path)
        self._note(path, content)

    async def _half_first(self, path: Path, content: bytes) -> None:
        """Write in two goes, with a look in between that finds the half."""
        half = self._random.randrange(len(content) + 1)
        with path.open("wb", buffering=0) as file:
            file.write(content[:half])
            await self._rollouts.look()
            self._note(path, content)
            file.write(content[half:])

    async def _away_first(self, path: Path, content: bytes) -> None:
        """Put something in the way that is no file; take it away again."""
        self._obstruct(path)
        await self._rollouts.look()
        self._clear(path)
        await self._rollouts.look()
        self._put(path, content)

    def _obstruct(self, path: Path) -> None:
        path.unlink()
        self._random.choice((path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("nowhere")))()

    def _clear(self, path: Path) -> None:
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()

    def _put(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self._note(path, content)

    def _note(self, path: Path, content: bytes) -> None:
        try:
            parse_rollout(content, str(path))
        except ConfigError:
            return
        self._whole.add((str(path), content_hash(content)))

    async def _settle(self) -> RolloutFiles:
        """Look until everything is judged."""
        deadline_s = time.monotonic() + 60
        while True:
            found = await self._rollouts.look()
            if not self._rollouts.unsettled:
                return found
            if time.monotonic() > deadline_s:
                raise Broken("not settled after a minute")

    async def _read(self, stop: asyncio.Event) -> None:
        """Read what is in force, over and over, as requests do."""
        while not stop.is_set():
            self._check_whole(self._rollouts.current)
            self.report.reads += 1
            await asyncio.sleep(0)

    def _check_whole(self, found: RolloutFiles) -> None:
        names = [file.name for file in found.specs]
        if len(set(names)) != len(names) or len(names) != len(self._paths):
            raise Broken(f"in force: {names}")
        for file in found.specs:
            if (file.path, file.hash) not in self._whole:
                raise Broken(f"{file.path}: in force is what never was there whole and valid")

    def _check(self, path: Path, content: bytes, found: RolloutFiles) -> None:
        self._check_whole(found)
        state = next(s for s in found.statuses if s.path == str(path))
        if state.error:
            self.report.refused += 1
            for line in state.error.splitlines():
                if not re.match(re.escape(str(path)) + r"(:\d+: |: \d+ more$)", line):
                    raise Broken(f"names no file and line: {line!r}\n{content!r}")
        elif state.active_hash != content_hash(content):
            raise Broken(f"neither refused nor in force: {content!r}")
        else:
            self._good[path] = state.active_hash
        if state.active_hash != self._good.setdefault(path, state.active_hash):
            raise Broken(f"{path}: in force is not the last good version")

    def _valid(self, path: Path) -> bytes:
        text = _SEED_TEXT.format(name=f"r{path.stem}", weight=self._random.randrange(1, 99))
        return text.encode()

    def _flip(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self._random.randrange(1, 4)):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, content: bytes) -> bytes:
        return content[: self._random.randrange(len(content))]

    def _drop(self, content: bytes) -> bytes:
        start = self._random.randrange(len(content))
        return content[:start] + content[start + self._random.randrange(1, 40) :]

    def _double(self, content: bytes) -> bytes:
        start, end = sorted(self._random.choices(range(len(content)), k=2))
        return content[:end] + content[start:end] + content[end:]

    def _word(self, content: bytes) -> bytes:
        start = self._random.randrange(len(content))
        return content[:start] + self._random.choice(_WORDS) + content[start + self._random.randrange(4) :]

    def _line(self, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        first, second = self._random.choices(range(len(lines)), k=2)
        lines[first], lines[second] = lines[second], lines[first]
        return b"".join(lines)

    def _binary(self, content: bytes) -> bytes:
        return self._random.randbytes(self._random.randrange(len(content)))

    def _huge(self, content: bytes) -> bytes:
        filler = self._random.choice((b"# filler\n", b"\x00", b"x: 1\n"))
        return content + filler * (MAX_ROLLOUT_BYTES // len(filler) + 1)

    def _deep(self, content: bytes) -> bytes:
        opening = self._random.choice((b"[", b"{a: ", b"- ", b"? ", b"{? "))
        return content + b"deep: " + opening * self._random.randrange(1, 3000)

    def _as_it_is(self, content: bytes) -> bytes:
        return content


async def fuzz_rollout_files(count: int, seed: int = 1) -> Report:
    """Write `count` mutated files into a directory that is followed, and check what is in force.

    Raises:
        Broken: what is in force was not the last good version, or a complaint names no file and line.
    """
    with tempfile.TemporaryDirectory() as directory:
        return await Fuzzer(Path(directory), seed).run(count)


def main() -> int:
    """Run from the command line."""
    given = [int(text) for text in sys.argv[1:3]]
    print(asyncio.run(fuzz_rollout_files(*given or [10_000])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
