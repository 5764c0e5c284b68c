"""Merkle trees of the shape of RFC 6962: one digest commits to many items, each of which can be proven alone.

`leaf` = SHA-256(0x00 || content), `node` = SHA-256(0x01 || left || right). The two prefixes keep a node from passing
for a leaf. A tree of n > 1 leaves splits after the largest power of two below n.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

SALT_BYTES = 32


def leaf_hash(content: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def salted_leaf(salt: bytes, name: str, digest: bytes) -> bytes:
    """Return the leaf of a named item: the hash of salt, length of the name (4 bytes, big endian), name and digest.

    Without the secret salt, a leaf would confirm a guess at its data, such as an image of a public data set.

    Args:
        salt: 32 random bytes, different for every leaf.
        name: Name of the item.
        digest: SHA-256 of its data, 32 bytes.
    """
    encoded = name.encode()
    return leaf_hash(salt + len(encoded).to_bytes(4, "big") + encoded + digest)


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree over leaf hashes; without leaves, the SHA-256 of no bytes."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node_hash(root_hash(leaves[:k]), root_hash(leaves[k:]))


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes beside the way from leaf `index` (from 0) to the root, lowest first."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_path(leaves[:k], index), root_hash(leaves[k:])]
    return [*inclusion_path(leaves[k:], index - k), root_hash(leaves[:k])]


def leads_to(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Return whether a path leads from a leaf to the root (RFC 9162, section 2.1.3.2).

    The loop makes at most one step per hash of the path, whatever index and size an untrusted file states.

    Args:
        leaf: Hash of the leaf.
        index: Index of the leaf, from 0.
        size: Number of leaves of the tree.
        path: Hashes beside the way to the root, lowest first.
        root: The root.
    """
    if not 0 <= index < size:
        return False
    at, last, value = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at % 2 == 1 or at == last:
            value = node_hash(sibling, value)
            while at % 2 == 0 and at != 0:
                at, last = at // 2, last // 2
        else:
            value = node_hash(value, sibling)
        at, last = at // 2, last // 2
    return last == 0 and hmac.compare_digest(value, root)


def _split(n: int) -> int:
    """Return the largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)
