"""Strength of a verdict: known answers computed by hand, monotone in what the references say, limits said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import BAD, FAR, LOW, NEAR, against_small, changed, report, result

from ownership.errors import ReportError
from ownership.plan import Plan
from ownership.reports import alternatives, sentences, strength_text
from ownership.reports.report import Report
from ownership.verdict.explanations import ExplanationFinding
from ownership.verdict.records import EncoderEntry
from ownership.verdict.results import AuditorEncoder, InterimAnalysis
from ownership.verdict.rule import Verdict
from ownership.verdict.strength import SCALE, Support, lower_bound, support_level, upper_bound

STRONG, WEAK = 9.0, 0.2
SET_APART, ALIKE = ExplanationFinding.SET_APART, ExplanationFinding.NOT_SET_APART
ABSENT, UNTESTED = ExplanationFinding.NOT_REPRESENTED, ExplanationFinding.NOT_TESTED


OWN = (AuditorEncoder(name="own", sha256="a", provenance="", values={"partial_rsa_relative": 0.1}, problems=()),)


def suspected(value: float, k: int, n: int, **changes: Any) -> Report:
    """A report whose claim has n reference surrogates, k of which get SUPPORTED in the suspect's place."""
    references = (STRONG,) * k + (WEAK,) * (n - k)
    return report(result("partial_rsa_relative", value, LOW, LOW, references), **changes)


@pytest.mark.parametrize(
    ("k", "n", "by_hand"),
    [
        (3, 3, 0.05 ** (1 / 3)),  # all of n: p^n = 0.05
        (10, 10, 0.05**0.1),
        (1, 3, 1 - 0.95 ** (1 / 3)),  # one of n: 1 - (1 - p)^n = 0.05
        (2, 3, 0.13535),  # 3 p^2 - 2 p^3 = 0.05
        (0, 3, 0.0),
    ],
)
def test_known_bounds(k: int, n: int, by_hand: float) -> None:
    p = lower_bound(k, n)
    assert p == pytest.approx(by_hand, abs=1e-5)
    if k:
        tail = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
        assert tail == pytest.approx(0.05)
    assert upper_bound(n - k, n) == pytest.approx(1 - by_hand, abs=1e-5)


@given(st.integers(1, 60), st.data())
def test_bounds_are_monotone_and_on_the_safe_side(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n - 1))
    assert 0 <= lower_bound(k, n) < lower_bound(k + 1, n) < 1
    assert lower_bound(k, n) <= k / n <= upper_bound(k, n) <= 1
    assert lower_bound(k + 1, n + 1) > lower_bound(k, n)


def test_supported_by_hand() -> None:
    r = suspected(FAR, 3, 3, auditor_panel=OWN)
    assert r.verdict is Verdict.SUPPORTED
    s = r.strength
    assert (s.references, s.reached, s.favors, s.support) == (3, ("r0", "r1", "r2"), "copied", Support.MODERATE)
    assert s.probability == pytest.approx(0.05 ** (1 / 3))
    assert s.likelihood_ratio == pytest.approx(0.05 ** (1 / 3) / 0.01)
    assert "at least 36.8 times" in strength_text.strength(s, r.verdict, panel=True)
    assert "3 of 3 reference surrogates get this verdict" in strength_text.strength_arithmetic(s)
    assert "0.368 / 0.01" in strength_text.strength_arithmetic(s)


def test_by_the_owners_panel_alone_at_most_weak_support_is_stated() -> None:
    """The ratio stays; its level is stated once the auditor's own encoders were tested, or the key test decides."""
    alone, tested = suspected(FAR, 3, 3).strength, suspected(FAR, 3, 3, auditor_panel=OWN).strength
    assert (alone.support, alone.limited) == (Support.WEAK, True)
    assert (tested.support, tested.limited) == (Support.MODERATE, False)
    assert alone.likelihood_ratio == tested.likelihood_ratio
    said = strength_text.strength(alone, Verdict.SUPPORTED, panel=True)
    assert "at least 36.8 times" in said
    assert "weak support for a copy only" in said
    assert "--auditor-panel" in said
    assert "moderate support for a copy on the scale" in strength_text.strength(tested, Verdict.SUPPORTED, panel=True)
    assert not suspected(NEAR, 40, 40).strength.limited  # NOT_SUPPORTED: the owner gains nothing by it
    assert not suspected(FAR, 0, 2).strength.limited  # no support, nothing to limit


def test_a_missing_base_checkpoint_is_on_the_first_page_of_a_panel_verdict() -> None:
    r = suspected(FAR, 3, 3)
    assert "names no base checkpoint" in sentences.tests_summary(r)
    with_siblings = changed(r, claim=replace(r.claim, panel=panel("plain", "sibling")))
    assert "names no base checkpoint" not in sentences.tests_summary(with_siblings)


def test_not_supported_by_hand() -> None:
    s = suspected(NEAR, 3, 3).strength
    assert s.likelihood_ratio == pytest.approx((1 - 0.05 ** (1 / 3)) / 0.99)
    assert (s.favors, s.support) == ("independent", Support.NONE)
    s = suspected(NEAR, 40, 40).strength
    assert s.likelihood_ratio == pytest.approx((1 - 0.05 ** (1 / 40)) / 0.99)
    assert s.support is Support.MODERATE
    assert suspected(NEAR, 2, 3).strength.reached == ("r0", "r1")


@given(st.integers(1, 12), st.data())
def test_the_ratio_is_monotone_in_k(n: int, data: st.DataObject) -> None:
    """More references that reach the verdict: SUPPORTED says more for a copy, NOT_SUPPORTED more against one."""
    k = data.draw(st.integers(0, n - 1))
    fewer, more = (suspected(FAR, i, n).strength for i in (k, k + 1))
    assert fewer.likelihood_ratio is not None
    assert more.likelihood_ratio is not None
    assert len(fewer.reached) == k
    assert fewer.likelihood_ratio < more.likelihood_ratio <= 1 / 0.01
    if k:  # with none that reach it the claim is powerless, and the verdict INCONCLUSIVE
        fewer, more = (suspected(NEAR, i, n).strength for i in (k, k + 1))
        assert fewer.likelihood_ratio is not None
        assert more.likelihood_ratio is not None
        assert fewer.likelihood_ratio > more.likelihood_ratio > 0


def test_a_bound_below_one_is_not_stated_as_a_number() -> None:
    """SUPPORTED beside "at least 0 times as probable" would read as a contradiction."""
    none = suspected(FAR, 0, 3).strength
    assert none.likelihood_ratio == 0
    assert "No useful bound" in strength_text.strength(none, Verdict.SUPPORTED, panel=False)
    low = suspected(NEAR, 3, 3).strength
    assert "of the panel's kinds" in strength_text.strength(low, Verdict.NOT_SUPPORTED, panel=True)
    assert "of the panel's kinds" not in strength_text.strength(low, Verdict.NOT_SUPPORTED, panel=False)


def test_when_nothing_can_be_stated() -> None:
    none = suspected(FAR, 0, 0).strength
    assert none.likelihood_ratio is none.support is None
    assert "no reference surrogates" in strength_text.strength(none, Verdict.SUPPORTED, panel=True)
    inconclusive = suspected(FAR, 3, 3, problems=(BAD,))
    assert inconclusive.verdict is Verdict.INCONCLUSIVE
    assert inconclusive.strength.likelihood_ratio is None
    assert "inconclusive" in strength_text.strength(inconclusive.strength, inconclusive.verdict, panel=True)
    none_reached = suspected(FAR, 0, 2).strength  # its own references do not reach what the suspect reached
    assert (none_reached.likelihood_ratio, none_reached.support) == (0.0, Support.NONE)


def test_tried_preprocessings_and_a_references_missing_test() -> None:
    """BatchSummary tries share alpha: the error rate is that of all; a reference without a score counts as missed."""
    r = suspected(FAR, 3, 3)
    suspect = replace(r.suspect, preprocessings_tried=("none", "imagenet"))
    tried = changed(r, plan=replace(r.plan, alpha=0.005), suspect=suspect)
    assert tried.strength.error_rate == pytest.approx(0.01)
    assert tried.strength.likelihood_ratio == pytest.approx(r.strength.likelihood_ratio)
    r = changed(r, claim=replace(r.claim, references=("r0", "r1", "r2", "another")))
    assert (r.strength.references, len(r.strength.reached)) == (4, 3)


def test_an_early_end_counts_early_looks_only() -> None:
    """A reference that the last look's larger share would find, on an early look's numbers, is not counted."""
    value = 0.15 + 0.1118 * (6 / 5) ** 0.5 * 5.0  # t = 5, df 4: p about 0.0037
    test = result("partial_rsa_relative", FAR, LOW, LOW, (STRONG, value))
    plan = Plan(interim_queries=(250,), interim_alpha_shares=(0.2,))
    early = report(
        test, plan=plan, interim_analyses=(InterimAnalysis(queries=250, alpha=0.002, key_alpha=2e-5, results=(test,)),)
    )
    assert early.findings.ended_early
    assert early.verdict is Verdict.SUPPORTED
    assert early.strength.reached == ("r0",)
    whole = changed(
        early,
        interim_analyses=(
            InterimAnalysis(queries=250, alpha=0.002, key_alpha=2e-5, results=(replace(test, value=NEAR),)),
        ),
    )
    assert not whole.findings.ended_early
    assert whole.strength.reached == ("r0", "r1")


def test_a_reference_is_none_to_itself() -> None:
    """Against small members relative similarity decides: the only reference would come all the way to itself."""
    plan = Plan(interim_queries=(), interim_alpha_shares=(), primary=("partial_rsa",))
    alone = report(against_small("partial_rsa", 3.0, (3.15,)), plan=plan)
    assert alone.verdict is Verdict.SUPPORTED
    assert alone.strength.reached == ()
    two = report(against_small("partial_rsa", 3.0, (3.15, 2.9)), plan=plan)
    assert two.strength.reached == ("r0", "r1")


def test_the_scale() -> None:
    words = [Support.NONE, *(level for _, _, level in SCALE)]
    assert [support_level(x) for x in (1.9, 2, 10, 100, 1000, 1e4, 1e6)] == words
    assert [support_level(x) for x in (9.99, 99.9, 999, 9999, 999_999)] == words[1:-1]
    assert support_level(0.0) is Support.NONE
    assert all(below == following[0] for (_, below, _), following in pairwise(SCALE))


def test_it_is_derived_and_a_forged_one_is_refused() -> None:
    r = suspected(FAR, 3, 3)
    stored = json.loads(json.dumps(r.to_dict()))
    assert Report.from_dict(stored) == r
    for field, value in (("likelihood_ratio", 1e6), ("support", "strong"), ("reached", ["r0"])):
        with pytest.raises(ReportError, match="does not follow"):
            Report.from_dict({**stored, "strength": {**stored["strength"], field: value}})
    for gone in ("strength", "explanations", "relative_similarity"):
        with pytest.raises(ReportError, match="does not follow"):
            Report.from_dict({k: v for k, v in stored.items() if k != gone})
    stored["explanations"][0]["finding"] = "excluded"
    with pytest.raises(ReportError, match="does not follow"):
        Report.from_dict(stored)


# explanations


def by_name(r: Report) -> dict[str, Any]:
    return {e.name: e for e in r.explanations}


def panel(*kinds: str, private: tuple[int, ...] = ()) -> tuple[EncoderEntry, ...]:
    names = [f"{kind}{i}" for kind in kinds for i in range(5)]
    return tuple(
        EncoderEntry(name=n, kind=n[:-1], watermark=None, data=None, sha256="a" * 64, trained_on_private=i in private)
        for i, n in enumerate(names)
    )


def test_what_the_panel_says_of_each_explanation() -> None:
    far = suspected(FAR, 1, 1)
    r = changed(far, claim=replace(far.claim, panel=panel("plain", "watermarked", private=(2,))))
    said = by_name(r)
    assert {n: e.finding for n, e in said.items()} == {
        "plain": SET_APART, "watermarked": SET_APART, "sibling": ABSENT, "rotation_invariant": ABSENT,
        "same_data": SET_APART, "unpublished_checkpoint": ABSENT, "chance": SET_APART,
    }  # fmt: skip
    assert said["watermarked"].pvalues == {"partial_rsa_relative": r.results[0].strata["watermarked"].pvalue}
    near = by_name(changed(r, results=(replace(r.results[0], value=NEAR),)))
    assert {near[n].finding for n in ("plain", "watermarked", "same_data", "chance")} == {ALIKE}
    untested = by_name(changed(r, results=(), problems=(BAD,)))
    assert {untested[n].finding for n in ("plain", "watermarked", "same_data", "chance")} == {UNTESTED}


def test_chance_counts_the_auditors_own_encoders() -> None:
    r = suspected(FAR, 1, 1, auditor_panel=OWN)
    assert "0 of the auditor's own 1" in alternatives.explanation(by_name(r)["chance"], r)
