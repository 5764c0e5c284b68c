from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ownership.attestation.timestamps import token_signature
from ownership.errors import ClaimError, ClaimIntegrityError, DataError
from ownership.io.canonical import sha256
from ownership.keyed.key import Key, Pool, new_key
from ownership.keyed.pool import KeyMaterial, digests_of, pool_of


def images(n: int = 120, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


POOL = pool_of(images())
KEY = Key(secret=bytes(range(32)), pool=POOL, probes=100, directions=8)


def test_two_new_keys_share_nothing() -> None:
    first, second = new_key(POOL), new_key(POOL)
    assert first.secret != second.secret
    assert first.commitment != second.commitment
    assert list(first.probe_indices()) != list(second.probe_indices())


def test_the_commitment_binds_everything_an_owner_could_choose_and_reveals_no_secret() -> None:
    other = Pool(sha256="0" * 64, images=POOL.images, shape=POOL.shape)
    changed = [
        Key(secret=bytes(32), pool=POOL, probes=100),
        Key(secret=KEY.secret, pool=other, probes=100),
        Key(secret=KEY.secret, pool=POOL, probes=100, directions=9),
        Key(secret=KEY.secret, pool=POOL, probes=101),
    ]
    assert len({KEY.commitment, *(k.commitment for k in changed)}) == 5
    assert KEY.secret.hex().encode() not in KEY.commitment
    assert json.loads(KEY.commitment)["secret_sha256"] != sha256(KEY.secret)  # no digest that other files may hold


def test_numbers_of_a_key_stay_the_same_in_later_versions() -> None:
    # the frames of every claim hang on these numbers; NumPy promises that its legacy stream never changes (NEP 19)
    assert KEY.randomness("frame content").standard_normal(3).round(9).tolist() == FROZEN_FRAME
    assert KEY.probe_indices()[:5].tolist() == FROZEN_PROBES


FROZEN_FRAME = [-0.598495489, 1.770780991, 0.650790308]
FROZEN_PROBES = [113, 88, 75, 76, 59]


def test_each_purpose_has_its_own_numbers() -> None:
    drawn = [KEY.randomness(purpose).standard_normal() for purpose in ("frame content", "frame invariant", "probes")]
    assert len(set(drawn)) == 3


@given(st.binary(min_size=32, max_size=32), st.integers(1, 64), st.none() | st.binary(min_size=1, max_size=50))
def test_a_stored_key_is_the_same_key(secret: bytes, directions: int, anchor: bytes | None) -> None:
    key = Key(secret=secret, pool=POOL, probes=100, directions=directions, anchor=anchor)
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


def test_probes_are_drawn_without_replacement() -> None:
    assert len(set(KEY.probe_indices())) == 100
    assert sorted(new_key(POOL, probes=120).probe_indices()) == list(range(120))
    with pytest.raises(ClaimError, match="2000 probes of a pool of 120"):
        new_key(POOL, probes=2000)
    assert new_key(POOL).probes == 100


def test_probes_come_from_the_pool_of_the_commitment_only() -> None:
    material = KeyMaterial.draw(KEY, images())
    assert torch.equal(material.probes, images()[KEY.probe_indices()])
    material.check()
    with pytest.raises(ClaimError, match="not the ones"):
        KeyMaterial.draw(KEY, images(seed=1))


def test_a_gray_pool_may_be_given_in_one_channel_or_three() -> None:
    """An example expands gray images to three channels; its pool is the same data set for `claim build`."""
    gray = images()[:, :1].contiguous()
    for pool, other in ((gray, gray.expand(-1, 3, -1, -1)), (gray.expand(-1, 3, -1, -1).contiguous(), gray)):
        key = replace(KEY, pool=pool_of(pool))
        found, again = KeyMaterial.draw(key, pool), KeyMaterial.draw(key, other)
        assert torch.equal(found.probes, again.probes)
        assert found.digests == again.digests
    colored = gray.expand(-1, 3, -1, -1).contiguous()
    colored[3, 1, 2, 2] ^= 1
    with pytest.raises(ClaimError, match="not the ones"):
        KeyMaterial.draw(replace(KEY, pool=pool_of(gray)), colored)


def test_a_probe_that_was_moved_by_one_level_is_refused() -> None:
    material = KeyMaterial.draw(KEY, images())
    material.probes[7, 0, 3, 3] ^= 1
    with pytest.raises(ClaimIntegrityError, match="picked or edited"):
        material.check()


def test_picked_probes_are_refused() -> None:
    material = KeyMaterial.draw(KEY, images())
    with pytest.raises(ClaimIntegrityError, match="picked or edited"):
        replace(material, probes=images()[:100]).check()


def test_another_pool_is_refused() -> None:
    material, other = KeyMaterial.draw(KEY, images()), images(seed=1)
    with pytest.raises(ClaimIntegrityError, match="pool"):
        replace(material, probes=other[KEY.probe_indices()], digests=digests_of(other)).check()


def test_a_key_folder_is_read_back_and_its_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    material = KeyMaterial.draw(KEY, images())
    material.save(tmp_path)
    loaded = KeyMaterial.load(tmp_path)
    assert loaded.key == KEY
    assert torch.equal(loaded.probes, material.probes)
    assert {f.stat().st_mode & 0o777 for f in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["key.json", "probes.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_a_damaged_key_folder_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    KeyMaterial.draw(KEY, images()).save(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(ClaimError):
        KeyMaterial.load(tmp_path)


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
