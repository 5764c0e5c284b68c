"""The seal of a claim: everything in it, committed to in one signed statement (docs/format.md).

```
claim/seal/
├── statement.dsse.json   in-toto statement, signed: the claim's digest, its plan's digest, the root of the Merkle tree
├── owner.pub             the public key it was signed with
├── salts.json            one salt for every leaf (secret): a leaf for every file and every private image
└── timestamps/*.tsr      what authorities answered; each file is named by its SHA-256
```

The claim's digest alone pins the claim. The tree adds that single parts can be shown to others, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safetensors import SafetensorError
from safetensors.torch import load

from ownership.attestation.keys import fingerprint, load_public_key
from ownership.attestation.merkle import SALT_BYTES, root_hash, salted_leaf
from ownership.attestation.statement import (
    ENVELOPE,
    UNTIMESTAMPED,
    SignedStatement,
    in_toto,
    is_sealed,
    open_in_toto,
    read_part,
    read_replies,
    timestamp_line,
)
from ownership.claims.redaction import Redaction, private_part
from ownership.encoders.images import images_sha256
from ownership.errors import ClaimError, ClaimIntegrityError, OwnershipError
from ownership.io.canonical import canonical_json, parse_canonical, parse_json, sha256, unhex
from ownership.io.files import read_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT_VERSION = 1
PREDICATE_TYPE = "https://turnmark.invalid/seal/v1"
PUBLIC_KEY = "owner.pub"

UNSEALED = "UNSEALED: nobody signed this claim; whoever can write to it can replace it whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(SignedStatement):
    """A claim's seal, its signature and tree checked."""

    error: ClassVar[type[OwnershipError]] = ClaimIntegrityError
    covers: ClassVar[str] = "claim and plan"
    signer: ClassVar[str] = "owner"
    secret: ClassVar[bool] = True

    claim_sha256: str
    plan_sha256: str
    root: str  # of the Merkle tree, hexadecimal
    leaves: int

    def to_dict(self) -> dict[str, Any]:
        """Returns what a report tells of it."""
        return {
            "root": self.root,
            "public_key_sha256": self.public_key_sha256,
            "timestamps": [
                {"authority": t.authority, "time": t.time.isoformat(), "trusted": t.trusted} for t in self.timestamps
            ],
        }


def statement(claim_sha256: str, plan_sha256: str, root: bytes, leaves: int) -> bytes:
    """Returns what is signed about a claim."""
    predicate = {
        "format_version": FORMAT_VERSION,
        "claim_sha256": claim_sha256,
        "plan_sha256": plan_sha256,
        "merkle_root": root.hex(),
        "leaves": leaves,
    }
    return in_toto({"claim": claim_sha256}, PREDICATE_TYPE, predicate)


def open_statement(envelope: bytes, key: Ed25519PublicKey) -> Seal:
    """Returns the seal in an envelope signed with `key`; its tree and timestamps are still unchecked.

    Raises:
        ClaimIntegrityError: if signature or statement are not what they should be.
    """

    def again(content: dict[str, Any]) -> bytes:
        predicate = content["predicate"]
        claim, plan, leaves = (predicate[k] for k in ("claim_sha256", "plan_sha256", "leaves"))
        if type(leaves) is not int or leaves < 1 or not isinstance(claim, str):
            raise TypeError("fields of another type")
        return statement(claim, plan, unhex(predicate["merkle_root"]), leaves)

    predicate = open_in_toto(envelope, key, PREDICATE_TYPE, again, ClaimIntegrityError)["predicate"]
    return Seal(
        claim_sha256=predicate["claim_sha256"],
        plan_sha256=str(predicate["plan_sha256"]),
        root=predicate["merkle_root"],
        leaves=predicate["leaves"],
        public_key_sha256=fingerprint(key),
        envelope=envelope,
    )


def open_seal(folder: Path, content: Mapping[str, Any]) -> Seal | None:
    """Returns the seal in a claim's folder, once its signature is good and it is of this claim; None if unsealed.

    Args:
        folder: the claim's.
        content: of claim.json, which matches its own digest; nothing else in it needs to be right yet.

    Raises:
        ClaimIntegrityError: if anything is wrong.
    """
    if not is_sealed(folder):
        return None
    public = read_part(folder, PUBLIC_KEY, ClaimIntegrityError)
    envelope = read_part(folder, ENVELOPE, ClaimIntegrityError)
    seal = open_statement(envelope, load_public_key(public, ClaimIntegrityError, "seal: owner.pub"))
    if content.get("content_sha256") != seal.claim_sha256:
        raise ClaimIntegrityError(
            f"seal: it is of another claim ({seal.claim_sha256[:16]}…), this one is {content['content_sha256'][:16]}…",
            "the claim was changed after it was sealed, or the seal is not its own",
        )
    if plan_sha256(content) != seal.plan_sha256:
        raise ClaimIntegrityError("seal: it is of another plan", "its owner signed a statement that is not true")
    return seal


def check_seal(folder: Path, seal: Seal, digests: Mapping[str, str], redaction: Mapping[str, bytes]) -> Seal:
    """Returns the seal with its timestamps, once the salts lead to its root and every timestamp covers it.

    Args:
        folder: the claim's.
        seal: from `open_seal`.
        digests: from `leaf_digests`, once the claim's parts were checked.
        redaction: leaves of what is not in the folder, by name.

    Raises:
        ClaimIntegrityError: if anything is wrong.
    """
    leaves = leaf_hashes(digests, read_salts(folder, digests), redaction)
    if len(leaves) != seal.leaves or root_hash(leaves).hex() != seal.root:
        raise ClaimIntegrityError("seal: the salts do not lead to the sealed root", "salts.json was changed")
    return replace(seal, replies=read_replies(folder, ClaimIntegrityError)).under(())


def leaf_digests(claim_json: bytes, parts: Mapping[str, Any], private: bytes | None) -> dict[str, str]:
    """Returns what the tree commits to: name -> SHA-256, for every file of a claim and every private image.

    Args:
        claim_json: the file's bytes.
        parts: its entries of the parts that are there.
        private: bytes of the part that holds the private images, whose digest was checked; None: withheld.
    """
    part = private_part(parts)
    try:
        images = () if private is None else load(private).get("private", ())
        digests = {f"private/{i}": images_sha256(image) for i, image in enumerate(images)}
    except (SafetensorError, ValueError, TypeError, RuntimeError) as e:
        raise ClaimIntegrityError(f"claim integrity: {part} cannot be read", "get the original") from e
    files = {name: str(entry["sha256"]) for name, entry in parts.items()}
    if not files.keys().isdisjoint(digests):
        raise ClaimIntegrityError("claim integrity: a file is named as a private image", "get the original")
    return {**digests, **files, "claim.json": sha256(claim_json)}


def read_digests(folder: Path, redaction: Redaction) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the content of claim.json, and `leaf_digests`, of a claim that was loaded, and so verified, just now."""
    claim_json = read_bytes(folder / "claim.json", ClaimError, "claim")
    content = parse_json(claim_json, ClaimError, "claim: claim.json")
    shown = {name: entry for name, entry in content["parts"].items() if name not in redaction.parts}
    part = private_part(content["parts"])
    private = None if part in redaction.parts else read_bytes(folder / part, ClaimError, "claim")
    return content, leaf_digests(claim_json, shown, private)


def leaf_hashes(
    digests: Mapping[str, str], salts: Mapping[str, bytes], redaction: Mapping[str, bytes] | None = None
) -> list[bytes]:
    """Returns the tree's leaves, in order of their names' code points; those withheld as they are given."""
    hashes = {name: salted_leaf(salts[name], name, bytes.fromhex(digest)) for name, digest in digests.items()}
    hashes |= redaction or {}
    return [hashes[name] for name in sorted(hashes)]


def salts_json(salts: Mapping[str, bytes]) -> bytes:
    """Returns the content of salts.json."""
    named = {name: salt.hex() for name, salt in salts.items()}
    return canonical_json({"format_version": FORMAT_VERSION, "salts": named})


def read_salts(folder: Path, names: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the salt of every leaf; raises ClaimIntegrityError unless there is one for each, and no other."""
    what = "seal: salts.json"
    content = parse_canonical(read_part(folder, "salts.json", ClaimIntegrityError), ClaimIntegrityError, what)
    if content.get("format_version") != FORMAT_VERSION or set(content) != {"format_version", "salts"}:
        raise ClaimIntegrityError(f"{what} is of another version", "update turnmark")
    salts = content["salts"]
    if not isinstance(salts, dict) or set(salts) != set(names):
        raise ClaimIntegrityError(f"{what} does not name what the claim holds", "it was changed, or is another claim's")
    try:
        decoded = {name: unhex(salt) for name, salt in salts.items()}
    except (TypeError, ValueError) as e:
        raise ClaimIntegrityError(f"{what} holds a malformed salt", "it was changed or damaged") from e
    if any(len(salt) != SALT_BYTES for salt in decoded.values()):
        raise ClaimIntegrityError(f"{what} holds a malformed salt", "it was changed or damaged")
    return decoded


def plan_sha256(content: Mapping[str, Any]) -> str:
    """Returns the digest of a claim's plan: SHA-256 of its canonical JSON."""
    return sha256(canonical_json(content.get("plan")))


def seal_lines(seal: Mapping[str, Any] | None) -> list[str]:
    """Returns what a report says about a claim's seal, from `Seal.to_dict`; None, also of old reports: unsealed."""
    if seal is None:
        return [UNSEALED, UNTIMESTAMPED]
    lines = [f"sealed with the key {seal['public_key_sha256']}, Merkle root {seal['root']}"]
    lines += [timestamp_line(t["time"], t["authority"], trusted=t["trusted"]) for t in seal["timestamps"]]
    return lines if seal["timestamps"] else [*lines, UNTIMESTAMPED]
