"""Whether the numbers of a stored report fit one another: a verdict must not hang on a number that the others deny."""

from __future__ import annotations

import math
from datetime import datetime
from itertools import pairwise

from ownership.errors import ReportError
from ownership.evidence import pool_test
from ownership.keyed.key import MIN_PROBES, MOST_DIRECTIONS
from ownership.keyed.twin_test import reaching
from ownership.keyed.twins import LEAST, MOST
from ownership.verdict.findings import Findings
from ownership.verdict.records import AuditOptions, KeyRecord, TwinsRecord
from ownership.verdict.results import InterimAnalysis, KeyTest, PoolTest

LARGEST = 1e12
"""Every number of a key test is smaller: standard scores, their squares, shares of variance."""


def check_consistent(findings: Findings, options: AuditOptions) -> None:
    """Check what a report states twice: in its plan, its claim and its tests.

    Raises:
        ReportError: If two of its numbers contradict each other.
    """
    if (record := findings.claim.key) is not None:
        _check_record(record)
    _check_panel(findings)
    _check_models(findings)
    _check_pool(findings, options)
    _check_twins(findings)
    for interim in findings.interim_analyses:
        _check_interim(findings, interim)
    for key in (findings.key, *(x.key for x in findings.interim_analyses)):
        if key is not None:
            _check_key(findings, key)


def _check_record(key: KeyRecord) -> None:
    """A key draws at most its whole pool, was tried at least once, and was stamped at a time."""
    _need(MIN_PROBES <= key.probes <= key.pool_images, "a key that draws more than its pool, or too few")
    _need(1 <= key.directions <= MOST_DIRECTIONS and key.keys_tried >= 1, "a key without directions or tries")
    _check_signatures(key)


def _check_signatures(of: KeyRecord | TwinsRecord) -> None:
    """Anchor and round have times with a zone."""
    if of.anchor is not None:
        _need(datetime.fromisoformat(of.anchor.time).tzinfo is not None, "a timestamp without a time zone")
    if of.beacon is not None:
        _need(of.beacon.round >= 1, "a beacon's round before the first")
        _need(datetime.fromisoformat(of.beacon.time).tzinfo is not None, "a round without a time zone")


def _check_twins(findings: Findings) -> None:
    """The test of twins is of the claim's twins, and its count fits its scores."""
    record, twins = findings.claim.twins, findings.twins
    if record is not None:
        _need(LEAST <= record.twins <= MOST and 0 <= record.picked < record.twins, "a pick of no twin")
        _need(record.tried >= 1 and findings.claim.key is not None, "twins without tries, or without a key")
        _need(record.anchor is not None or record.beacon is not None, "twins that nothing picked from")
        _check_signatures(record)
    if twins is None:
        return
    stated = None if record is None else (record.twins, record.picked, record.tried)
    _need(stated == (len(twins.scores), twins.picked, twins.tried), "the test is of other twins")
    _need(all(abs(s) < LARGEST for s in twins.scores), "a twin has a score that no audit computes")
    _need(twins.exceeding == reaching(twins.scores, twins.picked), "the rank among the twins is not that of the scores")
    _need(set(twins.references) == set(findings.claim.references), "the twins are of other reference surrogates")
    _need(all(0 <= n < len(twins.scores) for n in twins.references.values()), "more twins exceed than there are")


def _check_panel(findings: Findings) -> None:
    """The strength of the panel is of the claim's panel: of every member, in its stratum."""
    strength, panel = findings.panel_strength, findings.claim.panel
    _need((strength is None) == (not panel), "a panel without its strength, or a strength without a panel")
    if strength is None:
        return
    stated = {(stratum, name) for stratum, by_name in strength.members.items() for name in by_name}
    _need(stated == {(m.kind, m.name) for m in panel}, "the strength is of another panel")
    found = [x for by_name in strength.members.values() for x in by_name.values()]
    _need(all(x.keys() == strength.baselines.keys() for x in found), "a member compared with other baselines")
    values = [x for scores in (strength.baselines, *found) for x in scores.values()]
    _need(bool(strength.baselines) and strength.probes > 0, "a strength without baselines or probes")
    _need(all(0 <= x <= 1 for x in values), "an agreement that is no share")


def _check_pool(findings: Findings, options: AuditOptions) -> None:
    """The pool was asked of a claim with a key, and there is a result, a problem, or nothing to learn from it."""
    test, key, asked = findings.pool_test, findings.claim.key, options.pool_seed is not None
    answers = (test is not None) + (findings.pool_problem is not None)
    _need(not asked or key is not None, "a pool without a key")
    _need(answers == (asked and not findings.problems and not findings.ended_early), "a pool without its test")
    if test is not None and key is not None:
        _check_pool_test(test, key, findings.queries)


def _check_pool_test(test: PoolTest, key: KeyRecord, queries: int) -> None:
    """The test of the pool is of as many images as an audit takes, and its counts are possible."""
    others, most = key.pool_images - key.probes, pool_test.MOST
    _need(others >= pool_test.LEAST, "a pool with too few other images")
    _need((test.probes, test.others) == (min(most, key.probes), min(most, others)), "other images than an audit takes")
    _need(test.permutations == pool_test.PERMUTATIONS, "the pool was tested with another number of permutations")
    _need(0 <= test.reaching <= test.permutations, "more permutations reach the share than were drawn")
    _need(0 <= test.explained <= 1 + 1e-9, "an explained share that is no share")
    _need(queries >= key.probes + pool_test.LEAST + test.probes + test.others, "fewer queries than were made")
    if test.explained == 0:
        _need(test.reaching == test.permutations, "a share of 0 that a permutation does not reach")
        return
    # permutations explain columns / (n - 1) on average, so by Markov's inequality few reach many times as much
    share = min(1.0, pool_test.COLUMNS / ((test.probes + test.others - 1) * test.explained))
    spread = math.sqrt(test.permutations * share * (1 - share))
    _need(test.reaching <= test.permutations * share + 6 * spread, "more permutations reach the share than can")


def _check_models(findings: Findings) -> None:
    """The encoders that were to be computed again are all of the claim's, with its digests."""
    if findings.models_checked is None:
        return
    stated = {name: check.sha256 for name, check in findings.models_checked.items()}
    panel = {m.name: m.sha256 for m in findings.claim.panel}
    _need(all(stated.pop(name, None) == sha256 for name, sha256 in panel.items()), "files of another panel")
    known = all(stated.pop(name, None) is not None for name in findings.claim.references)
    _need(known and list(stated.values()) == [findings.claim.victim.sha256], "files of another victim")


def _check_interim(findings: Findings, interim: InterimAnalysis) -> None:
    """An interim analysis is one of the plan's, and spends the share of alpha that the plan gives it."""
    plan, queries = findings.plan, interim.queries
    _need(queries in plan.interim_queries, f"the plan has no interim analysis after {queries} queries")
    for stated, whole in ((interim.alpha, plan.alpha), (interim.key_alpha, plan.key_alpha)):
        share = whole * plan.share(queries)
        _need(
            math.isclose(stated, share), f"the interim analysis after {queries} queries has another alpha than planned"
        )


def _check_key(findings: Findings, key: KeyTest) -> None:
    """A key test is of the claim's key, and its counts fit its histogram and its statistic."""
    counts = (key.exceeding, key.victim, *key.references.values())
    record = findings.claim.key
    _need(record is not None, "a key test of a claim without a key")
    _need(record is None or key.keys_tried == record.keys_tried, "the claim states another number of keys tried")
    numbers = [*key.edges, key.statistic, *(x for m in key.maps.values() for x in (m.z, m.r_squared))]
    _need(all(abs(x) < LARGEST for x in numbers), "the key test has a number that no audit computes")
    _need(set(key.references) == set(findings.claim.references), "the key test is of other reference surrogates")
    _need(key.decoys == findings.plan.decoys, "the plan has another number of decoys")
    _need(all(0 <= n <= key.decoys for n in counts), "more decoys exceed than were drawn")
    total = sum(max(m.z, 0.0) ** 2 for m in key.maps.values())
    _need(math.isclose(key.statistic, total, rel_tol=1e-6, abs_tol=1e-9), "the key test's statistic is not of its maps")
    _need(_fits(key), "the histogram of the key test is of other decoys")


def _fits(key: KeyTest) -> bool:
    """Return whether the histogram holds all decoys, and so many beyond the statistic as are stated."""
    bins = list(pairwise(key.edges))
    whole = len(bins) == len(key.histogram) and sum(key.histogram) == key.decoys and all(a <= b for a, b in bins)
    if not whole or min(key.histogram, default=0) < 0:
        return False
    surely = sum(n for n, (low, _) in zip(key.histogram, bins, strict=True) if low >= key.statistic)
    perhaps = sum(n for n, (_, high) in zip(key.histogram, bins, strict=True) if high >= key.statistic)
    return surely <= key.exceeding <= perhaps


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ReportError(f"report: its numbers contradict each other: {otherwise}")
