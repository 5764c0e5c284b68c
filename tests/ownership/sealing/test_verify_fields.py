"""Tampering with every field of a sealed claim, of its statement and envelope, of its salts and disclosures."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.sealed_claims import PUBLIC, SALTS, STATEMENT
from support.tampering import INTRUDER, Bench, Change, edited, flipped, other

from ownership.attestation.dsse import PAYLOAD_TYPE, open_envelope, pre_authentication, sign
from ownership.attestation.keys import public_pem
from ownership.errors import ClaimIntegrityError
from ownership.io.canonical import canonical_json, sha256
from ownership.sealing.disclosure import check_disclosure


@pytest.fixture
def bench(claim_bench: Bench) -> Bench:
    return claim_bench


@pytest.mark.sampled
def test_every_field_of_the_claim(bench: Bench) -> None:
    """A party that rewrites the digest, too, is stopped by the seal: before any other field is looked at."""
    content = json.loads(bench.files["claim.json"])
    del content["content_sha256"]

    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, new in edited(content):
            whole = {**new, "content_sha256": sha256(canonical_json(new))}
            yield name, {"claim.json": canonical_json(whole)}, "it is of another claim"

    bench.refuses(cases(), at_least=300)


def test_every_part_with_all_digests_rewritten(bench: Bench) -> None:
    content = json.loads(bench.files["claim.json"])
    del content["content_sha256"]

    def cases() -> Iterator[tuple[str, Change, str]]:
        for name in content["parts"]:
            new, data = copy.deepcopy(content), flipped(bench.files[name], len(bench.files[name]) - 1)
            new["parts"][name]["sha256"] = sha256(data)
            whole = {**new, "content_sha256": sha256(canonical_json(new))}
            yield name, {name: data, "claim.json": canonical_json(whole)}, "it is of another claim"

    bench.refuses(cases(), at_least=14)


def _statement(bench: Bench) -> Any:
    return json.loads(open_envelope(bench.files[STATEMENT], bench.sealed.key.public_key()))


def _envelope(bench: Bench, payload: bytes) -> bytes:
    """The envelope with another payload and the old signature."""
    content = json.loads(bench.files[STATEMENT])
    return canonical_json({**content, "payload": base64.b64encode(payload).decode()})


def test_every_field_of_the_statement(bench: Bench) -> None:
    def unsigned() -> Iterator[tuple[str, Change, str]]:
        for name, new in edited(_statement(bench)):
            yield name, {STATEMENT: _envelope(bench, canonical_json(new))}, "the signature is wrong"

    def signed(key: Ed25519PrivateKey) -> Iterator[tuple[str, Change, str]]:
        for name, new in edited(_statement(bench)):
            message = "is malformed|is no seal|another plan|do not lead to the sealed root"
            yield (
                name,
                {STATEMENT: sign(canonical_json(new), key), PUBLIC: public_pem(key.public_key())},
                message,
            )

    bench.refuses(unsigned(), at_least=20)
    bench.refuses(signed(bench.sealed.key), at_least=20)  # an owner who signs what is not true
    bench.refuses(signed(INTRUDER), at_least=20)


def test_every_field_of_the_envelope(bench: Bench) -> None:
    content = json.loads(bench.files[STATEMENT])
    (good,) = content["signatures"]
    payload = base64.b64decode(content["payload"])
    bad = {**good, "sig": base64.b64encode(INTRUDER.sign(pre_authentication(PAYLOAD_TYPE, payload))).decode()}
    plain = {**good, "sig": base64.b64encode(bench.sealed.key.sign(payload)).decode()}
    other_type = "application/vnd.dsse+json"
    retyped = {**good, "sig": base64.b64encode(bench.sealed.key.sign(pre_authentication(other_type, payload))).decode()}

    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, new in edited(content):
            yield name, {STATEMENT: canonical_json(new)}, r"statement\.dsse\.json"
        for name, changed, message in (
            ("stripped", {"signatures": []}, "holds 0 signatures"),
            ("none", {"signatures": None}, "holds no signatures"),
            ("doubled", {"signatures": [good, good]}, "holds 2 signatures"),
            ("one good, one bad", {"signatures": [good, bad]}, "holds 2 signatures"),
            ("one bad, one good", {"signatures": [bad, good]}, "holds 2 signatures"),
            ("the intruder's", {"signatures": [bad]}, "the signature is wrong"),
            ("without pre-authentication", {"signatures": [plain]}, "the signature is wrong"),
            ("empty", {"signatures": [{**good, "sig": ""}]}, "the signature is wrong"),
            ("type swapped", {"payloadType": "application/json"}, "is of type application/json"),
            ("type swapped and signed", {"payloadType": other_type, "signatures": [retyped]}, "is of type"),
            ("other spelling", {"payload": content["payload"] + "="}, "malformed base64"),
        ):
            yield name, {STATEMENT: canonical_json({**content, **changed})}, message
        yield "written otherwise", {STATEMENT: json.dumps(content).encode()}, "no canonical JSON"
        yield "no JSON", {STATEMENT: b"\xff"}, "not valid JSON"
        yield "a list", {STATEMENT: b"[]\n"}, "no JSON object"
        yield "nested without end", {STATEMENT: b'{"a":' + b"[" * 10**5}, "not valid JSON"

    bench.refuses(cases(), at_least=25)


@pytest.mark.sampled
def test_every_salt(bench: Bench) -> None:
    content = json.loads(bench.files[SALTS])
    salts: dict[str, str] = content["salts"]

    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, salt in salts.items():
            yield name, {SALTS: _salts({**salts, name: other(salt)})}, "do not lead to the sealed root|malformed salt"
        for name in ("key.json", "private/0"):
            less = {k: v for k, v in salts.items() if k != name}
            yield f"without {name}", {SALTS: _salts(less)}, "does not name what the claim holds"
            for value in ("", "00", salts[name].upper(), 5, None, [], salts[name] + "00"):
                yield f"{name} {value}", {SALTS: _salts({**salts, name: value})}, "malformed salt"
        yield "one more", {SALTS: _salts({**salts, "x": "00" * 32})}, "does not name what the claim holds"
        swapped = {**salts, "key.json": salts["private/0"], "private/0": salts["key.json"]}
        yield "two swapped", {SALTS: _salts(swapped)}, "do not lead to the sealed root"
        for name, new in (("version", {**content, "format_version": 2}), ("field", {**content, "x": 1}), ("none", {})):
            yield name, {SALTS: canonical_json(new)}, "of another version"
        yield "a list", {SALTS: canonical_json({**content, "salts": list(salts)})}, "does not name"

    bench.refuses(cases(), at_least=130)


def _salts(salts: dict[str, Any]) -> bytes:
    return canonical_json({"format_version": 1, "salts": salts})


def test_tampered_disclosures(bench: Bench) -> None:
    content = json.loads(bench.sealed.disclosure)
    count = 0
    for name, new in edited(content):
        if re.fullmatch(r"(timestamps|parts)/\d+ removed", name):
            continue  # what is not shown is just that
        count += 1
        with pytest.raises(ClaimIntegrityError) as e:
            check_disclosure(canonical_json(new), public_key=bench.sealed.public, roots=bench.sealed.roots)
        assert e.value.exit_code == 6, name
    part = content["parts"][0]
    for field, value in (("salt", part["salt"] + "00"), ("salt", ""), ("sha256", part["sha256"][2:]), ("index", True)):
        count += 1
        with pytest.raises(ClaimIntegrityError, match="malformed"):  # else one leaf's bytes could be read as another's
            check_disclosure(canonical_json({**content, "parts": [{**part, field: value}]}))
    unstamped = canonical_json({**content, "timestamps": []})  # flipped tokens: above
    for at in range(0, len(unstamped), 7):
        count += 1
        with pytest.raises(ClaimIntegrityError):
            check_disclosure(flipped(unstamped, at))
    bench.cases += count
    assert count > 300
