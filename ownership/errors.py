"""The exceptions, as one tree. Every exception has a hint and the exit code that the command ends with.

```
OwnershipError(message, hint)        exit 2: usage or input refused
├── DataError                        images or labels cannot be used
├── ClaimError                       a claim cannot be built or read
│   └── ClaimIntegrityError          exit 6: a claim does not match its own digests
├── SuspectError                     a file cannot be loaded as an encoder
│   ├── UnsafeSuspectError           it would have to run code: refused, nothing ran
│   └── SuspectFailure               it was loaded, and crashed or hung when queried
├── SandboxError                     exit 4: a layer of the sandbox is missing that this file needs
├── TrainingError                    training or extraction cannot go on
└── ReportError                      a report cannot be written or read
    └── ReportIntegrityError         exit 6: a report or its signature does not verify, or is not reproduced
```

A negative finding is a result, not an exception; an exception means that nothing could be tested. The exit codes are
listed in docs/format.md.
"""

from __future__ import annotations


class OwnershipError(Exception):
    """An error that the user can act on.

    Args:
        message: One line that says what is wrong, with the name and the value.
        hint: One line that says what the user can do about it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(OwnershipError):
    """Images or labels cannot be used."""


class ClaimError(OwnershipError):
    """A claim cannot be built or read."""


class ClaimIntegrityError(ClaimError):
    """A claim does not match its own digests; no statistics are computed from it."""

    exit_code = 6


class SuspectError(OwnershipError):
    """A file cannot be loaded as an encoder, or does not fit the claim's probes."""


class UnsafeSuspectError(SuspectError):
    """Loading the file would have to run code that came with it: refused, nothing ran."""


class SuspectFailure(SuspectError):
    """A loaded suspect crashed, hung or used too much memory: a finding, so the audit is inconclusive."""


class SandboxError(OwnershipError):
    """A layer of the sandbox is missing, without which this kind of file is not opened."""

    exit_code = 4


class TrainingError(OwnershipError):
    """Training or extraction cannot start or go on."""


class ReportError(OwnershipError):
    """A report cannot be written or read."""


class ReportIntegrityError(ReportError):
    """A report, its HTML page or its signature does not verify, or its numbers are not reproduced."""

    exit_code = 6
