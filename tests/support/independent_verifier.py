"""A verifier of sealed claims, views and signed reports, written from docs/format.md: nothing of Turnmark is imported.

    python independent_verifier.py CLAIM|REPORT [KEY.pub [ROOTS.pem]]

Prints "good", or what is wrong and ends with 6. Timestamps are left to `openssl ts -verify`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key


class Bad(Exception):
    pass


def need(good: object, what: str) -> None:
    if not good:
        raise Bad(what)


def sha256(*data: bytes) -> bytes:
    return hashlib.sha256(b"".join(data)).digest()


def canonical(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse(data: bytes, what: str) -> Any:
    try:
        value = json.loads(data)
        need(isinstance(value, dict) and canonical(value) == data, f"{what}: not canonical")
    except (ValueError, RecursionError) as e:
        raise Bad(f"{what}: not JSON") from e
    return value


def read(path: Path) -> bytes:
    need(path.is_file() and not path.is_symlink(), f"{path.name} is missing")
    return path.read_bytes()


def rows_of(tensors: bytes, name: str) -> list[bytes]:
    """Safetensors: the bytes of each row of one tensor."""
    start = 8 + int.from_bytes(tensors[:8], "little")
    entry = json.loads(tensors[8:start])[name]
    begin, end = entry["data_offsets"]
    data, count = tensors[start + begin : start + end], entry["shape"][0]
    step = len(data) // count
    return [data[i * step : (i + 1) * step] for i in range(count)]


def images_of(probes: bytes, name: str, channels: int | None = None) -> list[bytes]:
    """Safetensors: 8 bytes length of the header, little endian; the header, JSON; the tensors."""
    start = 8 + int.from_bytes(probes[:8], "little")
    entry = json.loads(probes[8:start]).get(name, {"shape": [0], "data_offsets": [0, 0]})
    begin, end = entry["data_offsets"]
    data, (stored, *sides) = probes[start + begin : start + end], entry["shape"][1:] or [0]
    kept = (stored if channels is None else channels, *sides)  # a gray image may be stored with three equal channels
    size, step = math.prod(kept), math.prod((stored, *sides))
    each = [data[i * step : (i + 1) * step] for i in range(entry["shape"][0])]
    need(all(x == x[:size] * (len(x) // size) for x in each), "the channels of a gray image differ")
    return [f"{kept}".encode() + x[:size] for x in each]


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01", root(leaves[:k]), root(leaves[k:]))


def opened(folder: Path, name: str, expected: Path | None) -> bytes:
    """The payload of the envelope in folder/seal, its signature checked."""
    seal = folder / "seal"
    need(seal.is_dir() and not seal.is_symlink(), "no seal")
    pem, envelope_bytes = read(seal / name), read(seal / "statement.dsse.json")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise Bad(f"{name}: no key") from e
    need(isinstance(key, Ed25519PublicKey), f"{name}: no Ed25519 key")
    need(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) == pem, f"{name}: more than a key")
    need(expected is None or expected.read_bytes() == pem, "another key than the one given")
    envelope, kind = parse(envelope_bytes, "envelope"), b"application/vnd.in-toto+json"
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signature,) = envelope["signatures"]
        sig = base64.b64decode(signature["sig"], validate=True)
    except (KeyError, TypeError, ValueError) as e:
        raise Bad("envelope: malformed") from e
    keyid = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex()
    again = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind.decode(),
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(sig).decode()}],
    }
    need(envelope == again, "envelope: a field is not what it must be")
    try:
        key.verify(sig, b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    except InvalidSignature as e:
        raise Bad("signature") from e
    return payload


def check_timestamps(folder: Path, roots: Path | None) -> None:
    seal = folder / "seal"
    for path in (seal / "timestamps").iterdir() if (seal / "timestamps").is_dir() else ():
        need(path.name == sha256(read(path)).hex() + ".tsr", "a timestamp's name")
        if roots is not None:
            command = ["openssl", "ts", "-verify", "-data", seal / "statement.dsse.json", "-in", path, "-CAfile", roots]
            need(subprocess.run(command, capture_output=True).returncode == 0, "a timestamp")


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each DER element."""
    out, at = [], 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            length, at = int.from_bytes(data[at : at + (length & 0x7F)], "big"), at + (length & 0x7F)
        if at + length > len(data):
            raise ValueError("cut off")
        out.append((tag, data[at : at + length]))
        at += length
    return out


def r_of_ecdsa(signature: bytes) -> bytes:
    """Of (r, s), r alone, because (r, n - s) is valid, too; any other signature whole."""
    try:
        ((tag, inside),) = elements(signature)
        numbers = elements(inside) if tag == 0x30 else []
    except (ValueError, IndexError):
        return signature
    return numbers[0][1] if [tag for tag, _ in numbers] == [2, 2] else signature


def anchored(commitment: bytes, reply: bytes, roots: Path | None, what: str) -> bytes:
    """What counts of an authority's signature, after `openssl ts -verify` where there are roots."""
    token = elements(elements(elements(reply)[0][1])[1][1])[1][1]
    (info,) = elements(elements(elements(token)[0][1])[-1][1])
    (signature,) = [content for tag, content in elements(info[1]) if tag == 4]
    if roots is not None:
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "data").write_bytes(commitment)
            (Path(place) / "reply").write_bytes(reply)
            command = ["openssl", "ts", "-verify", "-data", "data", "-in", "reply", "-CAfile", roots.resolve()]
            need(subprocess.run(command, capture_output=True, cwd=place).returncode == 0, what)
    return r_of_ecdsa(signature)


def check_key(folder: Path, claim: dict[str, Any], roots: Path | None) -> None:
    """The commitment, its anchor, the seed that follows from both, and the probes that it draws from the pool."""
    if "keyed.json" not in claim["parts"]:
        return
    key, digests = parse(read(folder / "keyed.json"), "keyed.json"), read(folder / "pool.sha256")
    named = {"format_version", "secret", "probes", "directions", "pool", "anchor"}
    need(key.keys() - {"features", "beacon"} == named, "keyed.json: its fields")
    secret, pool = bytes.fromhex(key["secret"]), key["pool"]
    need(pool.keys() == {"sha256", "images", "shape"} and len(secret) == 32, "keyed.json: its fields")
    numbers = (key["format_version"], key["probes"], key["directions"], pool["images"], *pool["shape"])
    need(all(type(x) is int and x > 0 for x in numbers) and key["format_version"] == 1, "keyed.json: its numbers")
    hidden = sha256(b"turnmark key secret", secret).hex()
    stated = {"turnmark_key": 1, "secret_sha256": hidden, "pool": pool}
    features = {name: key[name] for name in ("features",) if name in key}
    beacon = named_round(key)
    commitment = canonical({**stated, **features, **beacon, "probes": key["probes"], "directions": key["directions"]})
    need(len(digests) == 32 * pool["images"] and sha256(digests).hex() == pool["sha256"], "pool.sha256")
    signature = b""
    if key["anchor"] is not None:
        signature = anchored(commitment, base64.b64decode(key["anchor"], validate=True), roots, "the key's anchor")
    if beacon:
        signature = signature_of_round(key)
    purpose = [b"turnmark-key-1", commitment, signature, b"probes"]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in purpose)
    words = np.frombuffer(hmac.digest(secret, message, "sha256"), dtype=">u4").astype(np.uint32)
    drawn = np.random.RandomState(words).permutation(pool["images"])[: key["probes"]]
    probes = images_of(read(folder / "probes.safetensors"), "public", pool["shape"][0])
    need(b"".join(map(sha256, probes)) == b"".join(digests[32 * i : 32 * (i + 1)] for i in drawn), "the drawn probes")
    check_plan(claim["plan"])
    if features:
        stored = read(folder / "features.safetensors")
        digests = b"".join(rows_of(stored, "digests"))
        need(len(digests) == 32 * pool["images"], "the features of the pool")
        need(sha256(digests).hex() == key["features"]["sha256"], "the features of the pool")
        rows = b"".join(map(sha256, rows_of(stored, "rows")))
        need(rows == b"".join(digests[32 * i : 32 * (i + 1)] for i in drawn), "the features of the probes")


def check_plan(plan: dict[str, Any]) -> None:
    """Interim analyses after usual numbers of queries, or none: an owner may not pick a lucky number."""
    stated = list(zip(plan["interim_queries"], plan["interim_alpha_shares"], strict=True))
    need(all(look in ((250, 0.2), (500, 0.3)) for look in stated), "the plan's interim analyses")
    need(not stated or plan["repeat_share"] == 0.05, "the plan's repeated queries")


def named_round(stored: dict[str, Any]) -> dict[str, Any]:
    """What a commitment says of a beacon's round."""
    return {name: {k: stored[name][k] for k in ("chain", "round")} for name in ("beacon",) if name in stored}


def signature_of_round(stored: dict[str, Any]) -> bytes:
    """The signature of the round that a commitment names, verified."""
    beacon = stored["beacon"]
    need(beacon.keys() == {"chain", "round", "signature"}, "a round's fields")
    signature = bytes.fromhex(beacon["signature"])
    check_round(beacon["chain"], beacon["round"], signature)
    return signature


def check_twins(folder: Path, claim: dict[str, Any], roots: Path | None) -> None:
    """The commitment to the twins, its signature, the pick that follows, and that the victim is the one picked."""
    if "twins.json" not in claim["parts"]:
        return
    stored = parse(read(folder / "twins.json"), "twins.json")
    named = {"format_version", "probes", "recipe", "twins", "anchor"}
    need(stored.keys() - {"beacon"} == named, "twins.json: its fields")
    twins = stored["twins"]
    need(isinstance(stored["anchor"], str) or "beacon" in stored, "nothing is picked without a signature")
    need(stored["format_version"] == 1 and 2 <= len(twins) <= 128, "twins.json: its numbers")
    need(all(t.keys() == {"encoder", "representations"} for t in twins), "twins.json: its fields")
    names = [t["encoder"] for t in twins]
    need(names == sorted(set(names)), "the order of the twins")
    for i, t in enumerate(twins):
        need(claim["parts"][f"twins/{i}.safetensors"]["sha256"] == t["representations"], "a twin's representations")
    key = parse(read(folder / "keyed.json"), "keyed.json")
    probes = images_of(read(folder / "probes.safetensors"), "public", key["pool"]["shape"][0])
    need(sha256(*map(sha256, probes)).hex() == stored["probes"], "the twins are of other probes")
    recipe = sha256(canonical(stored["recipe"])).hex()
    stated = {"turnmark_twins": 1, "probes": stored["probes"], "recipe_sha256": recipe, "twins": twins}
    commitment, signature = canonical({**stated, **named_round(stored)}), b""
    if stored["anchor"] is not None:
        signature = anchored(commitment, base64.b64decode(stored["anchor"], validate=True), roots, "the twins' anchor")
    if "beacon" in stored:
        signature = signature_of_round(stored)
    parts = [b"turnmark-twins-1", commitment, signature]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    picked = int.from_bytes(sha256(message), "big") % len(twins)
    need(claim["victim"]["sha256"] == names[picked], "the victim is not the twin that was picked")


QUICKNET = bytes.fromhex(
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e6"
    "3aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
)


def check_round(chain: str, number: int, signature: bytes) -> None:
    """The signature of a round of drand quicknet: e(S, G2) = e(H(sha256(round)), key), S in the prime-order group."""
    limit = sys.getrecursionlimit()
    from py_ecc.bls.hash_to_curve import hash_to_G1
    from py_ecc.bls.point_compression import decompress_G1, decompress_G2
    from py_ecc.optimized_bls12_381 import G2, curve_order, is_inf, multiply, pairing

    sys.setrecursionlimit(limit)  # py_ecc raises it: then nested JSON overflows the C stack
    group = bytes.fromhex("f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e")
    times = (3).to_bytes(4, "big") + (1692803367).to_bytes(8, "big")
    need(sha256(times, QUICKNET, group, b"quicknet").hex() == chain, "the beacon's chain")
    key = decompress_G2((int.from_bytes(QUICKNET[:48], "big"), int.from_bytes(QUICKNET[48:], "big")))
    need(len(signature) == 48, "the beacon's signature")
    point = decompress_G1(int.from_bytes(signature, "big"))
    need(not is_inf(point) and is_inf(multiply(point, curve_order)), "the beacon's signature")
    domain = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
    hashed = hash_to_G1(sha256(number.to_bytes(8, "big")), domain, hashlib.sha256)
    need(pairing(G2, point) == pairing(key, hashed), "the beacon's signature")


def verify(folder: Path, owner: Path | None = None, roots: Path | None = None) -> None:
    claim_json = read(folder / "claim.json")
    claim = parse(claim_json, "claim.json")
    digest = claim.pop("content_sha256", None)
    need(sha256(canonical(claim)).hex() == digest, "claim.json: its digest")

    payload = opened(folder, "owner.pub", owner)
    need(f'"claim_sha256": "{digest}"'.encode() in payload, "the seal is of another claim")

    hidden, hidden_parts = {}, []
    if (folder / "redacted.json").exists():
        view = parse(read(folder / "redacted.json"), "redacted.json")
        possible = ("key.json", "private_probes.safetensors", "projection_head.safetensors")
        hidden_parts = [name for name in possible if name in claim["parts"]]
        need(possible[1] in hidden_parts, "redacted.json: nothing to withhold")
        need(not any((folder / name).exists() for name in hidden_parts), "a withheld part is there")
        images = json.loads(payload)["predicate"]["leaves"] - len(claim["parts"]) - 1
        hidden = view.pop("leaves", None)
        need(view == {"format_version": 1, "claim_sha256": digest, "parts": hidden_parts}, "redacted.json: its fields")
        need(isinstance(hidden, dict), "redacted.json: no leaves")
        need(hidden.keys() == {*hidden_parts, *(f"private/{i}" for i in range(images))}, "redacted.json: its leaves")
        need(
            all(isinstance(x, str) and len(x) == 64 and x == bytes.fromhex(x).hex() for x in hidden.values()), "a leaf"
        )
    names = {name: read(folder / name) for name in sorted(set(claim["parts"]) - set(hidden_parts))}
    for name, data in names.items():
        need(sha256(data).hex() == claim["parts"][name]["sha256"], f"{name}: its digest")
    leaves = {name: sha256(data) for name, data in names.items()} | {"claim.json": sha256(claim_json)}
    need(claim["format_version"] == 1, "claim.json: its format version")
    part = "private_probes.safetensors"
    leaves |= {f"private/{i}": sha256(x) for i, x in enumerate(images_of(names[part], "private") if not hidden else ())}
    salts = parse(read(folder / "seal/salts.json"), "salts.json")
    need(salts.keys() == {"format_version", "salts"} and salts["format_version"] == 1, "salts.json: its fields")
    need(isinstance(salts["salts"], dict) and salts["salts"].keys() == leaves.keys(), "salts.json: its leaves")
    hashes = {name: bytes.fromhex(leaf) for name, leaf in hidden.items()}
    for name in leaves:
        text = salts["salts"][name]
        need(isinstance(text, str) and len(text) == 64 and not set(text) - set("0123456789abcdef"), "a salt")
        encoded = name.encode()
        hashes[name] = sha256(b"\0", bytes.fromhex(text), len(encoded).to_bytes(4, "big"), encoded, leaves[name])
    hashed = [hashes[name] for name in sorted(hashes)]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "claim", "digest": {"sha256": digest}}],
        "predicateType": "urn:uuid:d2a90f6f-0d56-4374-bd48-732b3f6f7f1f",
        "predicate": {
            "format_version": 1,
            "claim_sha256": digest,
            "plan_sha256": sha256(canonical(claim["plan"])).hex(),
            "merkle_root": root(hashed).hex(),
            "leaves": len(hashed),
        },
    }
    need(canonical(statement) == payload, "the statement is of something else")
    check_key(folder, claim, roots)
    check_twins(folder, claim, roots)
    check_timestamps(folder, roots)


def verify_report(folder: Path, auditor: Path | None = None, roots: Path | None = None) -> None:
    files = {name: read(folder / name) for name in ("report.json", "report.html")}
    report = parse(files["report.json"], "report.json")
    payload = opened(folder, "auditor.pub", auditor)
    stated = parse(payload, "the statement")["predicate"]
    examined = {"claim": report["claim"]["sha256"], "suspect": report["suspect"]["sha256"]}
    if report["suspect"]["probes_sha256"] is not None:
        examined["probes"] = report["suspect"]["probes_sha256"]
    checked = report.get("models_checked") or {}
    examined |= {f"model {n}": check["sha256"] for n, check in checked.items() if check["recomputed"]}
    examined |= {f"auditor {m['name']}": m["sha256"] for m in report.get("auditor_panel", ())}
    ways = [[{k: r[k] for k in ("source", "on", "by")} for r in item["received"]] for item in stated["custody"]]
    need(datetime.fromisoformat(stated["signed_at"]).tzinfo, "the time of signing")
    for way in ways:
        for step in way:
            datetime.fromisoformat(step["on"])
            need(isinstance(step["source"], str) and isinstance(step["by"], str | None), "a name")
    need(isinstance(stated["auditor"], str | None), "the auditor's name")
    need(len(ways) == len(examined), "custody of something else")
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": n, "digest": {"sha256": sha256(data).hex()}} for n, data in files.items()],
        "predicateType": "urn:uuid:34e98faa-e549-4ad3-b364-9655728264bd",
        "predicate": {
            "format_version": 1,
            "auditor": stated["auditor"],
            "signed_at": stated["signed_at"],
            "custody": [
                {"what": what, "sha256": digest, "received": way}
                for (what, digest), way in zip(examined.items(), ways, strict=True)
            ],
        },
    }
    need(canonical(statement) == payload, "the statement is of something else")
    check_timestamps(folder, roots)


if __name__ == "__main__":
    try:
        place, *others = map(Path, sys.argv[1:])
        (verify if (place / "claim.json").exists() else verify_report)(place, *others)
    except Bad as e:
        print("bad:", e)
        sys.exit(6)
    print("good")
