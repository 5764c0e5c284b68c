"""The statistics on answers with a known truth: a copy, an independent encoder, and data that is or is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from support.encoders import Noisy, encoder

from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import as_input, as_uint8
from ownership.evidence.dataset_inference import augmentation_scores, gmm_scores, loss_scores
from ownership.evidence.querying import query
from ownership.evidence.responses import NotApplicable, Responses
from ownership.evidence.similarity import covariance, partial_correlation
from ownership.evidence.statistics import SCALES, STATISTICS, score_members, score_one
from ownership.evidence.watermark_scores import (
    watermark_aligned,
    watermark_auc,
    watermark_hits,
    watermark_probability,
    watermark_success,
)
from ownership.watermark import rotate


def test_every_statistic_sees_the_victim_in_itself(claim: Claim, victim: Encoder) -> None:
    scores, skipped = score_one(query(victim, claim.probes, "copy"), claim.context)
    assert not skipped
    assert scores["cka"] == pytest.approx(1)
    assert scores["l2_distance"] == pytest.approx(0, abs=1e-5)
    assert scores["partial_rsa"] == pytest.approx(1, abs=1e-3)


def test_partial_rsa_orders_copies_and_independent_encoders(claim: Claim, victim: Encoder) -> None:
    def score(e: Callable[[torch.Tensor], torch.Tensor]) -> float:
        return score_one(query(e, claim.probes, "x"), claim.context)[0]["partial_rsa"]

    near, far, spec = score(Noisy(victim, 1, 0.001)), score(Noisy(victim, 1, 0.01)), score(encoder(99))
    assert near > far > spec
    assert near > max(claim.panel_scores.members["partial_rsa"].values())


def test_relative_partial_rsa_by_hand(claim: Claim, victim: Encoder) -> None:
    """A naive version: partial correlations given all others, the victim standardised by the others."""
    suspect = query(Noisy(victim, 9, 0.3), claim.probes, "x")
    structures = [a.rsa(claim.plan) for a in (suspect, claim.context.victim, *claim.context.panel)]
    cov, n = covariance(structures), len(structures)
    z = [np.arctanh(partial_correlation(cov, 0, j, [k for k in range(1, n) if k != j])) for j in range(1, n)]
    kept = np.sort(z[1:])[1:-1]
    by_hand = (z[0] - np.mean(kept)) / np.sqrt(np.var(kept, ddof=1) + 1e-4)
    scores, _ = score_one(suspect, claim.context)
    assert scores["partial_rsa_relative"] == pytest.approx(by_hand, rel=1e-2)
    assert by_hand > max(claim.panel_scores.members["partial_rsa_relative"].values())
    copy, _ = score_one(query(victim, claim.probes, "x"), claim.context)
    assert copy["partial_rsa_relative"] > by_hand
    few = replace(claim.context, panel=claim.context.panel[:4])
    assert "4 other members" in score_one(suspect, few)[1]["partial_rsa_relative"]


@pytest.mark.parametrize("how", ["concatenated", "added"])
def test_mixing_in_a_panel_member_hides_nothing(claim: Claim, victim: Encoder, how: str) -> None:
    """The public checkpoint of a grown victim is in its panel: an attacker has it, and may mix it into the outputs."""
    surrogate, known = Noisy(victim, 9, 0.1), encoder(12)

    def mixed(x: torch.Tensor) -> torch.Tensor:
        a, b = ((y - y.mean(0)) / y.std() for y in (surrogate(x), known(x)))
        return torch.cat([a, b], 1) if how == "concatenated" else a + b

    value = score_one(query(mixed, claim.probes, "x"), claim.context)[0]["partial_rsa_relative"]
    assert value > 2 * max(claim.panel_scores.members["partial_rsa_relative"].values())


@pytest.mark.parametrize("name", ["partial_rsa_relative", "partial_rsa", "cka", "watermark_aligned"])
def test_invariant_statistics_ignore_a_change_of_basis(claim: Claim, victim: Encoder, name: str) -> None:
    """Rule 6: permuting and scaling the output changes nothing; the raw ones do not survive it."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    suspect = Noisy(victim, 2, 0.002).eval()
    plain = score_one(query(suspect, claim.probes, "x"), claim.context)[0]
    shuffled = score_one(query(lambda x: 3 * suspect(x)[:, order], claim.probes, "x"), claim.context)[0]
    assert shuffled[name] == pytest.approx(plain[name], abs=2e-3, rel=1e-3)
    assert shuffled["l2_distance"] > 2 * plain["l2_distance"]


def test_members_are_scored_against_the_others(claim: Claim) -> None:
    """Rule 3, by hand for one member: the panel it is scored with does not hold it."""
    context = claim.context
    own = context.panel[3]
    by_hand = STATISTICS["partial_rsa"].score(own, replace(context, panel=(*context.panel[:3], *context.panel[4:])))
    assert claim.panel_scores.members["partial_rsa"]["m3"] == pytest.approx(by_hand)
    again = score_members(context)
    assert again == claim.panel_scores.members


def test_watermark_hits_count_the_predictors_labels(claim: Claim, victim: Encoder) -> None:
    responses = query(victim, claim.probes, "x")
    hits = watermark_hits(responses, claim.context)
    assert claim.watermark is not None
    assert claim.watermark_probes is not None
    expected = 0
    for row, label in zip(responses.sets["watermark"], claim.watermark_probes.labels.tolist(), strict=True):
        with torch.no_grad():
            expected += int(claim.watermark.predictor(torch.from_numpy(row)[None]).argmax()) == label
    assert hits.sum() == expected


class Read(torch.nn.Module):
    """A predictor that takes two of the answers' numbers as its logits."""

    pairs = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2]


class ReadPairs(torch.nn.Module):
    """One that takes what rotation changed in them."""

    pairs = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned, unrotated = x.chunk(2, 1)
        return (turned - unrotated)[:, :2]


def test_a_predictor_of_pairs_gets_each_probe_beside_its_image_unrotated(claim: Claim, victim: Encoder) -> None:
    """A loop over the probes; what the images show hides the watermark from a predictor of single answers."""
    responses = query(victim, claim.probes, "x")
    made = claim.watermark_probes
    assert made is not None
    context = replace(claim.context, predictor=ReadPairs())
    hits = watermark_hits(responses, context)
    for i, (image, label) in enumerate(zip(made.sources.tolist(), made.labels, strict=True)):
        change = responses.sets["watermark"][i] - responses.sets["public"][image]
        assert hits[i] == (change[:2].argmax() == label)
    content = np.random.default_rng(0).normal(size=responses.sets["public"].shape).astype(np.float32)
    watermarked = content[made.sources] + 0.1 * np.eye(64, dtype=np.float32)[made.labels]
    hidden = Responses("x", {"public": content, "watermark": watermarked})
    assert watermark_success(hidden, context) == 1 - 0.5 / len(watermarked)
    assert watermark_success(hidden, replace(context, predictor=Read())) < 0.65
    sizes = {"public": 60, "watermark": 21}
    assert watermark_success(hidden.first(sizes), context.first(sizes)) == 1 - 0.5 / 21
    with pytest.raises(NotApplicable, match="which images"):
        watermark_success(hidden, replace(context, watermark_sources=None))
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(64, 64)))[0].astype(np.float32)
    turned = Responses("y", {name: x @ basis for name, x in hidden.sets.items()})
    assert watermark_success(turned, context) < 0.9
    assert watermark_aligned(turned, replace(context, victim=hidden)) == 1 - 0.5 / len(watermarked)


def test_rotated_probes_follow_each_other_image_by_image(claim: Claim) -> None:
    """The first so many show the first public probes, one view of each label; the stated angles give the pixels."""
    assert claim.watermark is not None
    assert claim.watermark_probes is not None
    made = claim.watermark_probes
    labels, images, angles = made.labels, made.sources, made.angles
    assert images.tolist() == [i // 2 for i in range(200)]
    assert labels.reshape(-1, 2).sum(1).tolist() == [1] * 100
    assert 20 < int(labels[::2].sum()) < 80
    assert torch.equal(claim.watermark.key.labels(angles), labels)
    again = as_uint8(rotate(as_input(claim.probes["public"][images]), angles))
    assert torch.equal(again, claim.probes["watermark"])


@pytest.mark.parametrize("decimals", [0, 6])
def test_watermark_auc_counts_ordered_pairs(claim: Claim, decimals: int) -> None:
    """A loop over all pairs of one probe of each label, ties one half; and scikit-learn's area."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    logits = np.round(rng.normal(size=(60, 64)) + 0.5 * labels[:, None] * np.eye(64)[1], decimals).astype(np.float32)
    context = replace(claim.context, predictor=Read(), watermark_labels=labels)
    odds = logits[:, 1].astype(float) - logits[:, 0]
    pairs = [(a > b) + (a == b) / 2 for a in odds[labels == 1] for b in odds[labels == 0]]
    read = watermark_auc(Responses("x", {"watermark": logits}), context)
    assert read == pytest.approx(np.mean(pairs))
    assert read == pytest.approx(roc_auc_score(labels, odds))
    assert 0.5 < read < 1


def test_watermark_auc_needs_no_threshold(claim: Claim) -> None:
    """Responses on one side of the predictor's threshold: half are hits, whatever they tell about the angle."""
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 2
    context = replace(claim.context, predictor=Read(), watermark_labels=labels)
    rates = []
    for signal in (0.0, 2.0):
        logits = np.zeros((200, 64), dtype=np.float32)
        logits[:, 1] = rng.normal(size=200) + signal * labels + 50
        responses = Responses("x", {"watermark": logits})
        assert watermark_success(responses, context) == 0.5
        rates.append(watermark_auc(responses, context))
    assert rates[0] == pytest.approx(0.5, abs=0.12)
    assert rates[1] > 0.85
    perfect = np.zeros((200, 64), dtype=np.float32)
    perfect[:, 1] = labels
    assert watermark_auc(Responses("x", {"watermark": perfect}), context) == 1 - 0.5 / 200
    with pytest.raises(NotApplicable, match="same label"):
        watermark_auc(Responses("x", {"watermark": perfect}), replace(context, watermark_labels=labels * 0))


def _certainty(claim: Claim, odds: NDArray[np.float64]) -> float:
    """The certainty of log-odds of label 1, probes' labels 0 and 1 in turn."""
    context = replace(claim.context, predictor=Read(), watermark_labels=np.arange(len(odds)) % 2)
    return watermark_probability(
        Responses("x", {"watermark": np.column_stack([0 * odds, odds, odds[:, None].repeat(62, 1)])}), context
    )


def test_watermark_certainty_against_a_loop(claim: Claim) -> None:
    rng = np.random.default_rng(2)
    odds = rng.normal(size=60) + np.arange(60) % 2
    given: tuple[list[float], list[float]] = [], []
    for i, x in enumerate(odds):
        one = 1 / (1 + np.exp(-x))
        given[i % 2].append(one if i % 2 else 1 - one)
    means = [sum(g) / len(g) for g in given]
    errors = [sum((x - m) ** 2 for x in g) / (len(g) - 1) / len(g) for g, m in zip(given, means, strict=True)]
    expected = sum(means) / 2 - 3 * np.sqrt(sum(errors)) / 2
    assert _certainty(claim, odds) == pytest.approx(expected, rel=1e-6)
    same = np.zeros((60, 64), dtype=np.float32)
    with pytest.raises(NotApplicable, match="same label"):
        watermark_probability(
            Responses("x", {"watermark": same}),
            replace(claim.context, predictor=Read(), watermark_labels=np.zeros(60, dtype=np.int64)),
        )


def test_watermark_certainty_counts_neither_a_faint_lean_nor_luck(claim: Claim) -> None:
    """H0: the predictor's output is independent of the label; unit: a suspect. Whatever it is sure of, few exceed .5.

    One in 740 by the normal law, of 1,000 at most seven (binomial, 0.99).
    """
    rng = np.random.default_rng(3)
    labels = np.arange(500) % 2
    for spread in (0.01, 1.0, 100.0):
        shift = rng.normal(size=1000) * spread  # most answers on one side: the same for both labels
        read = [_certainty(claim, spread * rng.normal(size=500) + s) for s in shift]
        assert sum(x > 0.5 for x in read) <= 7
        assert max(read) < 0.52
    faint = 0.02 * (labels - 0.5)
    assert _certainty(claim, faint) == pytest.approx(0.5025, abs=1e-4)  # an area would be 1
    assert _certainty(claim, np.full(500, 9.0)) == pytest.approx(0.5)
    assert _certainty(claim, 9.0 * (2 * labels - 1)) > 0.99


def _known(seed: int, shift: float) -> Responses:
    rng = np.random.default_rng(seed)
    private, public = rng.normal(0, 1, (200, 8)), rng.normal(shift, 1, (200, 8))
    views = [
        np.concatenate([x + rng.normal(0, s, x.shape) for _ in range(2)]) for x, s in ((private, 0.1), (public, 0.2))
    ]
    sets = {"public": public, "private": private, "private_views": views[0], "outside_views": views[1]}
    return Responses("x", {k: v.astype(np.float32) for k, v in sets.items()})


def test_mixture_scores_are_sklearns(claim: Claim) -> None:
    responses = _known(0, 0.0)
    private, public = gmm_scores(responses, claim.context)
    raw = responses.get("private")
    mean, sd = raw[:100].mean(0), raw[:100].std(0) + 1e-6
    mixture = GaussianMixture(5, covariance_type="diag", reg_covar=1e-3, random_state=claim.plan.seed)
    mixture.fit((raw[:100] - mean) / sd)
    np.testing.assert_allclose(private, mixture.score_samples((raw[100:] - mean) / sd))
    assert len(public) == 200


def test_dataset_inference_sees_private_data_and_its_direction(claim: Claim) -> None:
    gap = STATISTICS["inference_gmm"].score
    assert gap(_known(1, 1.0), claim.context) > 1
    assert abs(gap(_known(1, 0.0), claim.context)) < 0.4
    assert STATISTICS["inference_augmentation"].score(_known(1, 0.0), claim.context) > 1


def test_augmentation_scores_are_the_papers_distances(claim: Claim) -> None:
    responses = _known(2, 0.0)
    private, _ = augmentation_scores(responses, claim.context)
    raw, views = responses.get("private"), responses.get("private_views")
    for i in (0, 7, 199):
        expected = (np.linalg.norm(raw[i] - views[i]) + np.linalg.norm(raw[i] - views[200 + i])) / 2
        assert private[i] == pytest.approx(-expected)


def test_loss_scores_are_cosines_of_projections(claim: Claim, victim: Encoder) -> None:
    responses = query(victim, claim.probes, "x")
    private, public = loss_scores(responses, claim.context)
    assert len(private) == len(public) == 100
    views = torch.from_numpy(responses.sets["private_views"])
    assert claim.projection_head is not None
    with torch.no_grad():
        a, b = claim.projection_head(views[3]), claim.projection_head(views[103])
    assert private[3] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-5)


def test_another_dimension_skips_what_needs_the_same(claim: Claim) -> None:
    wide = encoder(5)
    scores, skipped = score_one(query(lambda x: torch.cat([wide(x)] * 2, 1), claim.probes, "x"), claim.context)
    assert set(skipped) == {
        "watermark_auc",
        "watermark_probability",
        "watermark_success",
        "l2_distance",
        "inference_loss",
    }
    assert "128 dimensions" in skipped["watermark_success"]
    assert "partial_rsa" in scores


def test_without_a_watermark_the_others_remain(claim: Claim, victim: Encoder) -> None:
    context = replace(claim.context, predictor=None, watermark_labels=None, projection_head=None)
    scores, skipped = score_one(query(victim, claim.probes, "x"), context)
    assert set(skipped) == {
        "watermark_auc",
        "watermark_probability",
        "watermark_success",
        "watermark_aligned",
        "inference_loss",
    }
    assert "partial_rsa" in scores
    with pytest.raises(NotApplicable):
        watermark_hits(np.zeros((2, 64)), context)


def test_scales_come_back() -> None:
    for forward, back in SCALES.values():
        for x in (0.1, 0.5, 0.9):
            assert back(forward(x)) == pytest.approx(x)
