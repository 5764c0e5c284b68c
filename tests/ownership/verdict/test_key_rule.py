"""The rule where the claim has a key: each kind of evidence decides at its own error rate.

H0 of the key test: the suspect does not depend on the key. Unit: the key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.reports import BAD, CLAIM, FAR, LOW, NEAR, SUSPECT, changed, report, result

from ownership.keyed.test import MapScore
from ownership.plan import Plan
from ownership.reports import key_text, sentences
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.verdict.explanations import ExplanationFinding
from ownership.verdict.multiplicity import suspect_pvalue
from ownership.verdict.order import KeyOrder, key_order
from ownership.verdict.records import KeyRecord, TimestampRecord
from ownership.verdict.results import AuditorEncoder, InterimAnalysis, KeyTest
from ownership.verdict.rule import Evidence, ReasonCode, Verdict
from ownership.verdict.strength import Support

KEY = KeyRecord(
    beacon=None,
    commitment_sha256="k",
    probes=100,
    pool_sha256="p",
    pool_images=200,
    directions=8,
    feature_encoder_sha256=None,
    keys_tried=1,
    anchor=TimestampRecord(authority="TSA", time="2026-01-01T00:00:00+00:00", trusted=True),
)
CLAIM_WITH_KEY = replace(CLAIM, key=KEY)


def key(exceeding: int = 0, **changes: Any) -> KeyTest:
    of = KeyTest(
        maps={"content": MapScore(r_squared=0.2, z=10.0)},
        statistic=100.0,
        decoys=99_999,
        exceeding=exceeding,
        histogram=(99_999 - exceeding, exceeding),
        edges=(0.0, 100.0, 200.0),
        keys_tried=1,
        victim=0,
        references={"r0": 0, "r1": 0, "r2": 0},
    )
    return replace(of, **changes)


def keyed(of: KeyTest | None, *results: Any, **changes: Any) -> Report:
    names = () if of is None else tuple(of.references)
    return report(*results, claim=replace(CLAIM_WITH_KEY, references=names), key=of, **changes)


def test_the_key_test_alone_decides_and_its_strength_is_its_own() -> None:
    r = keyed(key())
    assert r.verdict is Verdict.SUPPORTED
    assert r.decision.evidence == (Evidence.KEY,)
    assert r.strength.error_rate == 1e-4
    assert r.strength.likelihood_ratio == pytest.approx(0.05 ** (1 / 3) / 1e-4)  # 3 of 3: at least 3,684
    assert r.strength.support is Support.STRONG


def test_p_at_alpha_rejects_and_one_decoy_more_does_not() -> None:
    assert keyed(key(9)).verdict is Verdict.SUPPORTED  # (1 + 9) / 100,000 = alpha
    assert keyed(key(10)).verdict is Verdict.NOT_SUPPORTED


def test_keys_tried_multiply_p() -> None:
    assert keyed(key(4, keys_tried=2)).verdict is Verdict.SUPPORTED
    assert keyed(key(5, keys_tried=2)).verdict is Verdict.NOT_SUPPORTED
    assert key(5, keys_tried=2).adjusted_pvalue == pytest.approx(12e-5)


def test_preprocessings_tried_share_the_error_rate() -> None:
    suspect = replace(SUSPECT, preprocessings_tried=("none", "half"))
    r = keyed(key(), plan=Plan(key_alpha=5e-5, interim_queries=(), interim_alpha_shares=()), suspect=suspect)
    assert r.strength.error_rate == pytest.approx(1e-4)


def test_a_claim_whose_key_test_does_not_find_its_own_victim_concludes_nothing() -> None:
    r = keyed(key(5000, victim=500, references={}))
    assert r.verdict is Verdict.INCONCLUSIVE
    assert [x.code for x in r.reasons][-1] is ReasonCode.KEY_UNDETECTED
    assert "not even the victim" in sentences.reasons(r)[-1]


def test_a_claim_whose_key_test_finds_no_reference_surrogate_concludes_nothing() -> None:
    assert keyed(key(5000, references={"r0": 900})).verdict is Verdict.INCONCLUSIVE
    assert keyed(key(5000, references={"r0": 900, "r1": 0})).verdict is Verdict.NOT_SUPPORTED


def test_without_reference_surrogates_no_ratio_is_stated() -> None:
    r = keyed(key(references={}))
    assert r.verdict is Verdict.SUPPORTED
    assert r.strength.likelihood_ratio is None


def test_the_panel_is_second_evidence_at_its_own_error_rate() -> None:
    test = result("partial_rsa_relative", FAR, LOW, LOW, (3.0, 3.1))
    by_panel = keyed(key(5000), test, plan=Plan(primary=(test.name,), interim_queries=(), interim_alpha_shares=()))
    assert by_panel.verdict is Verdict.SUPPORTED
    assert by_panel.decision.evidence == (Evidence.PANEL,)
    assert by_panel.strength.error_rate == 0.01
    assert by_panel.findings.error_rate == pytest.approx(0.0101)  # of the claim: the sum
    both = changed(by_panel, key=key())
    assert both.decision.evidence == (Evidence.KEY, Evidence.PANEL)
    assert both.strength.error_rate == 1e-4


def test_a_key_test_that_finds_nothing_counts_although_the_panel_is_weak() -> None:
    test = result("partial_rsa_relative", NEAR, LOW, None)  # a stratum is missing, and no reference is detected
    assert report(test).verdict is Verdict.INCONCLUSIVE
    assert keyed(key(5000), test).verdict is Verdict.NOT_SUPPORTED


def test_outputs_of_any_kind_are_tested_by_the_key() -> None:
    suspect = replace(SUSPECT, output_kind="logits")
    assert keyed(key(), suspect=suspect).verdict is Verdict.SUPPORTED
    assert keyed(None, suspect=suspect).verdict is Verdict.INCONCLUSIVE


def test_responses_that_cannot_be_tested_are_inconclusive() -> None:
    assert keyed(None, problems=(BAD,)).verdict is Verdict.INCONCLUSIVE


def interim(of: KeyTest) -> InterimAnalysis:
    return InterimAnalysis(queries=250, alpha=0.002, key_alpha=2e-5, results=(), key=of)


@pytest.mark.parametrize(("exceeding", "supported"), [(1, True), (2, False)])
def test_an_interim_analysis_has_its_share_of_the_key_tests_alpha(exceeding: int, supported: bool) -> None:
    r = keyed(key(5000), plan=Plan(), interim_analyses=(interim(key(exceeding)),))
    assert (r.verdict is Verdict.SUPPORTED) == supported
    assert r.decided_after == (250 if supported else None)


def test_a_verdict_of_an_interim_analysis_counts_the_references_of_that_analysis() -> None:
    early = key(0, references={"r0": 0, "r1": 900, "r2": 900})
    r = keyed(early, plan=Plan(), interim_analyses=(interim(early),))
    assert r.findings.ended_early
    assert r.strength.reached == ("r0",)


def test_p_of_a_suspect_is_at_most_the_claims_error_rate_exactly_where_it_is_supported() -> None:
    test = result("partial_rsa_relative", NEAR, LOW, LOW, (3.0,))
    for n in (0, 9, 10, 50, 5000):
        for r in (keyed(key(n)), keyed(key(n), test)):
            p = suspect_pvalue(r.findings, r.decision)
            assert p is not None
            assert (p <= r.findings.error_rate + 1e-15) == (r.verdict is Verdict.SUPPORTED)


def test_an_auditors_own_encoders_are_judged_by_the_key_test_too() -> None:
    def own(name: str, found: int) -> AuditorEncoder:
        return AuditorEncoder(name=name, sha256=name, provenance="", values={"key_test": found}, problems=())

    r = keyed(key(), auditor_panel=(own("a", 5000), own("b", 70_000)))
    assert r.decision.auditor_positives == ()
    assert r.verdict is Verdict.SUPPORTED
    leaked = keyed(key(), auditor_panel=(own("a", 0), own("b", 70_000)))
    assert leaked.decision.auditor_positives == ("a",)
    assert leaked.verdict is Verdict.INCONCLUSIVE  # an independent encoder that depends on the key: it is no secret


def test_the_key_test_sets_a_suspect_apart_from_kinds_that_no_panel_holds() -> None:
    test = result("partial_rsa_relative", NEAR, LOW, LOW)
    found = keyed(key(), test).explanations
    assert {e.finding for e in found} == {ExplanationFinding.SET_APART}
    assert all(e.consequence is None for e in found)


BEFORE, AFTER = "2025-12-31T00:00:00+00:00", "2026-05-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("anchor", "published", "expected"),
    [
        (KEY.anchor, AFTER, KeyOrder.KEY_FIRST),
        (KEY.anchor, BEFORE, KeyOrder.SUSPECT_FIRST),
        (KEY.anchor, None, KeyOrder.NO_DATE),
        (replace(KEY.anchor, trusted=False) if KEY.anchor else None, AFTER, KeyOrder.UNCHECKED),
        (None, AFTER, KeyOrder.UNANCHORED),
    ],
)
def test_which_came_first_is_on_the_first_page(
    anchor: TimestampRecord | None, published: str | None, expected: KeyOrder
) -> None:
    record = replace(KEY, anchor=anchor)
    assert key_order(record, published) is expected
    r = report(claim=replace(CLAIM, key=record, references=("r0", "r1", "r2")), key=key())
    r = replace(r, options=replace(r.options, published=published))
    said = key_text.key_summary(r)
    assert ("It is not excluded that the owner drew keys" in said) == (expected is not KeyOrder.KEY_FIRST)
    first_page = render_html(r).split("<section>")[1]
    assert said.split(".")[0].replace("'", "&#39;") in first_page


def test_a_report_with_a_key_is_stored_and_checked() -> None:
    r = keyed(key(3), plan=Plan(), interim_analyses=(interim(key(5)),))
    stored = r.to_dict()
    assert Report.from_dict(stored) == r
    assert stored["key"]["pvalue"] == pytest.approx(4e-5)
    assert stored["evidence"] == ["key"]
    for changed_field in ({"pvalue": 1e-5}, {"rejects": False}, {"exceeding": 4}):
        with pytest.raises(Exception, match="does not follow"):
            Report.from_dict({**stored, "key": {**stored["key"], **changed_field}})


def test_a_suspect_with_too_many_dimensions_for_the_probes_is_inconclusive() -> None:
    narrow, wide = (replace(SUSPECT, dim=KEY.probes // 4 + more) for more in (0, 1))
    assert keyed(key(5000), suspect=narrow).verdict is Verdict.NOT_SUPPORTED
    r = keyed(key(5000), suspect=wide)
    assert r.verdict is Verdict.INCONCLUSIVE
    assert [x.code for x in r.reasons][-1] is ReasonCode.KEY_DIMENSIONS
    assert "26 numbers for an image" in sentences.reasons(r)[-1]
    assert keyed(key(), suspect=wide).verdict is Verdict.SUPPORTED  # p is exact for any dimension
