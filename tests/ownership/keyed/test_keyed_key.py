from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ownership.attestation.timestamps import token_signature
from ownership.errors import ClaimError, ClaimIntegrityError, DataError
from ownership.io.canonical import sha256
from ownership.keyed.key import Key, Pool, new_key
from ownership.keyed.pool import check_drawn, digests_of, draw_probes, pool_of


def images(n: int = 120, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


POOL = pool_of(images())
KEY = Key(secret=bytes(range(32)), pool=POOL)


def test_two_new_keys_share_nothing() -> None:
    first, second = new_key(POOL), new_key(POOL)
    assert first.secret != second.secret
    assert first.commitment != second.commitment
    assert list(first.probe_indices(9)) != list(second.probe_indices(9))


def test_the_commitment_binds_everything_an_owner_could_choose_and_reveals_no_secret() -> None:
    other = Pool(sha256="0" * 64, images=POOL.images, shape=POOL.shape)
    changed = [
        Key(secret=bytes(32), pool=POOL),
        Key(secret=KEY.secret, pool=other),
        Key(secret=KEY.secret, pool=POOL, directions=9),
    ]
    assert len({KEY.commitment, *(k.commitment for k in changed)}) == 4
    assert KEY.secret.hex().encode() not in KEY.commitment
    assert json.loads(KEY.commitment)["secret_sha256"] != sha256(KEY.secret)  # no digest that other files may hold


def test_numbers_of_a_key_stay_the_same_in_later_versions() -> None:
    # the frames of every claim hang on these numbers; NumPy promises that its legacy stream never changes (NEP 19)
    assert KEY.randomness("frame content").standard_normal(3).round(9).tolist() == FROZEN_FRAME
    assert KEY.probe_indices(5).tolist() == FROZEN_PROBES


FROZEN_FRAME = [0.799549706, -0.497059854, -1.242052348]
FROZEN_PROBES = [93, 82, 48, 98, 116]


def test_each_purpose_has_its_own_numbers() -> None:
    drawn = [KEY.randomness(purpose).standard_normal() for purpose in ("frame content", "frame invariant", "probes")]
    assert len(set(drawn)) == 3


@given(st.binary(min_size=32, max_size=32), st.integers(1, 64), st.none() | st.binary(min_size=1, max_size=50))
def test_a_stored_key_is_the_same_key(secret: bytes, directions: int, anchor: bytes | None) -> None:
    key = Key(secret=secret, pool=POOL, directions=directions, anchor=anchor)
    assert Key.from_dict(json.loads(json.dumps(key.to_dict()))) == key


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", 2),
        ("secret", "00"),
        ("secret", "XX"),
        ("directions", 0),
        ("directions", 65),
        ("pool", {"sha256": "0"}),
        ("anchor", "no base64"),
        ("more", 1),
    ],
)
def test_a_damaged_key_is_refused(field: str, value: object) -> None:
    with pytest.raises(ClaimError):
        Key.from_dict({**KEY.to_dict(), field: value})


def test_probes_are_drawn_without_replacement_and_more_probes_begin_with_the_same() -> None:
    few, many = KEY.probe_indices(10), KEY.probe_indices(1000)
    assert list(many[:10]) == list(few)
    assert sorted(many) == list(range(120))


def test_probes_come_from_the_pool_of_the_commitment_only() -> None:
    probes = draw_probes(KEY, images(), 40)
    assert torch.equal(probes, images()[KEY.probe_indices(40)])
    check_drawn(KEY, probes, digests_of(images()))
    with pytest.raises(ClaimError, match="not the ones"):
        draw_probes(KEY, images(seed=1), 40)


def test_a_probe_that_was_moved_by_one_level_is_refused() -> None:
    probes = draw_probes(KEY, images(), 40)
    probes[7, 0, 3, 3] ^= 1
    with pytest.raises(ClaimIntegrityError, match="picked or edited"):
        check_drawn(KEY, probes, digests_of(images()))


def test_picked_probes_are_refused() -> None:
    with pytest.raises(ClaimIntegrityError, match="picked or edited"):
        check_drawn(KEY, images()[:40], digests_of(images()))


def test_another_pool_is_refused() -> None:
    other = images(seed=1)
    with pytest.raises(ClaimIntegrityError, match="pool"):
        check_drawn(KEY, other[KEY.probe_indices(40)], digests_of(other))


def test_a_pool_of_too_few_images_is_refused() -> None:
    with pytest.raises(DataError, match="too few"):
        pool_of(images(99))


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + size + content


def reply(signature: bytes, status: bytes = b"", unsigned: bytes = b"") -> bytes:
    """A reply of the right shape: what a parser meets on the way to the signature, and what is not signed."""
    info = der(0x30, der(0x02, b"\1"), der(0x30), der(0x30), der(0xA0), der(0x30), der(0x04, signature), unsigned)
    signed = der(0x30, der(0x02, b"\3"), der(0x31), der(0x30), der(0x31, info))
    token = der(0x30, der(0x06, b"*"), der(0xA0, signed))
    return der(0x30, der(0x30, der(0x02, b"\0"), status), token)


def test_a_key_follows_from_the_signature_and_not_from_bytes_that_an_owner_can_change() -> None:
    first = KEY.anchored(reply(b"s" * 64))
    varied = KEY.anchored(reply(b"s" * 64, status=der(0x0C, b"hello"), unsigned=der(0xA1, b"more")))
    other = KEY.anchored(reply(b"t" * 64))
    drawn = [k.randomness("frame content").standard_normal(4) for k in (first, varied, other, KEY)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[3])


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x05abc", reply(b"s")[:-1], b"\x30\x80\x00\x00", der(0x30, b"")])
def test_a_reply_without_a_token_is_refused(data: bytes) -> None:
    with pytest.raises(ClaimIntegrityError):
        token_signature(data)
