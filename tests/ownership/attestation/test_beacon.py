"""Rounds of a randomness beacon, with real ones of drand."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from support.beacon import NAMED, NUMBER, RANDOMNESS, REPLY, SIGNATURE

from ownership.attestation.beacon import QUICKNET, BeaconRound, future_round, read_round
from ownership.attestation.bls import signature_valid
from ownership.errors import ClaimError, ClaimIntegrityError, OwnershipError
from ownership.io.extras import require

MESSAGE = hashlib.sha256(NUMBER.to_bytes(8, "big")).digest()


def test_the_chain_is_the_one_of_its_hash() -> None:
    """drand: the hash of a chain covers period, genesis, public key, group and name; the group's hash is published."""
    times = QUICKNET.period.to_bytes(4, "big") + QUICKNET.genesis.to_bytes(8, "big")
    group = bytes.fromhex("f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e")
    assert hashlib.sha256(times + QUICKNET.public_key + group + b"quicknet").hexdigest() == QUICKNET.sha256


def test_a_real_round_is_verified() -> None:
    signed = read_round(REPLY, NAMED)
    assert signed.signature is not None
    assert hashlib.sha256(signed.signature).hexdigest() == RANDOMNESS
    assert signed.time == datetime(2023, 9, 15, 11, 0, 3, tzinfo=UTC)  # 22 d, 19 h, 50 min, 36 s after the first
    assert BeaconRound.from_dict(signed.to_dict()) == signed
    assert BeaconRound.from_dict(NAMED.to_dict()) == NAMED


def test_a_round_of_another_chain_is_verified_with_its_key() -> None:
    """The known answer of drand's own client, `test/beacon-verification.test.ts`: scheme bls-unchained-g1-rfc9380."""
    key = bytes.fromhex(
        "81d320f220ee9c79e60e19dedc838c31e3ab919b15481e9feb52f643628c4f6a13fdc52129493875a818109d767272ca0541cbcdcea9335f"
        "2870d781b39b845ba8cbd44fdfe4967781cf72ca5917fc9398bcf97ca0548ed5a709016c4b1ff0f3"
    )
    signature = bytes.fromhex(
        "95c93585c513ebbcb4777ff15599b3140e5ec0295faa0e483f3deadd88fa6d43f0d3703e3a4ce106e8fd6c6987f32126"
    )
    message = hashlib.sha256((38).to_bytes(8, "big")).digest()
    assert signature_valid(key, message, signature)
    assert not signature_valid(key, MESSAGE, signature)
    assert not signature_valid(QUICKNET.public_key, message, signature)


def negated(signature: bytes) -> bytes:
    return bytes([signature[0] ^ 0x20]) + signature[1:]


@pytest.mark.parametrize(
    "forged",
    [
        negated(bytes.fromhex(SIGNATURE)),
        bytes.fromhex(SIGNATURE)[:-1] + b"\x7c",
        bytes([0xC0]) + bytes(47),  # the point at infinity
        bytes(48),
        b"",
        bytes.fromhex(SIGNATURE) + b"\x00",
        bytes([0xFF]) * 48,
    ],
)
def test_other_bytes_are_refused(forged: bytes) -> None:
    assert not signature_valid(QUICKNET.public_key, MESSAGE, forged)
    with pytest.raises(ClaimIntegrityError, match="not the beacon's signature of round 657413 of drand quicknet"):
        NAMED.signed(forged)


def test_no_point_of_small_order_varies_a_signature() -> None:
    """The pairing alone accepts the signature plus such a point, and its owner could draw keys with it."""
    require("py_ecc")
    from py_ecc.bls.point_compression import compress_G1, decompress_G1
    from py_ecc.bls.typing import G1Compressed
    from py_ecc.optimized_bls12_381 import G2, add, curve_order, is_inf, multiply, pairing

    for x in range(1, 100):  # a point of the curve times the subgroup's order: its order divides the cofactor
        try:
            point = multiply(decompress_G1(G1Compressed((1 << 383) | x)), curve_order)
        except ValueError:
            continue
        if not is_inf(point):
            break
    signature = decompress_G1(G1Compressed(int(SIGNATURE, 16)))
    varied = add(signature, point)
    assert pairing(G2, varied) == pairing(G2, signature)
    assert not signature_valid(QUICKNET.public_key, MESSAGE, compress_G1(varied).to_bytes(48, "big"))


def test_replies_of_relays_are_untrusted() -> None:
    value = json.loads(REPLY)
    for reply, match in (
        (b"no", "not valid JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "no round or no signature"),
        (json.dumps({**value, "signature": 7}).encode(), "no round or no signature"),
        (json.dumps({**value, "signature": SIGNATURE.upper()}).encode(), "no round or no signature"),
        (json.dumps({**value, "round": NUMBER + 1}).encode(), "names round 657413"),
    ):
        with pytest.raises(OwnershipError, match=match):
            read_round(reply, NAMED)
    another = BeaconRound(chain=QUICKNET, number=NUMBER + 1)
    with pytest.raises(ClaimIntegrityError):
        read_round(json.dumps({**value, "round": NUMBER + 1}).encode(), another)


def test_stored_rounds_are_checked() -> None:
    good = NAMED.to_dict()
    for number in (0, True, "1", 1.0):
        with pytest.raises(ValueError, match="number of a round"):
            BeaconRound.from_dict({**good, "round": number})
    with pytest.raises(ClaimError, match="unknown"):
        BeaconRound.from_dict({**good, "chain": "0" * 64})
    with pytest.raises(ClaimIntegrityError):
        BeaconRound.from_dict({**good, "signature": "00" * 48})


@pytest.mark.parametrize("after", [-9.0, 0.0, 0.5, 3.0, 3.1, 2.5e8])
def test_the_first_round_at_a_time(after: float) -> None:
    time = datetime.fromtimestamp(QUICKNET.genesis, UTC) + timedelta(seconds=after)
    found = QUICKNET.first_at(time)
    assert QUICKNET.time_of(found) >= time
    assert found == 1 or QUICKNET.time_of(found - 1) < time


def test_a_round_has_to_lie_in_the_future() -> None:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert future_round(now + timedelta(hours=1), now).time == now + timedelta(hours=1)
    with pytest.raises(OwnershipError, match="signed already"):
        future_round(now - timedelta(hours=1), now)
