"""Check that a version's files are signed as a policy says, with OpenSSF model-signing. Blocking.

Beyond what the library checks, every file of the version except the signature itself must be in the signed
statement, with the SHA-256 that the gateway found: the library lets files pass that the signer chose to
ignore, and everything under `.git`.

What a signature does not say: which model or version it is for. One signer's older version, or another model
of theirs, passes as well when it is put in this one's place; pin a `digest` where that matters.

Method `sigstore` was exercised without the sigstore service: that bundles of other methods are refused, that
a trust root that cannot be fetched is said, and what follows a verification that the library let pass. No
bundle of the public service has been verified by the project's tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.registry import RegistryError
from gateway.registry.verification.bundle import SignedStatement, Unproven, read_bundle
from gateway.registry.verification.library import (
    LibraryVerifier,
    check_installed,
    check_readable,
    library_verifier,
    signer,
    unproven,
)
from gateway.registry.verification.plain_files import shown_path
from gateway.registry.verification.policy import SignaturePolicy, SignatureReport, check_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class SignatureVerifier:
    """Checks versions of one registry against its policy; safe to use from several threads at once.

    Args:
        policy: who must have signed.
        verifier: makes what verifies one bundle; the policy's method by default.

    Raises:
        ConfigError: a setting is missing, a key or certificate cannot be read, or the extra `signing` is not
            installed.
    """

    def __init__(
        self,
        policy: SignaturePolicy,
        verifier: Callable[[SignaturePolicy, SignedStatement], LibraryVerifier] = library_verifier,
    ) -> None:
        check_settings(policy)
        self._policy = policy
        self._verifier = verifier
        if policy.policy != "off":
            check_installed()
            check_readable(policy)

    def check(self, directory: Path, files: Mapping[str, str]) -> SignatureReport:
        """Check a version's files; takes about as long as hashing them.

        Keys, certificates and trust configuration are read anew each time, so that they can be replaced.

        Args:
            directory: holds the files and nothing else (see `check_plain_files`); only we write to it.
            files: path -> hex SHA-256 of its content as found on disk, the signature file included.

        Returns:
            What was found; `signed` is False only under the policies `warn` and `off`.

        Raises:
            RegistryError: step `verify`; the policy is `require` and the version does not count as signed.
        """
        if self._policy.policy == "off":
            return SignatureReport(signed=False, by="", detail="signatures are not checked")
        try:
            return self._checked(directory, files)
        except Unproven as problem:
            if self._policy.policy == "require":
                raise RegistryError("verify", str(problem), may_pass=problem.may_pass) from problem
            return SignatureReport(signed=False, by="", detail=str(problem))

    def _checked(self, directory: Path, files: Mapping[str, str]) -> SignatureReport:
        name = self._policy.signature_file
        if name not in files:
            raise Unproven(f"the version is not signed: it has no file '{name}'")
        signature = directory / name
        try:
            statement = read_bundle(signature)
            difference = _difference(statement, {p: d for p, d in files.items() if p != name})
            self._verify(directory, signature, statement, difference)
            by = signer(self._policy, statement)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Unproven(f"the signature cannot be checked: {reason}", may_pass=True) from error
        if difference:
            raise Unproven(difference)
        count = len(statement.files)
        detail = f"{count} file{'s' * (count != 1)} signed as {shown_path(statement.name)}"
        return SignatureReport(signed=True, by=by, detail=detail)

    def _verify(self, directory: Path, signature: Path, statement: SignedStatement, difference: str) -> None:
        """Have the library verify who signed, and the files once more.

        Raises:
            Unproven: it does not verify. `difference` is told where the signature is good and the files are
                not: who signed comes first, since a statement by nobody proves nothing about the files.
        """
        try:
            self._verifier(self._policy, statement).verify(directory, signature)
        except (OSError, Unproven):
            raise
        except MemoryError as error:
            raise Unproven("checking the signature takes more memory than there is", may_pass=True) from error
        except Exception as error:
            # Whatever the library stumbles over in a file from elsewhere, the file is not proven.
            if difference and str(error).startswith("Signature mismatch"):
                raise Unproven(difference) from error
            raise unproven(error, self._policy, directory) from error


def _difference(statement: SignedStatement, files: Mapping[str, str]) -> str:
    """Return how the files differ from the signed ones; empty when they do not."""
    signed = statement.files
    if extra := sorted(files.keys() - signed.keys()):
        return f"{_named(extra)} not covered by the signature: sign every file of the version"
    if missing := sorted(signed.keys() - files.keys()):
        return f"{_named(missing)} signed, but missing from the version"
    if changed := sorted(p for p, digest in signed.items() if digest and digest != files[p]):
        return f"{_named(changed)} not as signed: changed or damaged since"
    return ""


def _named(paths: list[str]) -> str:
    first = shown_path(paths[0])
    return f"{first} is" if len(paths) == 1 else f"{first} and {len(paths) - 1} more are"
