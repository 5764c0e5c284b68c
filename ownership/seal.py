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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load

from ownership.errors import ClaimError, ClaimIntegrityError, printable
from ownership.files import canonical_json, parse_canonical, parse_json, read_bytes, sha256, unhex
from ownership.images import images_sha256
from ownership.merkle import SALT_BYTES, root_hash, salted_leaf
from ownership.signing import fingerprint, load_public_key, open_envelope
from ownership.timestamps import Timestamp, read_reply
from ownership.withheld import Withheld, private_part

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.x509 import Certificate

FORMAT_VERSION = 1
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://turnmark.invalid/seal/v1"

UNSEALED = "UNSEALED: nobody signed this claim; whoever can write to it can replace it whole"
UNTIMESTAMPED = "UNTIMESTAMPED: proves nothing about when"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A claim's seal, its signature and tree checked."""

    claim_sha256: str
    plan_sha256: str
    root: str  # of the Merkle tree, hexadecimal
    leaves: int
    public_key_sha256: str  # fingerprint of the key it was signed with
    timestamps: tuple[Timestamp, ...] = ()
    envelope: bytes = field(default=b"", repr=False)  # the signed bytes, which timestamps cover
    replies: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # of timestamp authorities, by name

    def under(self, roots: Sequence[Certificate]) -> Seal:
        """Returns the seal with its timestamps checked against the verifier's root certificates; none: unchecked.

        Raises:
            ClaimIntegrityError: if a timestamp does not cover the seal, or does not chain to one of the roots.
        """
        return replace(self, timestamps=check_timestamps(self.replies, self.envelope, roots))

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
    """Returns what is signed: an in-toto statement (v1) about the claim, as canonical JSON."""
    return canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "claim", "digest": {"sha256": claim_sha256}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "format_version": FORMAT_VERSION,
                "claim_sha256": claim_sha256,
                "plan_sha256": plan_sha256,
                "merkle_root": root.hex(),
                "leaves": leaves,
            },
        }
    )


def open_statement(envelope: bytes, key: Ed25519PublicKey) -> Seal:
    """Returns the seal in an envelope signed with `key`; its tree and timestamps are still unchecked.

    Raises:
        ClaimIntegrityError: if signature or statement are not what they should be.
    """
    payload = open_envelope(envelope, key)
    what = "seal: the signed statement"
    content = parse_canonical(payload, ClaimIntegrityError, what)
    if content.get("predicateType") != PREDICATE_TYPE:
        raise ClaimIntegrityError(f"{what} is no seal: {printable(content.get('predicateType'))}", "update turnmark")
    try:
        predicate = content["predicate"]
        claim, plan, leaves = (predicate[k] for k in ("claim_sha256", "plan_sha256", "leaves"))
        root = unhex(predicate["merkle_root"])
        again = statement(claim, plan, root, leaves)
    except (KeyError, TypeError, ValueError) as e:
        raise ClaimIntegrityError(f"{what} is malformed", "it was written by another program") from e
    if again != payload or type(leaves) is not int or leaves < 1 or not isinstance(claim, str):
        raise ClaimIntegrityError(f"{what} is malformed", "it was written by another program")
    return Seal(
        claim_sha256=claim,
        plan_sha256=str(plan),
        root=root.hex(),
        leaves=leaves,
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
    if not (folder / "seal").exists() and not (folder / "seal").is_symlink():
        return None
    public = read_part(folder, "owner.pub")
    envelope = read_part(folder, "statement.dsse.json")
    seal = open_statement(envelope, load_public_key(public, ClaimIntegrityError, "seal: owner.pub"))
    if content.get("content_sha256") != seal.claim_sha256:
        raise ClaimIntegrityError(
            f"seal: it is of another claim ({seal.claim_sha256[:16]}…), this one is {content['content_sha256'][:16]}…",
            "the claim was changed after it was sealed, or the seal is not its own",
        )
    if plan_sha256(content) != seal.plan_sha256:
        raise ClaimIntegrityError("seal: it is of another plan", "its owner signed a statement that is not true")
    return seal


def check_seal(folder: Path, seal: Seal, digests: Mapping[str, str], withheld: Mapping[str, bytes]) -> Seal:
    """Returns the seal with its timestamps, once the salts lead to its root and every timestamp covers it.

    Args:
        folder: the claim's.
        seal: from `open_seal`.
        digests: from `leaf_digests`, once the claim's parts were checked.
        withheld: leaves of what is not in the folder, by name.

    Raises:
        ClaimIntegrityError: if anything is wrong.
    """
    leaves = leaf_hashes(digests, read_salts(folder, digests), withheld)
    if len(leaves) != seal.leaves or root_hash(leaves).hex() != seal.root:
        raise ClaimIntegrityError("seal: the salts do not lead to the sealed root", "salts.json was changed")
    return replace(seal, replies=read_replies(folder)).under(())


def check_timestamps(
    stored: Mapping[str, bytes], envelope: bytes, roots: Sequence[Certificate] = ()
) -> tuple[Timestamp, ...]:
    """Returns what the stored replies (name -> bytes) say about an envelope, in order of time.

    Raises:
        ClaimIntegrityError: if one of them is not good.
    """
    found = [read_reply(data, envelope, roots, name=name) for name, data in stored.items()]
    return tuple(sorted(found, key=lambda t: (t.time, t.sha256)))


def read_replies(folder: Path) -> dict[str, bytes]:
    """Returns the timestamp replies beside a seal, by name; each must bear its own digest as its name."""
    place = folder / "seal" / "timestamps"
    found = {}
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        data = read_part(folder, f"timestamps/{path.name}")
        if path.name != f"{sha256(data)}.tsr":
            raise ClaimIntegrityError(
                f"seal: timestamps/{printable(path.name)} is not what its name says", "it was changed or damaged"
            )
        found[path.name] = data
    return found


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


def read_digests(folder: Path, withheld: Withheld) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the content of claim.json, and `leaf_digests`, of a claim that was loaded, and so verified, just now."""
    claim_json = read_bytes(folder / "claim.json", ClaimError, "claim")
    content = parse_json(claim_json, ClaimError, "claim: claim.json")
    shown = {name: entry for name, entry in content["parts"].items() if name not in withheld.parts}
    part = private_part(content["parts"])
    private = None if part in withheld.parts else read_bytes(folder / part, ClaimError, "claim")
    return content, leaf_digests(claim_json, shown, private)


def leaf_hashes(
    digests: Mapping[str, str], salts: Mapping[str, bytes], withheld: Mapping[str, bytes] | None = None
) -> list[bytes]:
    """Returns the tree's leaves, in order of their names' code points; those withheld as they are given."""
    hashes = {name: salted_leaf(salts[name], name, bytes.fromhex(digest)) for name, digest in digests.items()}
    hashes |= withheld or {}
    return [hashes[name] for name in sorted(hashes)]


def salts_json(salts: Mapping[str, bytes]) -> bytes:
    """Returns the content of salts.json."""
    named = {name: salt.hex() for name, salt in salts.items()}
    return canonical_json({"format_version": FORMAT_VERSION, "salts": named})


def read_salts(folder: Path, names: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the salt of every leaf; raises ClaimIntegrityError unless there is one for each, and no other."""
    what = "seal: salts.json"
    content = parse_canonical(read_part(folder, "salts.json"), ClaimIntegrityError, what)
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


def read_part(folder: Path, name: str) -> bytes:
    """Returns a file of the seal; raises ClaimIntegrityError if it is missing or a link."""
    path = folder / "seal" / name
    if (folder / "seal").is_symlink() or path.is_symlink() or not path.is_file():
        raise ClaimIntegrityError(f"seal: {printable(name)} is missing", "get the original claim")
    return read_bytes(path, ClaimIntegrityError, "seal")


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


def timestamp_line(time: str, authority: str, *, trusted: bool) -> str:
    """Returns one timestamp in words."""
    said = "its authority chains to a root you trust" if trusted else "its authority was NOT checked against a root"
    return f"timestamp {time} by {authority}: it covers this seal; {said}"
