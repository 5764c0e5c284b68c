"""A panel weaker than its victim: every good encoder would look like a copy, so it decides nothing.

H0 of the panel's tests: the suspect is one more independent encoder of one of the panel's strata. Unit: one encoder.
Assumption that is attacked: the strata hold encoders like the victim.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from support.encoders import as_suspect, encoder, member
from support.job import Job

from ownership import audit, build_claim
from ownership.auditing.comparison import compare
from ownership.auditing.panel_strength import panel_strength
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.architectures import Encoder
from ownership.errors import ReportError
from ownership.plan import Plan
from ownership.reports import sentences
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.verdict.explanations import ExplanationFinding
from ownership.verdict.panel_strength import PanelStrength
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Evidence, ReasonCode, Verdict, supports
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.training import train

CONFIG = TrainConfig(arch="tiny", epochs=50, batch_size=128, lr=2e-3, temperature=0.2, min_crop=0.2, flip=False)
CONFIG = replace(CONFIG, watermark="none")


def trained(digits: Data, seed: int, images: int = 500, epochs: int = 50) -> Encoder:
    return train(digits.images[:images], replace(CONFIG, epochs=epochs, seed=seed)).encoder


def claimed(digits: Data, victim: Encoder, members: list[Encoder]) -> Claim:
    panel = [NamedEncoder(member(f"m{i}", "plain" if i < 5 else "watermarked"), e) for i, e in enumerate(members)]
    return build_claim(
        NamedEncoder(member("victim", "victim"), victim),
        ClaimImages(None, digits.images[900:1500]),
        panel,
        plan=Plan(n_public=400, n_rotated=50),
    )


@pytest.fixture(scope="module")
def trained_victim(digits: Data) -> Encoder:
    return trained(digits, 1)


@pytest.fixture(scope="module")
def attack(digits: Data, trained_victim: Encoder) -> Claim:
    """Ten encoders of 150 images and 4 epochs, declared plain and watermarked."""
    return claimed(digits, trained_victim, [trained(digits, 100 + i, 150, 4) for i in range(10)])


@pytest.fixture(scope="module")
def independents(digits: Data) -> list[Encoder]:
    """Good independent encoders, trained as the victim was."""
    return [trained(digits, 200 + i) for i in range(2)]


@pytest.fixture(scope="module")
def suspects(attack: Claim, independents: list[Encoder]) -> list[Report]:
    return [audit(attack, as_suspect(e)) for e in independents]


@pytest.mark.heavy
def test_a_weak_panel_calls_no_independent_encoder_a_copy(suspects: list[Report]) -> None:
    for report in suspects:
        assert report.verdict is Verdict.INCONCLUSIVE
        assert Evidence.PANEL not in report.decision.evidence
        assert report.findings.weak_strata == ("plain", "watermarked")
    fooled = [r for r in suspects if supports(r.primary, r.plan.final_alpha, ())]  # as if the members were strong
    assert fooled


@pytest.mark.heavy
def test_the_first_page_says_so_with_numbers(suspects: list[Report]) -> None:
    report = suspects[0]
    codes = [r.code for r in report.reasons]
    assert codes.index(ReasonCode.WEAK_STRATA) < codes.index(ReasonCode.NO_FULL_SIZE_CONTROLS)
    strength = report.findings.panel_strength
    assert strength is not None
    (said,) = [s for s in sentences.reasons(report) if "weaker than the victim" in s]
    assert "0 of 5 members of the stratum plain" in said
    assert f"median lead {median(strength.leads('plain').values()):.3f}" in said
    assert said.replace("'", "&#39;") in render_html(report).split("<section>")[1]
    found = {e.name: e.finding for e in report.explanations}
    assert found["plain"] is found["watermarked"] is ExplanationFinding.NOT_REPRESENTED


@pytest.mark.heavy
def test_no_interim_analysis_ends_such_an_audit(attack: Claim, independents: list[Encoder]) -> None:
    report = audit(attack, as_suspect(independents[0]), AuditOptions(stop_early=True))
    assert not report.findings.ended_early
    assert report.verdict is Verdict.INCONCLUSIVE


def test_members_trained_like_the_victim_are_controls(job: Job) -> None:
    strength = panel_strength(Claim.load(job.folder / "claim"))
    assert strength is not None
    assert strength.weak_strata == ()


def test_untrained_members_are_weak_beside_a_trained_victim(digits: Data, trained_victim: Encoder) -> None:
    strength = panel_strength(claimed(digits, trained_victim, [encoder(10 + i) for i in range(10)]))
    assert strength is not None
    assert strength.weak_strata == ("plain", "watermarked")
    assert strength.strong("plain") == 0
    assert strength.probes == 400


def members(**agreements: float) -> dict[str, dict[str, float]]:
    return {name: {"pixels": x, "random_network_0": x - 0.05} for name, x in agreements.items()}


STRENGTH = PanelStrength(
    probes=400,
    baselines={"pixels": 0.25, "random_network_0": 0.1},
    members={"plain": members(a=0.5, b=0.25, c=0.5, d=0.1), "watermarked": members(e=0.5, f=0.1, g=0.1)},
)


def test_half_of_a_stratum_is_enough_and_every_baseline_has_to_be_exceeded() -> None:
    assert STRENGTH.leads("plain") == {"a": 0.25, "b": 0.0, "c": 0.25, "d": pytest.approx(-0.15)}
    assert (STRENGTH.strong("plain"), STRENGTH.strong("watermarked")) == (2, 1)  # b equals the baseline
    assert STRENGTH.weak_strata == ("watermarked",)
    better = replace(STRENGTH, baselines={"pixels": 0.25, "random_network_0": 0.45})
    assert better.leads("plain")["a"] == 0.0
    assert better.weak_strata == ("plain", "watermarked")
    others = replace(STRENGTH, members={"small": members(s=0.0), "sibling": members(t=0.0)})
    assert others.weak_strata == ()  # only required strata have to be as strong


def test_a_stored_strength_is_of_the_claims_panel_and_compared(claim: Claim) -> None:
    report = audit(claim, as_suspect(encoder(50)))
    strength, stored = report.findings.panel_strength, report.to_dict()
    assert strength is not None
    assert Report.from_dict(stored) == report
    kept, names = stored["panel_strength"]["members"], stored["panel_strength"]["baselines"]
    for forged in (
        None,
        {**stored["panel_strength"], "members": {}},
        {**stored["panel_strength"], "members": {**kept, "plain": {**kept["plain"], "m0": dict.fromkeys(names, 1.5)}}},
        {**stored["panel_strength"], "members": {**kept, "plain": {**kept["plain"], "m0": {}}}},
        {**stored["panel_strength"], "members": {**kept, "plain": {"another": dict.fromkeys(names, 0.5)}}},
        {**stored["panel_strength"], "baselines": {}},
        {**stored["panel_strength"], "probes": 0},
        {**stored["panel_strength"], "baselines": {"pixels": float("nan")}},
    ):
        with pytest.raises(ReportError):
            Report.from_dict({**stored, "panel_strength": forged})
    weaker = replace(strength, baselines={**strength.baselines, "pixels": 0.9})
    forged_report = replace(report, findings=replace(report.findings, panel_strength=weaker))
    assert compare(forged_report, report).differences
    assert not compare(report, report).differences
