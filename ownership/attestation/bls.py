"""BLS signatures on BLS12-381 with signatures in G1 and public keys in G2 (RFC 9380 hashing), verified by `py_ecc`.

A message has exactly one valid signature under a key: the signer cannot choose among several.
"""

from __future__ import annotations

import hashlib

from ownership.io.extras import require

DOMAIN = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
"""Domain separation tag of the basic scheme with signatures in G1."""
SIGNATURE_BYTES, KEY_BYTES = 48, 96


def signature_valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether a signature is the one of a message; False for bytes that are no point of the group.

    The signature has to be in the subgroup of prime order: adding a point of another order would give further bytes
    that the pairing accepts.

    Args:
        public_key: compressed point of G2, 96 bytes, trusted.
        message: the bytes that were signed.
        signature: compressed point of G1, 48 bytes.

    Raises:
        OwnershipError: if `py_ecc` is not installed.

    References:
        [1] draft-irtf-cfrg-bls-signature-05, section 2.7 (CoreVerify).
        [2] RFC 9380, Hashing to Elliptic Curves, section 8.8.1.
    """
    require("py_ecc")
    from py_ecc.bls.hash_to_curve import hash_to_G1
    from py_ecc.bls.point_compression import compress_G1, decompress_G1, decompress_G2
    from py_ecc.bls.typing import G1Compressed, G2Compressed
    from py_ecc.fields import optimized_bls12_381_FQ12 as FQ12
    from py_ecc.optimized_bls12_381.optimized_curve import G2, curve_order, is_inf, multiply, neg
    from py_ecc.optimized_bls12_381.optimized_pairing import final_exponentiate, pairing

    if len(signature) != SIGNATURE_BYTES or len(public_key) != KEY_BYTES:
        return False
    number, half = int.from_bytes(signature, "big"), KEY_BYTES // 2
    try:
        point = decompress_G1(G1Compressed(number))
    except ValueError:
        return False
    if is_inf(point) or compress_G1(point) != number or not is_inf(multiply(point, curve_order)):
        return False
    halves = (int.from_bytes(public_key[:half], "big"), int.from_bytes(public_key[half:], "big"))
    key = decompress_G2(G2Compressed(halves))
    hashed = hash_to_G1(message, DOMAIN, hashlib.sha256)  # type: ignore[arg-type]  # typed as the hash, not its class
    product = pairing(G2, point, final_exponentiate=False) * pairing(key, neg(hashed), final_exponentiate=False)
    return bool(final_exponentiate(product) == FQ12.one())
