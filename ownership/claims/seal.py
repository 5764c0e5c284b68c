"""The seal of a claim: one signed statement that commits to everything in the claim (docs/format.md).

```
claim/seal/
├── statement.dsse.json   the signed in-toto statement: digests of claim and plan, root of the Merkle tree
├── owner.pub             the public key of the owner
├── salts.json            one salt for every leaf (secret); a leaf for every file and every private image
└── timestamps/*.tsr      replies of timestamp authorities; each file is named by its SHA-256
```

The digest of the claim alone fixes the claim. The tree makes it possible to disclose single parts and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safetensors import SafetensorError
from safetensors.torch import load

from ownership.attestation.keys import fingerprint, load_public_key, public_pem
from ownership.attestation.merkle import SALT_BYTES, root_hash, salted_leaf
from ownership.attestation.statement import (
    ENVELOPE,
    SignedStatement,
    in_toto,
    is_sealed,
    open_in_toto,
    read_part,
)
from ownership.claims.redaction import PRIVATE_PROBES
from ownership.encoders.images import images_sha256
from ownership.errors import ClaimIntegrityError, OwnershipError
from ownership.io.canonical import canonical_json, parse_canonical, sha256, unhex

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT_VERSION = 1
PREDICATE_TYPE = "urn:uuid:d2a90f6f-0d56-4374-bd48-732b3f6f7f1f"
PUBLIC_KEY = "owner.pub"
SALTS = "salts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(SignedStatement):
    """The seal of a claim, its signature verified.

    Attributes:
        claim_sha256: Content digest of the claim.
        plan_sha256: Digest of the plan.
        root: Root of the Merkle tree, hexadecimal.
        leaves: Number of leaves of the tree.
        public_key: The owner's public key, as PEM.
    """

    error: ClassVar[type[OwnershipError]] = ClaimIntegrityError
    covers: ClassVar[str] = "claim and plan"
    signer: ClassVar[str] = "owner"
    secret: ClassVar[bool] = True

    claim_sha256: str
    plan_sha256: str
    root: str
    leaves: int
    public_key: bytes

    def check_tree(self, leaves: list[bytes]) -> None:
        """Raise ClaimIntegrityError unless these leaf hashes, in order, lead to the signed root."""
        if len(leaves) != self.leaves or root_hash(leaves).hex() != self.root:
            raise ClaimIntegrityError("seal: the salts do not lead to the sealed root", f"{SALTS} was changed")


def statement(claim_sha256: str, plan_sha256: str, root: bytes, leaves: int) -> bytes:
    """Return the payload that an owner signs about a claim."""
    predicate = {
        "format_version": FORMAT_VERSION,
        "claim_sha256": claim_sha256,
        "plan_sha256": plan_sha256,
        "merkle_root": root.hex(),
        "leaves": leaves,
    }
    return in_toto({"claim": claim_sha256}, PREDICATE_TYPE, predicate)


def open_statement(envelope: bytes, key: Ed25519PublicKey, replies: Mapping[str, bytes] | None = None) -> Seal:
    """Return the seal in an envelope signed with `key`; its tree and its timestamps are not checked yet.

    Args:
        envelope: Content of `statement.dsse.json`.
        key: The owner's public key.
        replies: Replies of timestamp authorities, by name.

    Raises:
        ClaimIntegrityError: If the signature or the statement is wrong.
    """

    def rebuild(content: dict[str, Any]) -> bytes:
        predicate = content["predicate"]
        claim, plan, leaves = (predicate[k] for k in ("claim_sha256", "plan_sha256", "leaves"))
        if type(leaves) is not int or leaves < 1 or not isinstance(claim, str):
            raise TypeError("fields of another type")
        return statement(claim, plan, unhex(predicate["merkle_root"]), leaves)

    predicate = open_in_toto(envelope, key, PREDICATE_TYPE, rebuild, ClaimIntegrityError)["predicate"]
    return Seal(
        claim_sha256=predicate["claim_sha256"],
        plan_sha256=str(predicate["plan_sha256"]),
        root=predicate["merkle_root"],
        leaves=predicate["leaves"],
        public_key=public_pem(key),
        public_key_sha256=fingerprint(key),
        envelope=envelope,
        replies=replies or {},
    )


def open_seal(folder: Path, content: Mapping[str, Any]) -> Seal | None:
    """Return the seal in a claim's folder, its signature verified; None if the claim is not sealed.

    Args:
        folder: The claim's folder.
        content: Content of `claim.json`, which matches its own digest. No other field needs to be valid yet.

    Raises:
        ClaimIntegrityError: If the signature is wrong or the seal is of another claim.
    """
    if not is_sealed(folder):
        return None
    public = read_part(folder, PUBLIC_KEY, ClaimIntegrityError)
    envelope = read_part(folder, ENVELOPE, ClaimIntegrityError)
    seal = open_statement(envelope, load_public_key(public, ClaimIntegrityError, f"seal: {PUBLIC_KEY}"))
    if content.get("content_sha256") != seal.claim_sha256:
        raise ClaimIntegrityError(
            f"seal: it is of another claim ({seal.claim_sha256[:16]}…), this one is {content['content_sha256'][:16]}…",
            "the claim was changed after it was sealed, or the seal belongs to another claim",
        )
    if plan_sha256(content) != seal.plan_sha256:
        raise ClaimIntegrityError("seal: it is of another plan", "its owner signed a statement that is not true")
    return seal


def leaf_digests(claim_json: bytes, parts: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of everything the tree commits to, by name: every file and every private image.

    Args:
        claim_json: Content of `claim.json`.
        parts: Content of the parts in the folder, by name; their digests were checked. A redacted claim lacks some.

    Raises:
        ClaimIntegrityError: If the private images cannot be read, or a file has the name of one.
    """
    try:
        images = load(parts[PRIVATE_PROBES]).get("private", ()) if PRIVATE_PROBES in parts else ()
        digests = {f"private/{i}": images_sha256(image) for i, image in enumerate(images)}
    except (SafetensorError, ValueError, TypeError, RuntimeError) as e:
        raise ClaimIntegrityError(f"claim integrity: {PRIVATE_PROBES} cannot be read", "get the original") from e
    files = {name: sha256(data) for name, data in parts.items()}
    if not files.keys().isdisjoint(digests):
        raise ClaimIntegrityError("claim integrity: a file is named as a private image", "get the original")
    return {**digests, **files, "claim.json": sha256(claim_json)}


def leaf_hashes(
    digests: Mapping[str, str], salts: Mapping[str, bytes], redacted: Mapping[str, bytes] | None = None
) -> list[bytes]:
    """Return the leaf hashes of the tree, in the order of the code points of their names.

    Args:
        digests: SHA-256 of the leaves in the folder, by name.
        salts: Their salts, by name.
        redacted: Hashes of the redacted leaves, by name.
    """
    hashes = {name: salted_leaf(salts[name], name, bytes.fromhex(digest)) for name, digest in digests.items()}
    hashes |= redacted or {}
    return [hashes[name] for name in sorted(hashes)]


def salts_json(salts: Mapping[str, bytes]) -> bytes:
    """Return the content of `salts.json`."""
    named = {name: salt.hex() for name, salt in salts.items()}
    return canonical_json({"format_version": FORMAT_VERSION, "salts": named})


def read_salts(folder: Path, names: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the salt of every leaf, by name.

    Raises:
        ClaimIntegrityError: If a leaf has no salt, a salt has no leaf, or the file is malformed.
    """
    what = f"seal: {SALTS}"
    content = parse_canonical(read_part(folder, SALTS, ClaimIntegrityError), ClaimIntegrityError, what)
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
    """Return the digest of a claim's plan: the SHA-256 of its canonical JSON."""
    return sha256(canonical_json(content.get("plan")))
