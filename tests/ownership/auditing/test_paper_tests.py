"""The paper's own tests: the numbers by hand, and that they change no verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.encoders import as_suspect, encoder

from ownership import audit
from ownership.auditing.paper_tests import paper_tests
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.evidence.querying import query
from ownership.evidence.watermark_scores import watermark_hits
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.verdict.records import AuditOptions


def test_table_5_is_a_pooled_two_sided_t_of_30_and_30_batches(claim: Claim, victim: Encoder) -> None:
    """H0: equal mean batch accuracies. H1: different. Unit: a batch. By the textbook's formula."""
    responses = query(encoder(77), claim.probes, "s")
    row = next(t for t in paper_tests(claim, responses) if t.table == "5")
    random = claim.responses[claim.stratum("plain")[0].name]
    a, b = (
        [float(x.mean()) for x in np.array_split(watermark_hits(e, claim.context), 30)] for e in (responses, random)
    )
    pooled = (29 * np.var(a, ddof=1) + 29 * np.var(b, ddof=1)) / 58
    t = (np.mean(a) - np.mean(b)) / math.sqrt(pooled * 2 / 30)
    assert row.statistic == pytest.approx(t)
    assert row.pvalue == pytest.approx(2 * stats.t.sf(abs(t), 58))
    assert (row.df, row.effect) == (58, pytest.approx(np.mean(a) - np.mean(b)))


def test_the_papers_own_rows_follow_from_its_printed_numbers() -> None:
    """Table 5: p = 2 P(T > t) with 58 degrees of freedom, in all four rows (t is printed with two or three digits)."""
    for p, t in ((6.34e-14, 9.81), (1.27e-21, 15.0), (2.59e-11, 8.22), (3e-15, 10.64)):
        assert math.log10(2 * stats.t.sf(t, 58)) == pytest.approx(math.log10(p), abs=0.2)


def test_table_18_and_19_by_loops(claim: Claim, victim: Encoder) -> None:
    responses = query(encoder(77), claim.probes, "s")
    by_table = {t.table: t for t in paper_tests(claim, responses)}
    own = claim.responses[claim.victim.name].get("private")
    distances = [math.dist(x, y) for x, y in zip(own, responses.get("private"), strict=True)]
    assert by_table["18"].suspect == pytest.approx(np.mean(distances))
    assert by_table["18"].pvalue is None
    if "19" in by_table:
        raw, views = responses.get("private"), responses.get("private_views")
        n = len(raw)
        moved = [(math.dist(raw[i], views[i]) + math.dist(raw[i], views[n + i])) / 2 for i in range(n)]
        assert by_table["19"].suspect == pytest.approx(-np.mean(moved))


def test_they_decide_nothing(claim: Claim) -> None:
    spec = as_suspect(encoder(77))
    plain, with_paper = (audit(claim, spec, AuditOptions(paper_tests=wanted)) for wanted in (False, True))
    assert plain.findings.paper_tests == ()
    assert {t.table for t in with_paper.findings.paper_tests} >= {"5", "18"}
    assert (plain.verdict, plain.reasons, plain.results) == (with_paper.verdict, with_paper.reasons, with_paper.results)
    assert Report.from_dict(with_paper.to_dict()) == with_paper
    assert "do not decide" in render_html(with_paper)
    assert audit(claim, replace(spec, output_kind="logits"), AuditOptions(paper_tests=True)).findings.paper_tests == ()
