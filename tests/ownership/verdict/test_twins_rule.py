"""The rule where the claim has twins: they decide at an alpha of their own, or not at all.

H0 of the test of twins: the suspect does not depend on which twin was picked. Unit: the pick.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from support.reports import CLAIM, FAR, LOW, SUSPECT, changed, report, result

from ownership.errors import ReportError
from ownership.keyed.test import MapScore
from ownership.plan import Plan
from ownership.reports import sentences, twins_text
from ownership.reports.consistency import check_consistent
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.verdict.explanations import ExplanationFinding
from ownership.verdict.multiplicity import suspect_pvalue
from ownership.verdict.records import BeaconRecord, KeyRecord, TimestampRecord, TwinsRecord
from ownership.verdict.results import AuditorEncoder, KeyTest
from ownership.verdict.rule import Evidence, ReasonCode, Verdict
from ownership.verdict.twins import TwinsTest

ANCHOR = TimestampRecord(authority="TSA", time="2026-01-01T00:00:00+00:00", trusted=True)
KEY = KeyRecord(
    commitment_sha256="k", probes=100, pool_sha256="p", pool_images=200, directions=8, feature_encoder_sha256=None,
    keys_tried=1, anchor=ANCHOR, beacon=None,
)  # fmt: skip
NAMES = ("r0", "r1", "r2")


def key(exceeding: int = 5000) -> KeyTest:
    return KeyTest(
        maps={"content": MapScore(r_squared=0.2, z=10.0)}, statistic=100.0, decoys=99_999, exceeding=exceeding,
        histogram=(99_999 - exceeding, exceeding), edges=(0.0, 100.0, 200.0), keys_tried=1, victim=0,
        references=dict.fromkeys(NAMES, 0),
    )  # fmt: skip


def twins(m: int = 100, exceeding: int = 0, **changes: Any) -> TwinsTest:
    """A test in which `exceeding` twins are as close as the deployed one, number 1."""
    scores = [0.0] * m
    scores[1] = 0.5
    for i in range(2, 2 + exceeding):
        scores[i] = 0.6
    of = TwinsTest(scores=tuple(scores), picked=1, exceeding=exceeding, tried=1, references=dict.fromkeys(NAMES, 0))
    return replace(of, **changes)


def audited(
    of: TwinsTest, *results: Any, trusted: bool = True, beacon: BeaconRecord | None = None, **changes: Any
) -> Report:
    record = TwinsRecord(
        commitment_sha256="t", twins=len(of.scores), picked=of.picked, tried=of.tried,
        anchor=replace(ANCHOR, trusted=trusted), beacon=beacon,
    )  # fmt: skip
    claim = replace(CLAIM, key=KEY, twins=record, references=NAMES)
    return report(*results, **{"claim": claim, "key": key(), "twins": of, **changes})


def test_the_first_of_100_supports_a_claim_at_its_own_error_rate() -> None:
    r = audited(twins())
    assert (r.verdict, r.decision.evidence) == (Verdict.SUPPORTED, (Evidence.TWINS,))
    assert r.strength.error_rate == 0.01
    assert r.findings.error_rate == pytest.approx(0.0101)  # of the claim: key and twins
    assert r.strength.likelihood_ratio == pytest.approx(0.05 ** (1 / 3) / 0.01)  # 3 of 3 references: at least 36.8
    assert "picked the victim" in sentences.verdict(r)
    assert audited(twins(exceeding=1)).verdict is Verdict.NOT_SUPPORTED


@pytest.mark.parametrize(("minutes", "decides"), [(1, True), (0, False), (-1, False)])
def test_a_round_picks_for_those_who_committed_before_it(minutes: int, decides: bool) -> None:
    """A commitment that was stamped when the round was signed already may have been made to fit it."""
    signed = datetime.fromisoformat(ANCHOR.time) + timedelta(minutes=minutes)
    beacon = BeaconRecord(name="drand quicknet", chain_sha256="c", round=7, time=signed.isoformat())
    r = audited(twins(), beacon=beacon)
    assert r.findings.twins_decide is decides
    assert r.verdict is (Verdict.SUPPORTED if decides else Verdict.NOT_SUPPORTED)
    assert "The pick follows from round 7 of drand quicknet" in twins_text.twins_order(r)
    assert ("The commitment was stamped before that." in twins_text.twins_order(r)) is decides
    assert ("not excluded that the owner knew the pick" in twins_text.twins_result(r.findings)) is not decides
    assert "its signature picked" not in twins_text.twins_order(r)
    undated = replace(r.claim, twins=replace(r.claim.twins, anchor=None))  # type: ignore[type-var]
    alone = replace(r, findings=replace(r.findings, claim=undated))
    assert not alone.findings.twins_decide
    assert "not timestamped" in twins_text.twins_order(alone)


def test_twins_that_cannot_reach_their_alpha_are_shown_and_cost_nothing() -> None:
    r = audited(twins(9))
    assert r.verdict is Verdict.NOT_SUPPORTED
    assert r.findings.error_rate == pytest.approx(1e-4)
    (reason,) = [x for x in r.reasons if x.code is ReasonCode.TWINS_TEST]
    assert (reason.data["rejects"], reason.data["decides"]) == (False, False)
    said = twins_text.twins_summary(r)
    assert "With 9 twins p cannot be below 0.11; for its alpha, 0.01, there would have to be 100" in said
    assert said.split(";")[0] in render_html(r).split("<section>")[1]


@pytest.mark.parametrize(("m", "alpha", "decides"), [(20, 0.05, True), (19, 0.05, False), (100, 0.01, True)])
def test_with_m_twins_the_smallest_alpha_is_one_in_m(m: int, alpha: float, decides: bool) -> None:
    r = audited(twins(m), plan=Plan(twins_alpha=alpha, interim_queries=(), interim_alpha_shares=()))
    assert (r.verdict is Verdict.SUPPORTED) == r.findings.twins_decide == decides


def test_picks_tried_multiply_p() -> None:
    assert audited(twins(100, tried=2)).verdict is Verdict.NOT_SUPPORTED
    r = audited(twins(100, tried=2), plan=Plan(twins_alpha=0.02, interim_queries=(), interim_alpha_shares=()))
    assert r.verdict is Verdict.SUPPORTED
    assert "times 2 picks tried" in twins_text.twins_summary(r)


def test_a_pick_by_an_authority_that_was_not_checked_decides_nothing() -> None:
    r = audited(twins(), trusted=False)
    assert r.verdict is Verdict.NOT_SUPPORTED
    assert "it is not excluded that the owner picked" in twins_text.twins_summary(r)


def test_preprocessings_tried_share_the_error_rate() -> None:
    suspect = replace(SUSPECT, preprocessings_tried=("none", "half"))
    plan = Plan(twins_alpha=0.01, interim_queries=(), interim_alpha_shares=())
    assert audited(twins(), plan=plan, suspect=suspect).strength.error_rate == pytest.approx(0.02)


def test_the_key_comes_first_and_the_panel_last() -> None:
    test = result("partial_rsa_relative", FAR, LOW, LOW, (3.0, 3.1, 3.2))
    plan = Plan(primary=(test.name,), twins_alpha=0.02, interim_queries=(), interim_alpha_shares=())
    every = audited(twins(), test, plan=plan, key=key(0))
    assert every.decision.evidence == (Evidence.KEY, Evidence.TWINS, Evidence.PANEL)
    assert every.strength.error_rate == 1e-4
    two = changed(every, key=key())
    assert two.decision.evidence == (Evidence.TWINS, Evidence.PANEL)
    assert (two.strength.error_rate, two.strength.by) == (0.02, Evidence.TWINS)
    assert two.findings.error_rate == pytest.approx(0.0301)


def test_references_that_are_not_first_lower_the_ratio() -> None:
    r = audited(twins(references={"r0": 0, "r1": 4, "r2": 0}))
    assert r.strength.reached == ("r0", "r2")


def test_logits_are_tested_too_and_kinds_without_a_panel_are_set_apart() -> None:
    r = audited(twins(), suspect=replace(SUSPECT, output_kind="logits"))
    assert r.verdict is Verdict.SUPPORTED
    assert {e.finding for e in r.explanations} == {ExplanationFinding.SET_APART}
    assert "The test of twins sets it apart" in render_html(r)


def test_an_auditors_own_encoders_are_judged_by_the_twins_too() -> None:
    def own(name: str, found: int) -> AuditorEncoder:
        values = {"key_test": 5000.0, "twins_test": float(found)}
        return AuditorEncoder(name=name, sha256=name, provenance="", values=values, problems=())

    assert audited(twins(), auditor_panel=(own("a", 40), own("b", 7))).verdict is Verdict.SUPPORTED
    r = audited(twins(), auditor_panel=(own("a", 0), own("b", 0)))
    assert r.decision.auditor_positives == ("a", "b")
    assert r.verdict is Verdict.INCONCLUSIVE


def test_p_of_a_suspect_is_at_most_the_claims_error_rate_exactly_where_it_is_supported() -> None:
    for m in (9, 100):
        for exceeding in (0, 1, 5):
            for decoys in (0, 5000):
                r = audited(twins(m, exceeding), key=key(decoys))
                p = suspect_pvalue(r.findings, r.decision)
                assert p is not None
                assert (p <= r.findings.error_rate + 1e-15) == (r.verdict is Verdict.SUPPORTED)


BEFORE, AFTER = "2025-12-31T00:00:00+00:00", "2026-05-01T00:00:00+00:00"


@pytest.mark.parametrize(("published", "first"), [(AFTER, True), (BEFORE, False), (None, False)])
def test_which_came_first_is_on_the_first_page(published: str | None, first: bool) -> None:
    r = audited(twins())
    r = replace(r, options=replace(r.options, published=published))
    said = twins_text.twins_summary(r)
    assert ("It is not excluded that the owner had the commitment stamped until" in said) != first
    assert ("No timestamp shows whether there were more" in said) == first
    assert said.split(".")[0].replace("'", "&#39;") in render_html(r).split("<section>")[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"exceeding": 1},
        {"tried": 2},
        {"picked": 2},
        {"references": {"r0": 0}},
        {"references": dict.fromkeys(NAMES, 100)},
        {"scores": (1e13,) * 100},
        {"scores": (0.5, 0.1)},
    ],
)
def test_a_stored_report_whose_twins_contradict_each_other_is_refused(changes: dict[str, Any]) -> None:
    good = audited(twins())
    check_consistent(good.findings, good.options)
    findings = replace(good.findings, twins=replace(twins(), **changes))
    with pytest.raises(ReportError, match="contradict each other"):
        check_consistent(findings, good.options)


def test_a_stored_report_is_read_and_an_edited_rank_is_refused() -> None:
    stored = audited(twins()).to_dict()
    assert Report.from_dict(stored).to_dict() == stored
    with pytest.raises(ReportError):
        Report.from_dict({**stored, "twins": {**stored["twins"], "pvalue": 0.001}})
    with pytest.raises(ReportError):
        Report.from_dict({**stored, "twins": {**stored["twins"], "decides": False}})
