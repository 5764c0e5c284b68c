"""Disclosures: proof that single parts of a claim were sealed, without showing the rest of the claim.

A disclosure is one JSON file. It holds the signed statement, its timestamps, and for every disclosed part its salt, its
path to the signed Merkle root and, if wanted, its data. A verifier needs no other file of the claim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load

from ownership.attestation.keys import load_public_key
from ownership.attestation.merkle import SALT_BYTES, inclusion_path, leads_to, salted_leaf
from ownership.attestation.trust import StatementVerification, Trust
from ownership.claims.redaction import PRIVATE_PROBES
from ownership.claims.seal import Seal, leaf_hashes, open_statement, plan_sha256
from ownership.claims.storage import VerifiedFolder, open_folder
from ownership.encoders.images import image_bytes
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import base64_text, canonical_json, parse_canonical, sha256, unbase64, unhex
from ownership.io.checks import Check
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

FORMAT_VERSION = 1

PLAN = "plan"
FIELDS = {"format_version", PLAN, "statement", "public_key", "timestamps", "parts"}
GET_ORIGINAL = "get the original"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureVerification(StatementVerification):
    """The checks that a disclosure passed.

    Attributes:
        digest: Content digest of the sealed claim.
        plan: The claim's plan, if the disclosure shows it.
        parts: Name -> data of every disclosed part; None where the disclosure shows the digest only.
    """

    digest: str
    plan: Mapping[str, Any] | None
    parts: Mapping[str, bytes | None]


def disclose(folder: Path | str, names: Sequence[str], *, data: bool = False) -> bytes:
    """Return a disclosure of parts of a sealed claim.

    Args:
        folder: The claim's folder. The claim is verified first.
        names: Files of the claim ("key.json"), "private/I" for the private image of index I, or "plan" for the plan
            alone: the owner signed its digest, so claim.json, which would show more, is not needed.
        data: Whether to include the data of the parts; otherwise only their digests.

    Raises:
        ClaimError: If the claim is not sealed, has no such part, or is a redacted claim without it.
        ClaimIntegrityError: If the claim does not verify.
    """
    folder = Path(folder)
    verified = open_folder(folder)
    if verified.seal is None:
        raise ClaimError("this claim has no seal", "turnmark claim seal")
    digests, redacted = verified.leaf_digests(), verified.redaction.leaves
    leaves, order = leaf_hashes(digests, verified.salts, redacted), sorted({*digests, *redacted})
    parts: list[dict[str, Any]] = []
    for name in dict.fromkeys(n for n in names if n != PLAN):
        if name in redacted:
            raise ClaimError(f"{printable(name)} is redacted from this copy of the claim", "only its owner can show it")
        if name not in digests:
            raise ClaimError(
                f"this claim has no part {printable(name)!r}", f"one of: plan, {', '.join(order[:4])}, ..."
            )
        index = order.index(name)
        parts.append(
            {
                "name": name,
                "sha256": digests[name],
                "salt": verified.salts[name].hex(),
                "index": index,
                "path": [step.hex() for step in inclusion_path(leaves, index)],
                "data": base64_text(_data(verified, name)) if data else None,
            }
        )
    disclosure = canonical_json(
        {
            "format_version": FORMAT_VERSION,
            "plan": verified.content["plan"] if PLAN in names else None,
            "statement": verified.seal.envelope.decode(),
            "public_key": verified.seal.public_key.decode(),
            "timestamps": [base64_text(reply) for reply in verified.seal.replies.values()],
            "parts": parts,
        }
    )
    check_disclosure(disclosure)
    return disclosure


def check_disclosure(
    disclosure: bytes,
    *,
    public_key: Path | str | None = None,
    roots: Sequence[Certificate] = (),
    before: datetime | None = None,
) -> DisclosureVerification:
    """Verify a disclosure.

    Args:
        disclosure: Content of the file.
        public_key: File of the owner's public key, received from the owner. Without it, anyone may have sealed the
            claim.
        roots: Root certificates of timestamp authorities that the verifier trusts.
        before: The time that a trusted timestamp must precede.

    Returns:
        The checks that passed, with what the disclosure shows.

    Raises:
        ClaimIntegrityError: At the first check that fails.
        OwnershipError: If the public key cannot be read, or `before` is given without `roots`.
    """
    trust = Trust.given(public_key, roots, before)
    content = parse_canonical(disclosure, ClaimIntegrityError, "disclosure")
    if type(content.get("format_version")) is not int or content["format_version"] != FORMAT_VERSION:
        raise ClaimIntegrityError("disclosure of another format version, or of none", "update turnmark")
    if set(content) != FIELDS:
        raise ClaimIntegrityError("disclosure: a field is missing or malformed", GET_ORIGINAL)
    try:
        key = load_public_key(content["public_key"].encode(), ClaimIntegrityError, "disclosure: its public key")
        replies = {f"{i + 1}": unbase64(reply) for i, reply in enumerate(content["timestamps"])}
        seal = open_statement(content["statement"].encode(), key, replies)
        parts = [_Part.parse(value) for value in content["parts"]]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ClaimIntegrityError("disclosure: a field is missing or malformed", GET_ORIGINAL) from e
    if not parts and content[PLAN] is None:
        raise ClaimIntegrityError("disclosure: it shows nothing", GET_ORIGINAL)
    attested = trust.verify(seal)
    checks = [Check("claim", seal.claim_sha256), *attested.checks]
    if content[PLAN] is not None:
        if plan_sha256(content) != seal.plan_sha256:
            raise ClaimIntegrityError("disclosure: the plan is not the sealed one", GET_ORIGINAL)
        checks.append(Check("plan", f"sealed: {json.dumps(content[PLAN], sort_keys=True)}"))
    checks += [part.check(seal) for part in parts]
    return DisclosureVerification(
        checks=tuple(checks),
        signer=attested.signer,
        timestamps=attested.timestamps,
        digest=seal.claim_sha256,
        plan=content[PLAN],
        parts={part.name: part.data for part in parts},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A disclosed leaf of the Merkle tree, with its path to the root."""

    name: str
    digest: bytes
    salt: bytes
    index: int
    path: tuple[bytes, ...]
    data: bytes | None

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> _Part:
        """Return the part; raise KeyError, TypeError, ValueError or AttributeError if it is malformed."""
        name, index, data = value["name"], value["index"], value["data"]
        digest, salt = unhex(value["sha256"]), unhex(value["salt"])
        if not isinstance(name, str) or type(index) is not int:
            raise TypeError("a field of another type")
        if (len(digest), len(salt), len(value)) != (32, SALT_BYTES, 6):
            raise ValueError("malformed part")
        path = tuple(unhex(step) for step in value["path"])
        decoded = None if data is None else unbase64(data)
        return cls(name=name, digest=digest, salt=salt, index=index, path=path, data=decoded)

    def check(self, seal: Seal) -> Check:
        """Return the check that the part was sealed; raise ClaimIntegrityError if it was not."""
        shown = printable(self.name)
        if self.data is not None and sha256(self.data) != self.digest.hex():
            raise ClaimIntegrityError(f"disclosure: the data of {shown} does not match its digest", GET_ORIGINAL)
        leaf = salted_leaf(self.salt, self.name, self.digest)
        if not leads_to(leaf, self.index, seal.leaves, self.path, bytes.fromhex(seal.root)):
            raise ClaimIntegrityError(f"disclosure: {shown} was not sealed: its path leads elsewhere", GET_ORIGINAL)
        size = "digest only" if self.data is None else f"{len(self.data)} bytes"
        return Check("part", f"{shown}: sealed ({size}, SHA-256 {self.digest.hex()})")


def _data(verified: VerifiedFolder, name: str) -> bytes:
    kind, _, number = name.partition("/")
    if kind == "private":
        return image_bytes(load(verified.parts[PRIVATE_PROBES])["private"][int(number)])
    return verified.claim_json if name == "claim.json" else verified.parts[name]
