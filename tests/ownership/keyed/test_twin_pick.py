"""Twins: the commitment, the pick, and the rank.

H0: the suspect does not depend on the pick. H1: it is made from the picked twin. Unit: the pick. Assumption: the pick
is uniform over the twins and was not known when they, and their representations, were fixed.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from support.beacon import NAMED, SIGNATURE

from ownership.attestation.timestamps import Timestamp
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import sha256
from ownership.keyed.anchoring import anchor_request, anchored_with
from ownership.keyed.regression import cross_fitted
from ownership.keyed.twin_test import BLOCK, reaching, twin_components, twin_scores
from ownership.keyed.twins import LEAST, MOST, Twin, TwinCommitment

Array = NDArray[np.float64]


def digests(n: int, label: str = "") -> list[str]:
    return sorted(sha256(f"{label}{i}".encode()) for i in range(n))


def committed(m: int, **changes: Any) -> TwinCommitment:
    twins = tuple(Twin(encoder=e, representations=sha256(e.encode())) for e in digests(m))
    return replace(TwinCommitment(probes=sha256(b"p"), recipe={"epochs": 3}, twins=twins), **changes)


def fake_reply(signature: bytes, unsigned: bytes = b"") -> bytes:
    """The outline of a TimeStampResp: what `token_signature` reads, with unsigned bytes at the end of the signer."""

    def der(tag: int, *content: bytes) -> bytes:
        data = b"".join(content)
        size = len(data)
        head = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])
        return bytes([tag]) + head + data

    info = der(0x30, der(2, b"\x01"), der(4, signature), *([der(0xA1, unsigned)] if unsigned else []))
    token = der(0x30, der(6, b"\x2a"), der(0xA0, der(0x30, der(2, b"\x03"), der(0x31, info))))
    return der(0x30, der(0x30, der(2, b"\x00")), token)


# --- the statistic


def features(n: int, d: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((n, d))


def population(m: int, n: int = 160, d: int = 6) -> list[Array]:
    """Twins: something in common, something of each one's own."""
    common = features(n, d, 1000)
    return [common @ features(d, d, i) + features(n, d, 100 + i) for i in range(m)]


def naive_scores(suspect: Array, twins: list[Array]) -> list[float]:
    """The same scores by loops: eigenvectors of the Gram matrix, sums of squares image by image."""
    components = []
    for x in twins:
        values, vectors = np.linalg.eigh((x - x.mean(0)) @ (x - x.mean(0)).T)
        order = np.argsort(-values)[: min(32, x.shape[1])]
        components.append(vectors[:, order])
    together = np.concatenate(components, axis=1)
    predicted = cross_fitted(suspect, together - together.mean(0))
    scores, at = [], 0
    for c in components:
        missed = variance = 0.0
        for j in range(c.shape[1]):
            for i in range(len(c)):
                y = c[i, j] - c[:, j].mean()
                variance += y * y
                missed += (y - predicted[i, at + j]) ** 2
        at += c.shape[1]
        scores.append(1 - missed / variance)
    return scores


def test_scores_and_rank_are_those_of_naive_loops() -> None:
    twins, suspect = population(5), features(160, 7, 3)
    scores = twin_scores(suspect, [twin_components(x) for x in twins])
    assert scores == pytest.approx(naive_scores(suspect, twins), abs=1e-9)
    for picked in range(5):
        count = 0
        for i in range(5):
            if i != picked and scores[i] >= scores[picked]:
                count += 1
        assert reaching(scores, picked) == count


def test_a_copy_ranks_first_whatever_linear_map_hides_it() -> None:
    twins = population(9)
    components = [twin_components(x) for x in twins]
    for picked in (0, 4, 8):
        copy = twins[picked] + 0.5 * features(160, 6, 77)
        mixed = copy @ features(6, 6, 78)
        plain, hidden = (twin_scores(x, components) for x in (copy, mixed))
        assert reaching(plain, picked) == reaching(hidden, picked) == 0
        assert hidden == pytest.approx(plain, abs=0.02)


def test_scores_of_a_twin_do_not_depend_on_its_place_or_on_the_pick() -> None:
    twins, suspect = [twin_components(x) for x in population(6)], features(160, 7, 3)
    scores = twin_scores(suspect, twins)
    assert twin_scores(suspect, twins[::-1]) == pytest.approx(scores[::-1])


def test_many_twins_are_predicted_in_blocks() -> None:
    twins = [twin_components(x) for x in population(BLOCK + 2, n=60, d=2)]
    suspect = features(60, 3, 3)
    assert len(twin_scores(suspect, twins)) == BLOCK + 2
    assert twin_scores(suspect, twins)[BLOCK:] == twin_scores(suspect, twins[BLOCK:])


def test_a_constant_suspect_ties_with_all_twins_and_p_is_1() -> None:
    scores = twin_scores(np.ones((160, 3)), [twin_components(x) for x in population(4)])
    assert scores == (0.0,) * 4
    assert [(1 + reaching(scores, k)) / 4 for k in range(4)] == [1.0] * 4


@pytest.mark.parametrize("kind", ["independent", "resembles one twin", "resembles all"])
def test_p_is_uniform_on_its_grid_for_a_suspect_that_does_not_depend_on_the_pick(kind: str) -> None:
    # 2,000 authorities' signatures; the suspect, the twins and what either has of the other are fixed before
    m, twins = 9, population(9)
    suspect = {"independent": features(160, 7, 3), "resembles one twin": twins[2], "resembles all": sum(twins)}[kind]
    scores = twin_scores(np.asarray(suspect), [twin_components(x) for x in twins])
    commitment, counts = committed(m), [0] * m
    for i in range(2000):
        picked = commitment.anchored(fake_reply(sha256(str(i).encode()).encode())).picked
        assert picked is not None
        counts[reaching(scores, picked)] += 1
    assert stats.chisquare(counts).pvalue > 1e-3
    rejected = counts[0]  # p = 1 / m
    assert stats.binomtest(rejected, 2000, 1 / m).pvalue > 1e-3


# --- the commitment and the pick


def test_nothing_is_picked_without_an_anchor() -> None:
    assert committed(4).picked is None


def test_the_pick_depends_on_every_byte_of_the_commitment_and_on_the_signature() -> None:
    reply = fake_reply(b"signature")
    of = committed(64, anchor=reply)
    others = [
        replace(of, probes=sha256(b"other")),
        replace(of, recipe={"epochs": 4}),
        replace(of, twins=(replace(of.twins[0], representations=sha256(b"x")), *of.twins[1:])),
        replace(of, anchor=fake_reply(b"another")),
    ]
    assert len({of.picked, *(x.picked for x in others)}) >= 4  # of five picks among 64
    assert len({of.commitment, *(x.commitment for x in others[:3])}) == 4
    assert of.picked == PICK_OF_64  # frozen: claims hang on it


PICK_OF_64 = 52


def test_a_round_picks_once_whatever_an_authority_stamps() -> None:
    """SHA-256 of commitment and the beacon's signature, recomputed here; a stamp dates the commitment and no more."""
    waiting = committed(64, beacon=NAMED)
    assert waiting.waits
    assert waiting.picked is None
    assert waiting.commitment != committed(64).commitment
    assert json.loads(waiting.commitment)["beacon"] == NAMED.named()
    of = waiting.drawn(NAMED.signed(bytes.fromhex(SIGNATURE)))
    assert of.commitment == waiting.commitment
    message = b""
    for part in (b"turnmark-twins-1", of.commitment, bytes.fromhex(SIGNATURE)):
        message += len(part).to_bytes(8, "big") + part
    assert of.picked == int(hashlib.sha256(message).hexdigest(), 16) % 64
    picks = {of.anchored(fake_reply(bytes([i]))).picked for i in range(20)}
    assert picks == {of.picked}
    assert waiting.anchored(fake_reply(b"s")).picked is None
    stored = json.loads(json.dumps(of.to_dict()))
    assert TwinCommitment.from_dict(stored) == of
    assert TwinCommitment.from_dict(json.loads(json.dumps(waiting.to_dict()))) == waiting
    for round_ in (None, 5, {}, {**stored["beacon"], "more": 1}, {**stored["beacon"], "round": 0}):
        with pytest.raises(ClaimError):
            TwinCommitment.from_dict({**stored, "beacon": round_})
    other = {**stored["beacon"], "round": NAMED.number + 1}
    with pytest.raises(ClaimIntegrityError, match="not the beacon's signature"):
        TwinCommitment.from_dict({**stored, "beacon": other})


@pytest.mark.parametrize(("trusted", "hours", "beacon", "binds"), [
    (True, -1, True, True),
    (True, 0, True, False),  # the round's signature was known
    (True, 1, True, False),
    (False, -1, True, False),
    (True, 1, False, True),
    (False, 1, False, False),
])  # fmt: skip
def test_a_pick_binds_if_the_owner_could_not_choose_it(trusted: bool, hours: int, beacon: bool, binds: bool) -> None:
    of = committed(4, beacon=NAMED if beacon else None)
    stamped = Timestamp(authority="TSA", time=NAMED.time + timedelta(hours=hours), trusted=trusted, sha256="0")
    assert of.binds(stamped) is binds
    assert of.binds(None) is False


def test_unsigned_bytes_of_a_reply_do_not_move_the_pick() -> None:
    picks = {committed(64, anchor=fake_reply(b"signature", unsigned=bytes([i]))).picked for i in range(20)}
    assert len(picks) == 1


def test_the_owner_does_not_choose_the_order_of_the_twins() -> None:
    twins = committed(3).twins
    for bad in (twins[::-1], (twins[0], *twins)):
        with pytest.raises(ClaimError, match="occurs twice"):
            committed(3, twins=bad)


@pytest.mark.parametrize("m", [LEAST - 1, MOST + 1])
def test_too_few_or_too_many_twins_are_refused(m: int) -> None:
    with pytest.raises(ClaimError, match="encoders"):
        committed(m)


def test_a_commitment_reveals_only_digests_of_the_recipe() -> None:
    of = committed(2, recipe={"data": "secret images"})
    assert b"secret images" not in of.commitment
    assert json.loads(of.commitment)["recipe_sha256"]


def test_a_stored_commitment_is_the_same_and_an_edited_one_is_refused() -> None:
    of = committed(3, anchor=fake_reply(b"s"))
    stored = json.loads(json.dumps(of.to_dict()))
    assert TwinCommitment.from_dict(stored) == of
    first = {**stored["twins"][0], "encoder": "0" * 63}
    edits: list[dict[str, Any]] = [
        {"format_version": 2}, {"format_version": True}, {"extra": 1}, {"recipe": None}, {"probes": "F" * 64},
        {"twins": [first, *stored["twins"][1:]]}, {"twins": [{**stored["twins"][0], "more": 1}, *stored["twins"][1:]]},
        {"anchor": "no base64!"}, {"twins": 5},
    ]  # fmt: skip
    for edit in edits:
        with pytest.raises(ClaimError, match="twins: "):
            TwinCommitment.from_dict({**stored, **edit})
    with pytest.raises(ClaimError, match="twins: "):
        TwinCommitment.from_dict({k: v for k, v in stored.items() if k != "recipe"})


@pytest.mark.heavy
def test_an_authority_picks_and_each_of_its_signatures_anew(tmp_path: Path) -> None:
    from support.tsa import make_authority

    authority = make_authority(tmp_path / "tsa", "Twin authority")
    of, picks = committed(3), []
    for i in range(12):
        (tmp_path / "q.tsq").write_bytes(anchor_request(of))
        reply = authority.reply(tmp_path / "q.tsq", tmp_path / f"{i}.tsr").read_bytes()
        anchored = anchored_with(of, reply)
        stamped = anchored.timestamp()
        assert stamped is not None
        picks.append(anchored.picked)
        with pytest.raises(ClaimIntegrityError, match="does not cover"):
            replace(anchored, recipe={"epochs": 4}).timestamp()
        with pytest.raises(ClaimError, match="anchored already"):
            anchored_with(anchored, reply)
    assert len(set(picks)) > 1  # all alike by chance: 1 in 3^11
    assert all(p is not None and 0 <= p < 3 for p in picks)


def test_the_smallest_p_is_one_in_m() -> None:
    assert math.isclose((1 + reaching((1.0, 0.0, 0.0, 0.0), 0)) / 4, 1 / 4)
