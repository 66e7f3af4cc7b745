"""Says what an object store's failure means, and what a person can do. Pure.

obstore's exceptions carry what happened in their text alone, beside URLs that may be signed: nothing of the
text is passed on but status codes and the store's own short error codes.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.core.registry import RegistryError
from gateway.registry.stored_versions import printable

_STATUS: Final = re.compile(r"status code: ([1-5][0-9]{2})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_BAD_PATH: Final = re.compile(r'[Pp]ath "(.*?)"[: ]', re.DOTALL)
_METADATA_SERVERS: Final = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
_NO_STORE: Final = frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"})
_NO_ACCESS: Final = frozenset({401, 403})
_BUSY: Final = frozenset({429, 503})
_NOT_FOUND: Final = 404
_CHANGED: Final = frozenset({412, 416})
_CANNOT_LIST: Final = frozenset({405, 501})
_SERVER_ERROR: Final = 500

_CONNECTION: Final = (
    (
        "BadScheme",
        "is plain http: allow it in the registry's settings, or name an https endpoint",
    ),
    ("ConnectionRefused", "refuses connections: is it running, and is the port right?"),
    ("dns error", "has a host name that is not known"),
    ("ertificate", "has a TLS certificate that is not trusted: name its CA in the registry's settings"),
    ("InvalidContentType", "does not speak TLS: is the endpoint http instead of https?"),
    ("TimedOut", "does not answer in time"),
    ("Timeout", "does not answer in time"),
    ("HTTP error", "broke the connection"),
)
_NONSENSE: Final = (
    ("NoContentRange", "answers a request for a range wrongly"),
    ("UnexpectedRange", "answers a request for a range wrongly"),
    ("InvalidListResponse", "answers a listing with something else: is it an object store?"),
)


def store_fault(step: str, place: str, subject: str, error: BaseException) -> RegistryError:
    """Return what went wrong, as an error of `step`.

    Args:
        step: `resolve` or `fetch`.
        place: the store, for people: `s3://bucket/prefix at https://host`.
        subject: what was wanted, for people: `'fraud/3/model.onnx'`.
        error: what obstore raised.
    """
    text = str(error)
    why = _why(text, error)
    settled = "BadScheme" in text
    return RegistryError(step, f"{subject} cannot be read: {place} {why}", may_pass=not settled)


def is_without_ranges(error: BaseException) -> bool:
    """Whether a store answered a request for a range with the whole file."""
    return "NotPartial" in str(error)


def status_of(error: BaseException) -> int:
    """Return the HTTP status in obstore's text, 0 when there is none."""
    match = _STATUS.search(str(error))
    return int(match[1]) if match else 0


def _why(text: str, error: BaseException) -> str:
    if any(server in text for server in _METADATA_SERVERS):
        return (
            "needs credentials, and there are none: set them in the environment (AWS_ACCESS_KEY_ID, "
            "GOOGLE_APPLICATION_CREDENTIALS, ...) or in the registry's settings, or have it read anonymously"
        )
    if type(error).__name__ == "InvalidPathError" or isinstance(error, ValueError):
        bad = _BAD_PATH.search(text)
        name = f": '{printable(bad[1])}'" if bad else ""
        return f"holds a file whose name cannot be used{name}; delete it, or move the model"
    status = status_of(error)
    if status or isinstance(error, FileNotFoundError):
        code = _CODE.search(text)
        return _of_status(status or _NOT_FOUND, code[1] if code else "")
    for sign, why in (*_NONSENSE, *_CONNECTION):
        if sign in text:
            return why
    return f"failed ({type(error).__name__})"


def _of_status(status: int, code: str) -> str:
    said = f"{status} {code}".strip()
    if code in _NO_STORE:
        return f"has no such bucket or container ({said}): create it, or correct the URL"
    if status in _NO_ACCESS:
        return f"denies access ({said}): check the credentials, and their right to list and to read"
    if status in _BUSY:
        return f"is overloaded or limits requests ({said})"
    if status == _NOT_FOUND:
        return f"has no such thing ({said})"
    if status in _CHANGED:
        return f"has another file there by now ({said})"
    if status in _CANNOT_LIST:
        return f"cannot list files ({said}): over http a WebDAV server is needed"
    if status >= _SERVER_ERROR:
        return f"has a fault of its own ({said})"
    return f"answers unexpectedly ({said})"
