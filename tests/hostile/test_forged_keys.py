"""Forgeries by an owner who knows the suspect and the key: each is refused, changes nothing, or is reported.

Every claim is built, saved, loaded and audited by the real code; only the encoders are small.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import independent_verifier
from support.encoders import Noisy, as_suspect, encoder, member
from support.independent_verifier import elements
from support.keys import claimed, rewritten
from support.tsa import Authority, make_authority
from torch import Tensor, nn

from ownership import audit
from ownership.attestation.timestamps import load_roots, read_reply, request, token_signature
from ownership.claims.claim import Claim
from ownership.claims.key_ranks import key_rank
from ownership.claims.record import NamedEncoder
from ownership.encoders.images import as_input, three_channels
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.evidence.querying import query
from ownership.io.canonical import base64_text
from ownership.keyed.drawn import Drawn
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from ownership.plan import Plan
from ownership.reports import key_text, sentences
from ownership.reports.html import render_html
from ownership.verdict.rule import Evidence, Verdict

LENIENT = Plan(key_alpha=0.05, interim_queries=(), interim_alpha_shares=(), min_probes=100)


class Projected(nn.Module):
    """An encoder followed by a linear map of its representations."""

    def __init__(self, base: nn.Module, matrix: Tensor) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("matrix", matrix)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.base(images) @ self.get_buffer("matrix")
        return out


def without_marked_directions(suspect: nn.Module, material: KeyMaterial, count: int) -> Projected:
    """Return the suspect less those directions of its representation that say most about the key's."""
    drawn = Drawn.of(material)
    with torch.no_grad():
        x = suspect(three_channels(as_input(material.probes))).double().numpy()
    marked = np.concatenate([drawn.features[name] @ drawn.frames[name] for name in drawn.features], 1)
    _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    vt, s = vt[s > 1e-6 * s[0]], s[s > 1e-6 * s[0]]
    whitened = (x - x.mean(0)) @ vt.T / s
    told = np.linalg.svd(whitened.T @ (marked - marked.mean(0)), full_matrices=False)[0][:, :count]
    matrix = (vt.T / s) @ (np.eye(len(s)) - told @ told.T) @ (s[:, None] * vt)
    return Projected(suspect, torch.from_numpy(matrix).float())


@pytest.mark.heavy
def test_a_panel_that_was_made_with_the_key_at_hand_changes_no_key_test(material: KeyMaterial, pool: Tensor) -> None:
    """Once panel members were baselines: one of these took an independent suspect from p 0.6 to p 0.00001."""
    suspect = encoder(50)
    crafted = [without_marked_directions(suspect, material, count) for count in (2, 3, 4, 6, 8)]
    panel = [NamedEncoder(member(f"m{i}", "plain"), e) for i, e in enumerate(crafted)]
    answers = query(suspect, {"public": material.probes}, "suspect")
    found = [key_rank(claimed(encoder(1), material, pool, panel=p), answers) for p in ((), panel)]
    assert found[0].pvalue > 0.01
    assert found[0] == found[1]


def test_an_unanchored_key_that_was_searched_for_is_said_to_be_possible(pool: Tensor) -> None:
    """At alpha 0.05 some twenty tries give a key that fits a known suspect; the first page says so."""
    suspect, stated = encoder(50), pool_of(pool[:200])
    for i in range(150):
        material = KeyMaterial.draw(Key(secret=i.to_bytes(32, "big"), pool=stated, probes=100), pool[:200])
        claim = claimed(encoder(1), material, pool[:200], plan=LENIENT)
        answers = query(suspect, {"public": material.probes}, "suspect")
        if key_rank(claim, answers).pvalue <= LENIENT.key_alpha:
            break
    report = audit(claim, as_suspect(suspect))
    assert report.decision.evidence == (Evidence.KEY,)
    said = key_text.key_summary(report)
    assert "The key is not anchored" in said
    assert "It is not excluded that the owner drew keys until one fitted" in said
    assert "It is not excluded that the owner drew keys" in render_html(report).split("<section>")[1]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "tsa", "Forgery authority")


def stamped(key: Key, authority: Authority, place: Path) -> bytes:
    (place / "q").write_bytes(request(key.commitment).as_bytes())
    return authority.reply(place / "q", place / "r").read_bytes()


N_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the group of the curve P-256."""


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([len(content)]) if len(content) < 128 else bytes([0x80 | len(size)]) + size) + content


def signature_of(reply: bytes) -> bytes:
    signed = elements(elements(elements(elements(reply)[0][1])[1][1])[1][1])[0][1]
    info = elements(elements(signed)[-1][1])[0][1]
    return next(content for tag, content in elements(info) if tag == 4)


def with_other(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return DER with one primitive content replaced, and every length around it."""
    return b"".join(
        der(tag, new if content == old else with_other(content, old, new) if tag & 0x20 else content)
        for tag, content in elements(data)
    )


def test_the_other_signature_of_an_ecdsa_token_gives_the_same_key(
    material: KeyMaterial, authority: Authority, tmp_path: Path
) -> None:
    """(r, n - s) verifies wherever (r, s) does: it needs no key, so it must not be another key."""
    roots, reply = load_roots(authority.roots), stamped(material.key, authority, tmp_path)
    signature = signature_of(reply)
    (_, r), (_, s) = elements(elements(signature)[0][1])
    other = N_P256 - int.from_bytes(s, "big")
    size = other.bit_length() // 8 + 1
    forged = with_other(reply, signature, der(0x30, der(2, r), der(2, other.to_bytes(size, "big"))))
    assert forged != reply
    read_reply(forged, material.key.commitment, roots)  # it is as good as the first
    first, second = (material.key.anchored(x) for x in (reply, forged))
    assert list(first.probe_indices()) == list(second.probe_indices())
    numbers = [k.randomness("frame content").standard_normal(8).tolist() for k in (first, second)]
    assert numbers[0] == numbers[1]


def test_no_byte_of_an_anchor_can_be_varied_to_draw_another_key(
    material: KeyMaterial, authority: Authority, tmp_path: Path
) -> None:
    reply, roots = stamped(material.key, authority, tmp_path), load_roots(authority.roots)
    expected, good = token_signature(reply), 0
    variants = [reply[:at] + bytes([reply[at] ^ 1 << bit]) + reply[at + 1 :] for at in range(len(reply))
                for bit in ((at % 8), (at + 5) % 8)]  # fmt: skip
    variants += [reply + b"\0", reply[:-1], b"\x30\x80" + reply[4:] + b"\0\0", reply[:2] + b"\0" + reply[2:]]
    for changed in variants:
        try:
            read_reply(changed, material.key.commitment, roots)
        except ClaimIntegrityError:
            continue
        good += 1
        assert token_signature(changed) == expected
    assert good  # unsigned bytes exist, and change nothing


def test_an_anchor_of_another_key_is_refused(pool: Tensor, authority: Authority, tmp_path: Path) -> None:
    first, second = (Key(secret=bytes([i]) * 32, pool=pool_of(pool), probes=300) for i in (1, 2))
    forged = KeyMaterial.draw(second.anchored(stamped(first, authority, tmp_path)), pool)
    claimed(encoder(1), forged, pool).save(tmp_path / "claim")
    with pytest.raises(ClaimIntegrityError, match="does not cover"):
        Claim.load(tmp_path / "claim")


def edits(stored: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "secret", {**stored, "secret": "00" * 32}
    yield "fewer probes", {**stored, "probes": stored["probes"] - 1}
    yield "directions", {**stored, "directions": stored["directions"] + 1}
    yield "pool", {**stored, "pool": {**stored["pool"], "sha256": "0" * 64}}
    yield "no anchor to one", {**stored, "anchor": base64_text(b"x")}
    for value in (None, True, -1, 0, 1e400, float("nan"), 10**12, 10**30, "", "x", [], {}, 300.0, 10**400):
        for name in ("format_version", "probes", "directions", "pool", "secret"):
            yield f"{name} {value!r}", {**stored, name: value}
        for name in ("images", "shape", "sha256"):
            yield f"pool {name} {value!r}", {**stored, "pool": {**stored["pool"], name: value}}


MALFORMED = (independent_verifier.Bad, KeyError, TypeError, ValueError, OverflowError, IndexError, AttributeError)
"""What the independent verifier raises; its command ends with a traceback for some."""


def test_an_edited_key_is_refused_in_one_line(folder: Path) -> None:
    stored = json.loads((folder / "keyed.json").read_bytes())
    for name, changed in edits(stored):
        data = (json.dumps(changed, indent=2, sort_keys=True) + "\n").encode()
        with pytest.raises(ClaimError) as e:
            Claim.load(rewritten(folder, {"keyed.json": data}))
        assert e.value.exit_code in (2, 6), name
        with pytest.raises(MALFORMED):
            independent_verifier.check_key(folder, json.loads((folder / "claim.json").read_bytes()), None)


def test_another_spelling_of_the_key_is_refused(folder: Path) -> None:
    """Two programs may read two values from one file with a field twice."""
    data = (folder / "keyed.json").read_bytes().replace(b'"directions": 4,', b'"directions": 9, "directions": 4,')
    with pytest.raises(ClaimError, match="no canonical JSON"):
        Claim.load(rewritten(folder, {"keyed.json": data}))


@pytest.mark.parametrize("part", ["pool.sha256"])
def test_another_pool_is_refused(folder: Path, part: str) -> None:
    data = bytearray((folder / part).read_bytes())
    data[5] ^= 1
    for changed in (bytes(data), bytes(data[:-32]), b"x", bytes(data) * 2):
        with pytest.raises(ClaimIntegrityError, match="not the one that it was committed to"):
            Claim.load(rewritten(folder, {part: changed}))


def test_the_colors_of_gray_probes_cannot_be_edited(material: KeyMaterial, pool: Tensor, tmp_path: Path) -> None:
    """A gray pool may be stored with three channels, of which the digests cover one."""
    from safetensors.torch import load, save

    claimed(encoder(1), material, pool).save(tmp_path / "claim")
    tensors = load((tmp_path / "claim/probes.safetensors").read_bytes())
    public = tensors["public"].expand(-1, 3, -1, -1).contiguous()
    claim = Claim.load(rewritten(tmp_path / "claim", {"probes.safetensors": save({**tensors, "public": public})}))
    assert claim.probes["public"].shape[1] == 3
    content = json.loads((tmp_path / "claim/claim.json").read_bytes())
    independent_verifier.check_key(tmp_path / "claim", content, None)
    public[7, 2, 3, 3] ^= 2
    rewritten(tmp_path / "claim", {"probes.safetensors": save({**tensors, "public": public})})
    with pytest.raises(ClaimIntegrityError, match="not gray: they were edited"):
        Claim.load(tmp_path / "claim")
    with pytest.raises(independent_verifier.Bad, match="channels"):
        independent_verifier.check_key(tmp_path / "claim", content, None)


def test_keys_tried_are_declared_and_shown(folder: Path) -> None:
    claim = Claim.load(rewritten(folder, {}, keys_tried=40))
    report = audit(claim, as_suspect(encoder(50)))
    assert report.findings.key is not None
    assert report.findings.key.keys_tried == 40
    for value in (0, -1, True, 1.5, "1", None):
        with pytest.raises(ClaimError):
            Claim.load(rewritten(folder, {}, keys_tried=value))


def test_a_victim_made_from_the_suspect_is_not_found_by_the_key(material: KeyMaterial, pool: Tensor) -> None:
    """The tests against the panel are symmetric, and the first page says so; the key test is not."""
    suspect = encoder(50)
    panel = [NamedEncoder(member(f"m{i}", "plain" if i < 6 else "watermarked"), encoder(60 + i)) for i in range(12)]
    claim = claimed(Noisy(suspect, 3, 0.002), material, pool, panel=panel)
    report = audit(claim, as_suspect(suspect))
    assert Evidence.KEY not in report.decision.evidence
    assert report.decision.evidence == (Evidence.PANEL,)
    said = sentences.tests_summary(report)
    assert "Nothing shows that the victim is older than the suspect" in said
    assert "weaker than the victim" in said  # and they are: untrained, as every encoder here
    assert "Nothing shows that the victim is older" in render_html(report).split("<section>")[1]


def test_the_suspects_own_representations_as_the_victims_do_not_fit_the_key(folder: Path, pool: Tensor) -> None:
    from safetensors.torch import save

    claim, suspect = Claim.load(folder), encoder(50)
    rows = query(suspect, claim.probes, "victim").sets
    swapped = save({name: torch.from_numpy(x.copy()) for name, x in rows.items()})
    report = audit(Claim.load(rewritten(folder, {"representations/victim.safetensors": swapped})), as_suspect(suspect))
    assert report.verdict is Verdict.INCONCLUSIVE  # the key test does not find the victim itself
    assert "not even the victim" in " ".join(sentences.reasons(report))
