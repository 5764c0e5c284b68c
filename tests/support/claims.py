"""What the fixture `sealed` of the tests holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import Certificate
from support.tsa import Authority

from ownership.errors import OwnershipError
from ownership.io.files import read_json


@dataclass(frozen=True)
class Sealed:
    """A sealed claim, stamped by two authorities, and what its owner and its verifier hold. Never changed."""

    folder: Path
    key: Ed25519PrivateKey
    public: Path
    first: Authority
    second: Authority
    roots: tuple[Certificate, ...]
    later: datetime
    disclosure: bytes

    @property
    def content(self) -> dict[str, Any]:
        return read_json(self.folder / "claim.json", OwnershipError, "claim")
