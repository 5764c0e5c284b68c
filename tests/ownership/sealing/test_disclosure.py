"""Disclosures: single parts of a sealed claim, and any bytes in place of one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.claims import Sealed
from support.sampling import examples
from support.strategies import JSON

from ownership.attestation.dsse import open_envelope, sign
from ownership.attestation.keys import load_public_key
from ownership.attestation.timestamps import read_reply
from ownership.claims.claim import Claim
from ownership.claims.seal import open_statement
from ownership.encoders.images import image_bytes, images_sha256
from ownership.errors import ClaimError, ClaimIntegrityError, OwnershipError
from ownership.io.canonical import canonical_json, sha256
from ownership.sealing.disclosure import check_disclosure, disclose


def test_a_disclosure_shows_parts_and_nothing_else(sealed: Sealed, claim: Claim) -> None:
    names = ["key.json", "private/7", "representations/m1.safetensors"]
    made = disclose(sealed.folder, names, data=True)
    found = check_disclosure(made, public_key=sealed.public, roots=sealed.roots, before=sealed.later)
    assert found.names == (
        "claim", "signature", "key", "timestamp", "timestamp", "date", "part", "part", "part",
    )  # fmt: skip
    data = found.parts
    assert list(data) == names
    assert found.plan is None
    assert found.digest == Claim.load(sealed.folder).sha256
    assert data["key.json"] == (sealed.folder / "key.json").read_bytes()
    assert data["private/7"] == image_bytes(claim.probes["private"][7])
    assert sha256(data["private/7"]) == images_sha256(claim.probes["private"][7])
    salts = json.loads((sealed.folder / "seal/salts.json").read_bytes())["salts"]
    shown = {name for name, salt in salts.items() if salt.encode() in made}
    assert shown == set(names)
    assert (sealed.folder / "key.json").read_bytes() not in disclose(sealed.folder, names)
    assert check_disclosure(disclose(sealed.folder, names)).parts == dict.fromkeys(names)


def test_the_plan_is_disclosed_alone(sealed: Sealed, claim: Claim) -> None:
    """This was the plan: its digest is in what was signed, so nothing else of the claim is shown with it."""
    made = disclose(sealed.folder, ["plan"])
    content = json.loads(made)
    assert content["plan"] == claim.plan.to_dict()
    assert content["parts"] == []
    found = check_disclosure(made, public_key=sealed.public, roots=sealed.roots, before=sealed.later)
    (detail,) = found.details("plan")
    assert '"alpha": 0.01' in detail
    assert found.plan == content["plan"]
    for wrong in (
        {**content, "plan": {**content["plan"], "alpha": 0.05}},
        {**content, "plan": None},
        {**content, "format_version": 2},
        {k: v for k, v in content.items() if k != "plan"},
        {**content, "more": 1},
    ):
        with pytest.raises(ClaimIntegrityError):
            check_disclosure(canonical_json(wrong))
    both = disclose(sealed.folder, ["private/7", "plan"], data=True)
    shown = check_disclosure(both)
    assert shown.plan == content["plan"]
    assert set(shown.parts) == {"private/7"}
    assert shown.parts["private/7"] is not None


def test_every_part_can_be_disclosed(sealed: Sealed) -> None:
    names = ["claim.json", *sealed.content["parts"], *(f"private/{i}" for i in range(100))]
    assert check_disclosure(disclose(sealed.folder, names)).names.count("part") == len(names)
    with pytest.raises(ClaimError, match="no part 'private/100'"):
        disclose(sealed.folder, ["private/100"])


@given(st.binary(max_size=300))
@examples(200)
def test_any_bytes_are_accepted_or_refused_with_one_error(sealed: Sealed, junk: bytes) -> None:
    key = sealed.key.public_key()
    for read in (
        lambda: open_envelope(junk, key),
        lambda: open_statement(sign(junk, sealed.key), key),
        lambda: check_disclosure(junk),
        lambda: read_reply(junk, b"x", sealed.roots),
        lambda: load_public_key(junk, OwnershipError, "key"),
    ):
        with pytest.raises(OwnershipError):
            read()


@given(st.data())
@examples(300)
def test_any_value_in_any_field_is_accepted_or_refused_with_one_error(sealed: Sealed, data: st.DataObject) -> None:
    """Fields of disclosure, envelope and signed statement get other values; written as canonically as they allow."""
    made = json.loads(sealed.disclosure)
    envelope = json.loads(made["statement"])
    statement = json.loads(open_envelope(made["statement"].encode(), sealed.key.public_key()))
    where = data.draw(st.sampled_from([made, made["parts"][0], envelope, envelope["signatures"][0], statement,
                                       statement["predicate"], statement["subject"][0]]))  # fmt: skip
    field, value = data.draw(st.sampled_from(sorted(where))), data.draw(JSON)
    where[field] = value

    def written(x: object) -> bytes:
        return (json.dumps(x, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode(errors="replace")

    for read in (
        lambda: check_disclosure(written(made)),
        lambda: open_envelope(written(envelope), sealed.key.public_key()),
        lambda: open_statement(sign(written(statement), sealed.key), sealed.key.public_key()),
    ):
        try:
            read()
        except OwnershipError:
            continue
