"""A dishonest claimant: what forged claims look like, which checks notice them, and what only a timestamp can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.encoders import as_suspect, encoder, member
from torch import Tensor

from ownership import audit, build_claim
from ownership.auditing.claim_checks import check_predictor, check_probes, separability
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.images import as_input, as_uint8, represent, three_channels
from ownership.evidence.querying import query
from ownership.plan import Plan
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.reports.sentences import probe_notes
from ownership.verdict.results import Skip, SkipCode
from ownership.verdict.rule import ReasonCode, Verdict
from ownership.watermark import TURN, RotationPredictor, Watermark, WatermarkKey, rotated_pairs, secret_key
from watermark_training.data import Data
from watermark_training.training import Trained

PANEL = [NamedEncoder(member(f"m{i}", "plain" if i < 5 else "watermarked"), encoder(10 + i)) for i in range(10)]


def forge(digits: Data, model: object, key: WatermarkKey, predictor: RotationPredictor, **more: object) -> Claim:
    """A claim to a network that the claimant has, made after seeing the suspect."""
    return build_claim(
        NamedEncoder(member("victim", "victim"), model),  # type: ignore[arg-type]
        ClaimImages(digits.images[:300], digits.images[300:900]),
        more.get("panel", PANEL),  # type: ignore[arg-type]
        plan=Plan(n_private=100, n_watermark=300),
        watermark=Watermark(key=key, predictor=predictor),
    )


def fitted_to(model: object, digits: Data, key: WatermarkKey, seed: int = 0) -> RotationPredictor:
    """A predictor trained on one encoder's answers to rotated images."""
    views, labels, _ = rotated_pairs(as_input(digits.images[900:1700]), key, torch.Generator().manual_seed(5))
    responses = represent(model, as_uint8(views))  # type: ignore[arg-type]
    predictor = RotationPredictor(64, seed)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=3e-3)
    for _ in range(150):
        loss = F.cross_entropy(predictor(responses), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return predictor.eval()


# ---- the watermark --------------------------------------------------------------------------------------------------


def test_a_predictor_trained_on_the_suspect_is_noticed(digits: Data, trained: Trained, key: WatermarkKey) -> None:
    """The predictor was trained on an independent suspect: predictors refitted to the victim do not transfer."""
    independent = encoder(77)
    forged = forge(digits, trained.encoder, key, fitted_to(independent, digits, key))
    report = audit(forged, as_suspect(independent))
    assert report.findings.predictor_check is not None
    assert report.findings.predictor_check.claimed > 0.6
    assert report.findings.predictor_check.anomalous
    assert "trained on the suspect" in render_html(report)
    assert Report.from_dict(report.to_dict()) == report


def test_an_honest_mark_is_not_odd_on_copy_or_independent(digits: Data, trained: Trained) -> None:
    assert trained.key is not None
    assert trained.predictor is not None
    honest = forge(digits, trained.encoder, trained.key, trained.predictor)
    copy, spec = (check_predictor(honest, query(m, honest.probes, "x")) for m in (trained.encoder, encoder(77)))
    assert copy is not None
    assert spec is not None
    assert not copy.anomalous
    assert not spec.anomalous
    assert copy.claimed > 0.75
    assert copy.claimed == copy.claimed_victim
    assert np.mean([copy.refitted, *copy.control_rates]) == pytest.approx(copy.refitted_victim)
    assert copy.refitted_victim > 0.7
    # On one independent encoder this is not chance (its own bias affects every key alike), only far less than that.
    assert float(np.median(spec.control_rates)) < copy.refitted_victim - 0.1


def test_a_predictor_trained_on_victim_and_suspect_is_noticed_too(digits: Data, trained: Trained) -> None:
    assert trained.key is not None
    independent = encoder(77)

    class Both(torch.nn.Module):
        """Responses of both, image by image in turn: the predictor learns to read either."""

        def forward(self, images: Tensor) -> Tensor:
            turn = torch.arange(len(images))[:, None] % 2 == 0
            return torch.where(turn, trained.encoder(images), independent(images))

    forged = forge(digits, trained.encoder, trained.key, fitted_to(Both(), digits, trained.key))
    found = check_predictor(forged, query(independent, forged.probes, "x"))
    assert found is not None
    assert found.claimed_victim > 0.6
    assert found.claimed > 0.6
    assert found.anomalous


def test_a_key_picked_by_search_does_not_support(digits: Data, trained: Trained, key: WatermarkKey) -> None:
    """Of eight keys, each with a predictor fitted to the victim, the one with the highest rate on the suspect."""
    independent, best = encoder(77), None
    for seed in range(8):
        candidate = secret_key(torch.Generator().manual_seed(seed))
        predictor = fitted_to(trained.encoder, digits, candidate)
        views, labels, _ = rotated_pairs(as_input(digits.images[300:500]), candidate, torch.Generator().manual_seed(1))
        with torch.no_grad():
            hit = float((predictor(represent(independent, as_uint8(views))).argmax(1) == labels).float().mean())
        if best is None or hit > best[0]:
            best = hit, candidate, predictor
    assert best is not None
    forged = forge(digits, trained.encoder, best[1], best[2])
    report = audit(forged, as_suspect(independent))
    assert report.verdict is not Verdict.SUPPORTED


# ---- the panel ------------------------------------------------------------------------------------------------------


def test_a_hand_picked_panel_is_noticed_by_the_auditors_own(digits: Data, key: WatermarkKey) -> None:
    """The claimant's panel is of a kind that resembles the victim least; every encoder of the victim's kind is then a
    false positive. Two of them among the auditor's own encoders make the claim indiscriminate.
    """

    def of_a_kind(seed: int, amount: float) -> object:
        """Encoders that share much, as those trained alike on the same data do."""
        base, own = encoder(1), encoder(seed)
        return lambda x: base(x) + amount * own(x)

    far = [NamedEncoder(m, encoder(40 + i)) for i, (m, _) in enumerate(PANEL)]
    forged = forge(digits, of_a_kind(60, 1.0), key, RotationPredictor(64, 3).eval(), panel=far)
    targeted = as_suspect(of_a_kind(61, 1.0))
    assert audit(forged, targeted).verdict is Verdict.SUPPORTED
    own = [(replace(as_suspect(of_a_kind(62 + i, 1.0)), name=f"own{i}"), "trained here") for i in range(6)]
    report = audit(forged, targeted, auditor_panel=own)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.reasons[0].code is ReasonCode.INDISCRIMINATE_CLAIM


# ---- the probes -----------------------------------------------------------------------------------------------------


def adversarial(images: Tensor, victim: torch.nn.Module, targeted: torch.nn.Module, steps: int = 12) -> Tensor:
    """Probes perturbed by up to 16/255 so that two encoders agree on them (projected gradient descent)."""
    x = as_input(images)
    delta = torch.zeros_like(x, requires_grad=True)
    for _ in range(steps):
        shown = three_channels((x + delta).clamp(0, 1))
        agreement = F.cosine_similarity(victim(shown), targeted(shown), dim=1).sum()
        (gradient,) = torch.autograd.grad(agreement, delta)
        delta = (delta + 3 / 255 * gradient.sign()).clamp(-16 / 255, 16 / 255).detach().requires_grad_()
    return as_uint8((x + delta.detach()).clamp(0, 1))


def test_adversarial_probes_are_told_from_the_private_images(claim: Claim, victim: torch.nn.Module) -> None:
    disturbed = adversarial(claim.probes["public"], victim, encoder(77))
    forged = replace(claim, probes={**claim.probes, "public": disturbed})
    assert probe_notes(check_probes(claim)) == []
    assert check_probes(claim).dataset_inference_valid
    quality = check_probes(forged)
    assert quality.mislabeled_rotations == quality.rotated == 200
    assert not quality.dataset_inference_valid
    rotated, note = probe_notes(quality)
    assert "200 of 200 rotated probes are not the stated public probe" in rotated
    assert "told apart without any encoder" in note
    report = audit(forged, as_suspect(encoder(78)))
    assert report.findings.probe_quality == quality
    assert not [r for r in report.results if r.family == "inference"]
    assert report.findings.skipped["inference_gmm"] == Skip(code=SkipCode.SEPARABLE_PROBES)
    assert "told apart" in render_html(report)


def test_adversarial_probes_that_disturb_the_private_images_too_need_the_timestamp(
    claim: Claim, victim: torch.nn.Module
) -> None:
    """ModelConfig, not caught: who disturbs both sets alike after seeing the suspect passes this check."""
    both = {n: adversarial(claim.probes[n], victim, encoder(77)) for n in ("public", "private")}
    assert check_probes(replace(claim, probes={**claim.probes, **both})).dataset_inference_valid


def test_doubled_and_shared_probes_are_counted(claim: Claim) -> None:
    public = claim.probes["public"].clone()
    public[5] = public[6] = public[7]
    public[8] = claim.probes["private"][0]
    quality = check_probes(replace(claim, probes={**claim.probes, "public": public}))
    assert (quality.duplicates, quality.public) == (2, 300)
    assert (quality.mislabeled_rotations, quality.rotated) == (6, 200)
    assert (quality.shared_private, quality.private) == (1, 100)
    assert [note.split()[:3] for note in probe_notes(quality)[:3]] == [
        ["2", "of", "300"], ["6", "of", "200"], ["1", "of", "100"],
    ]  # fmt: skip


def test_rotated_probes_that_are_not_what_they_are_said_to_be_are_counted(claim: Claim) -> None:
    """Three that were disturbed after rotation, and one that says another angle; a level of rounding is nothing."""
    assert claim.watermark_probes is not None
    rotated, angles = claim.probes["watermark"].clone(), claim.watermark_probes.angles
    rotated[[3, 50, 199], 0, 7, 7] += 9
    rotated[:, 0, 0, 0] += 1
    angles = angles + 0.5 * (torch.arange(len(angles)) == 10)
    made = replace(claim.watermark_probes, angles=angles)
    altered = replace(claim, probes={**claim.probes, "watermark": rotated}, watermark_probes=made)
    assert check_probes(altered).mislabeled_rotations == 4
    assert check_probes(replace(claim, watermark=None, watermark_probes=None)).mislabeled_rotations == 0


def test_separability_is_chance_on_one_source_and_grows_with_a_shift(digits: Data) -> None:
    """Uniform under H0: over splits of one source, p below 0.05 about as often as it should be."""
    generator = torch.Generator().manual_seed(0)
    small = 0
    for _ in range(40):
        rows = torch.randperm(len(digits), generator=generator)[:300]
        found = separability(digits.images[rows[:150]], digits.images[rows[150:]])
        small += found.pvalue < 0.05
        assert 0.3 < found.auc < 0.7
    assert small <= 6  # binomial(40, 0.05): 7 or more once in 300
    brighter = (digits.images[:150].float() * 0.7).to(torch.uint8)
    found = separability(digits.images[:150], brighter)
    assert found.auc > 0.8
    assert found.pvalue < 1e-6
    assert found.separable


@pytest.mark.parametrize("sector_boundaries", [(0.5, 2.0, 3.0, 5.5), (0.0, torch.pi)])
def test_labels_of_angles_against_a_naive_loop(sector_boundaries: tuple[float, ...]) -> None:
    key = WatermarkKey(sector_boundaries=sector_boundaries, margin=0.1, predictor_seed=0)
    angles = torch.rand(200, generator=torch.Generator().manual_seed(0)) * TURN
    for angle, label in zip(angles.tolist(), key.labels(angles).tolist(), strict=True):
        passed = sum(angle >= c for c in sector_boundaries)  # cuts passed since 0; before the first, the last arc
        assert label == ((passed - 1) % len(sector_boundaries)) % 2
    labels = torch.randint(0, 2, (200,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(key.labels(key.angles(labels, torch.Generator().manual_seed(2))), labels)
