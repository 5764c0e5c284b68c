"""The Merkle tree of a seal: known answers, a naive tree, paths, salted leaves."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from ownership.attestation.merkle import inclusion_path, leads_to, leaf_hash, node_hash, root_hash, salted_leaf

RFC_6962 = [b"", b"\0", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"]
"""The leaves of the test vectors of Certificate Transparency (RFC 6962)."""


@pytest.mark.parametrize(
    ("n", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_known_answers_of_rfc_6962(n: int, root: str) -> None:
    assert root_hash([leaf_hash(x) for x in RFC_6962[:n]]).hex() == root


def _naive(leaves: list[bytes]) -> bytes:
    """Level by level: pairs are joined, an odd one out moves up. The same tree, thought of otherwise."""
    while len(leaves) > 1:
        pairs = [node_hash(a, b) for a, b in zip(leaves[::2], leaves[1::2], strict=False)]
        leaves = pairs + leaves[len(leaves) // 2 * 2 :]
    return leaves[0]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=40), st.data())
@examples(150)
def test_paths_lead_to_the_root_and_nothing_else_does(contents: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(c) for c in contents]
    index, size = data.draw(st.integers(0, len(leaves) - 1)), len(leaves)
    path, root = inclusion_path(leaves, index), root_hash(leaves)
    assert root == _naive(leaves)
    assert leads_to(leaves[index], index, size, path, root)
    assert not leads_to(leaf_hash(leaves[index]), index, size, path, root)
    assert not leads_to(leaves[index], index, size, path, leaf_hash(root))
    assert not leads_to(leaves[index], index, size, [*path, root], root)
    assert not leads_to(leaves[index], size, size, path, root)
    assert not leads_to(leaves[index], -1, size, path, root)
    assert size == 1 or not leads_to(root, 0, size, [], root)  # a node is no leaf
    if path:
        assert not leads_to(leaves[index], index, size, path[:-1], root)
        assert not leads_to(leaves[index], index, size, [*path[:-1], leaf_hash(path[-1])], root)


@given(
    st.binary(max_size=9), st.integers(-(2**80), 2**80), st.integers(-(2**80), 2**80), st.lists(st.binary(), max_size=9)
)
def test_no_stated_index_or_size_is_too_large(leaf: bytes, index: int, size: int, path: list[bytes]) -> None:
    assert leads_to(leaf, index, size, path, b"") in (True, False)


def test_a_salted_leaf_is_what_the_format_says() -> None:
    salt, digest = bytes(range(32)), hashlib.sha256(b"data").digest()
    assert salted_leaf(salt, "é", digest) == hashlib.sha256(b"\0" + salt + b"\0\0\0\2" + "é".encode() + digest).digest()
