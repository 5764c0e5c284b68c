"""Showing single parts of a sealed claim to others: that they were sealed, and nothing about the rest.

A disclosure is one JSON file: the signed statement, its timestamps, and for every part its salt and its path to the
signed root; the part's data too, if wanted. Whoever gets it needs no other file of the claim.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load

from ownership.attestation.keys import load_public_key
from ownership.attestation.merkle import SALT_BYTES, inclusion_path, leads_to, salted_leaf
from ownership.attestation.statement import check_timestamps, read_part, verify_signature, verify_times
from ownership.attestation.timestamps import need_roots
from ownership.claims.claim import Claim
from ownership.claims.redaction import private_part
from ownership.claims.seal import PUBLIC_KEY, leaf_hashes, open_statement, plan_sha256, read_digests, read_salts
from ownership.encoders.images import image_bytes
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import canonical_json, parse_canonical, parse_json, sha256, unbase64, unhex
from ownership.io.files import read_bytes
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

FORMAT_VERSION = 2
"""Version 2 adds the plan; a disclosure without it is written as version 1."""

PLAN = "plan"
FIELDS = {"format_version", "statement", "public_key", "timestamps", "parts"}


def disclose(folder: Path, names: Sequence[str], *, data: bool = False) -> bytes:
    """Returns a disclosure of parts of a sealed claim.

    Args:
        folder: the claim's; it is verified first.
        names: files of the claim ("key.json"), "private/I" for one private image, or "plan" for the plan alone, whose
            digest the owner signed: claim.json would show the rest with it.
        data: with the parts' data; else their digests.

    Raises:
        ClaimError: if the claim is not sealed, has no such part, or is a view from which it is withheld.
        ClaimIntegrityError: if it does not verify.
    """
    claim = Claim.load(folder)
    if claim.seal is None:
        raise ClaimError("this claim has no seal", "turnmark claim seal")
    content, digests = read_digests(folder, claim.redaction)
    salts, hidden = read_salts(folder, digests), claim.redaction.leaves
    leaves, order = leaf_hashes(digests, salts, hidden), sorted({*digests, *hidden})
    parts: list[dict[str, Any]] = []
    for name in dict.fromkeys(n for n in names if n != PLAN):
        if name in hidden:
            raise ClaimError(f"{printable(name)} is withheld from this view of the claim", "only its owner can show it")
        if name not in digests:
            raise ClaimError(
                f"this claim has no part {printable(name)!r}", f"one of: plan, {', '.join(order[:4])}, ..."
            )
        index = order.index(name)
        parts.append(
            {
                "name": name,
                "sha256": digests[name],
                "salt": salts[name].hex(),
                "index": index,
                "path": [step.hex() for step in inclusion_path(leaves, index)],
                "data": base64.b64encode(_data(folder, name, private_part(content["parts"]))).decode()
                if data
                else None,
            }
        )
    made = canonical_json(
        {
            **({"format_version": 2, "plan": content["plan"]} if PLAN in names else {"format_version": 1}),
            "statement": claim.seal.envelope.decode(),
            "public_key": read_part(folder, PUBLIC_KEY, ClaimIntegrityError).decode(),
            "timestamps": [base64.b64encode(reply).decode() for reply in claim.seal.replies.values()],
            "parts": parts,
        }
    )
    list(check_disclosure(made))
    return made


def check_disclosure(
    disclosure: bytes,
    *,
    public_key: Path | None = None,
    roots: Sequence[Certificate] = (),
    before: datetime | None = None,
) -> Iterator[str]:
    """Checks a disclosure, and yields a line for every check that is passed.

    Args:
        disclosure: content of the file.
        public_key: file of the owner's public key, from the owner; without it, anybody may have sealed the claim.
        roots: certificates of timestamp authorities that the verifier trusts.
        before: a trusted timestamp must be earlier.

    Raises:
        ClaimIntegrityError: at the first check that fails.
        OwnershipError: if the public key cannot be read, or `before` is asked for without roots.
    """
    need_roots(before, roots)
    content = parse_canonical(disclosure, ClaimIntegrityError, "disclosure")
    version = content.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ClaimIntegrityError("disclosure of another version, or none at all", "update turnmark")
    if set(content) != FIELDS | ({PLAN} if version == 2 else set()):
        raise ClaimIntegrityError("disclosure: a field is missing or malformed", "get the original")
    try:
        envelope, pem = content["statement"].encode(), content["public_key"].encode()
        stored = {f"{i + 1}": unbase64(t) for i, t in enumerate(content["timestamps"])}
        parts = [_part(value) for value in content["parts"]]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ClaimIntegrityError("disclosure: a field is missing or malformed", "get the original") from e
    if not parts and version == 1:
        raise ClaimIntegrityError("disclosure: it shows no part", "get the original")
    seal = open_statement(envelope, load_public_key(pem, ClaimIntegrityError, "disclosure: its public key"))
    yield f"claim        {seal.claim_sha256}"
    yield from verify_signature(seal, public_key)
    if version == 2:
        if plan_sha256(content) != seal.plan_sha256:
            raise ClaimIntegrityError("disclosure: the plan is not the sealed one", "get the original")
        yield f"plan         sealed: {json.dumps(content[PLAN], sort_keys=True)}"
    for name, digest, salt, index, path, data in parts:
        if data is not None and sha256(data) != digest.hex():
            raise ClaimIntegrityError(
                f"disclosure: the data of {printable(name)} is not what its digest says", "get the original"
            )
        if not leads_to(salted_leaf(salt, name, digest), index, seal.leaves, path, bytes.fromhex(seal.root)):
            raise ClaimIntegrityError(
                f"disclosure: {printable(name)} was not sealed: its path leads elsewhere", "get the original"
            )
        shown = "digest only" if data is None else f"{len(data)} bytes"
        yield f"part         {printable(name)}: sealed ({shown}, SHA-256 {digest.hex()})"
    yield from verify_times(check_timestamps(stored, seal.envelope, roots, seal.error), before, seal.error)


def disclosed_data(disclosure: bytes) -> dict[str, bytes]:
    """Returns the data of the parts in a disclosure that `check_disclosure` accepts, by name."""
    list(check_disclosure(disclosure))
    parts = parse_json(disclosure, ClaimIntegrityError, "disclosure")["parts"]
    return {p["name"]: base64.b64decode(p["data"]) for p in parts if p["data"] is not None}


def _part(value: dict[str, Any]) -> tuple[str, bytes, bytes, int, list[bytes], bytes | None]:
    name, index, data = value["name"], value["index"], value["data"]
    digest, salt = unhex(value["sha256"]), unhex(value["salt"])
    if (
        not isinstance(name, str)
        or type(index) is not int
        or (len(digest), len(salt), len(value)) != (32, SALT_BYTES, 6)
    ):
        raise ValueError("malformed part")
    path = [unhex(step) for step in value["path"]]
    return name, digest, salt, index, path, None if data is None else unbase64(data)


def _data(folder: Path, name: str, private: str) -> bytes:
    kind, _, number = name.partition("/")
    if kind == "private":
        return image_bytes(load(read_bytes(folder / private, ClaimError, "claim"))["private"][int(number)])
    return read_bytes(folder / name, ClaimError, "claim")
