"""Puts versions into the model repository that a fleet's servers share: whole, once, and never over others.

Beside a version `MODEL/3/` lies `MODEL/.3.sha256`, the digest of the content that has this number: made
first, by one gateway alone, and never changed; and `MODEL/.3.wanted-GATEWAY` for each gateway that wants it,
touched while it does. Triton looks at no file and no directory of such a name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from typing import TYPE_CHECKING, Final

from google.protobuf import text_format

from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

CONFIG_FILE: Final = "config.pbtxt"
CLAIM_S: Final = 300.0
"""A claim that was not renewed for so long is that of a gateway that has died; longer than clocks differ."""
_NAME: Final = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,127}")


class SharedRepository:
    """A model repository on a file system that this host and every endpoint of a fleet see. Blocking.

    A number leads to one content for ever: gateways that publish different content under one number are told
    so, whoever is first has it. Several may publish the same at once.

    Args:
        root: its directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, model: str, number: int, directory: Path, digest: str) -> None:
        """Put the files of a version there; nothing happens if they are there already.

        Args:
            model: its name on Triton.
            number: its number there.
            directory: the files; links are followed only to regular files.
            digest: of their content.

        Raises:
            ModelLoadError: the number has other content, or the name is none that Triton would take; from an
                OSError where the file system was in the way.
        """
        if not _NAME.fullmatch(model):
            raise ModelLoadError(f"'{model}' cannot be the name of a model in a repository")
        try:
            (self._root / model).mkdir(parents=True, exist_ok=True)
            self._reserve(model, number, digest)
            if not (self._root / model / str(number)).exists():
                self._bring(model, number, directory)
        except OSError as error:
            raise ModelLoadError(f"publishing version {number}: {error.strerror}") from error

    def configure(self, model: str, config: Message) -> None:
        """Write the model's config.pbtxt, unless it has one.

        Raises:
            ModelLoadError: from the OSError that was in the way.
        """
        file = self._root / model / CONFIG_FILE
        if file.exists():
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _place(file, text_format.MessageToString(config))
        except OSError as error:
            raise ModelLoadError(f"publishing {CONFIG_FILE}: {error.strerror}") from error

    def configuration(self, model: str) -> str:
        """Return the text of the model's config.pbtxt; empty when it has none.

        Raises:
            ModelLoadError: from the OSError that was in the way, or it is no text.
        """
        try:
            return (self._root / model / CONFIG_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"{CONFIG_FILE} in the fleet's repository cannot be read") from error

    def claim(self, model: str, number: int, owner: str) -> None:
        """Say, and say again, that a gateway wants a published version.

        Raises:
            OSError: the file system was in the way.
        """
        self._claim(model, number, owner).touch()

    def release(self, model: str, number: int, owner: str) -> None:
        """Say that it does not want it any more; harmless when it never did. Raises as `claim`."""
        self._claim(model, number, owner).unlink(missing_ok=True)

    def is_claimed(self, model: str, number: int, *, beside: str) -> bool:
        """Whether a gateway other than `beside` wants a version; one that has died does not.

        Raises:
            OSError: as `claim`.
        """
        oldest_s = time.time() - CLAIM_S
        own = self._claim(model, number, beside)
        others = [claim for claim in own.parent.glob(f".{number}.wanted-*") if claim != own]
        return any(_changed_s(claim) >= oldest_s for claim in others)

    def _claim(self, model: str, number: int, owner: str) -> Path:
        return self._root / model / f".{number}.wanted-{owner}"

    def _reserve(self, model: str, number: int, digest: str) -> None:
        """Bind a number to a content; whoever is first decides."""
        file = self._root / model / f".{number}.sha256"
        if not file.exists():
            if (self._root / model / str(number)).exists():
                raise ModelLoadError(
                    f"the fleet's repository has a version {number} that no gateway has published: it stays "
                    "as it is. Give the model another name on Triton"
                )
            _place(file, f"{digest}\n")
        if (found := file.read_text(encoding="ascii").strip()) != digest:
            raise ModelLoadError(
                f"the fleet's repository has other content under version {number} (digest {found[:12]}, this "
                f"one's is {digest[:12]}): a number is never published twice"
            )

    def _bring(self, model: str, number: int, directory: Path) -> None:
        """Copy the files beside, then rename them into their place: they are there whole or not at all."""
        place = self._root / model / str(number)
        copy = place.with_name(f".incoming-{uuid.uuid4().hex}")
        try:
            _copy(directory, copy)
            copy.rename(place)
        except OSError:
            # Another gateway may have been faster, with the same content: what is there is not replaced.
            if not place.is_dir():
                raise
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _changed_s(file: Path) -> float:
    """Return when a file was last touched; 0 of one that is gone by now."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _place(file: Path, text: str) -> None:
    """Make a file with its whole content, unless there is one by now."""
    written = file.with_name(f".incoming-{uuid.uuid4().hex}")
    written.write_text(text, encoding="utf-8")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(written, file)  # unlike a rename it never replaces
    finally:
        written.unlink()


def _copy(source: Path, target: Path) -> None:
    """Copy a directory of regular files, readable by whoever runs Triton; flushed to the disk."""
    target.mkdir()
    for entry in sorted(source.iterdir()):
        copied = target / entry.name
        if entry.is_dir() and not entry.is_symlink():
            _copy(entry, copied)
        elif entry.is_file():
            with entry.open("rb") as read, copied.open("xb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
                write.flush()
                os.fsync(write.fileno())
