"""A Merkle tree of the shape of RFC 6962: one digest that stands for many things, each provable alone.

`leaf` = SHA-256(0x00 || content), `node` = SHA-256(0x01 || left || right); the two prefixes keep a node from passing
for a leaf. A tree of n > 1 leaves splits after the largest power of two below n.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

SALT_BYTES = 32


def leaf_hash(content: bytes) -> bytes:
    """Returns the hash of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Returns the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def salted_leaf(salt: bytes, name: str, digest: bytes) -> bytes:
    """Returns the leaf of a named thing: of salt, length of the name (4 bytes, big endian), name, its data's SHA-256.

    Without the secret salt a leaf would betray what can be guessed: an image that is in a public set, a usual plan.

    Args:
        salt: 32 random bytes, another one for every leaf.
        name: what it is, in UTF-8.
        digest: the 32 bytes of its data's SHA-256.
    """
    encoded = name.encode()
    return leaf_hash(salt + len(encoded).to_bytes(4, "big") + encoded + digest)


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """Returns the root of a tree over leaf hashes; of no leaves, SHA-256 of nothing."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node_hash(root_hash(leaves[:k]), root_hash(leaves[k:]))


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Returns the hashes beside the way from leaf `index` (from 0) to the root, lowest first."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_path(leaves[:k], index), root_hash(leaves[k:])]
    return [*inclusion_path(leaves[k:], index - k), root_hash(leaves[:k])]


def leads_to(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Returns whether `path` leads from `leaf`, number `index` of `size`, to `root` (RFC 9162, section 2.1.3.2).

    A loop over the path: whatever index and size a stranger states, it ends after as many steps as the path is long.
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
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)
