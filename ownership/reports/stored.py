"""Tests as a report stores them: with every number that follows from the others, which is checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ownership.io.records import from_json, to_json
from ownership.verdict.findings import Findings, adjusted
from ownership.verdict.results import InterimAnalysis, KeyTest, TestResult
from ownership.verdict.rule import key_rejects, rejecting

DERIVED = (
    "strata",
    "primary",
    "pvalue",
    "adjusted_pvalue",
    "rejects",
    "decisive_stratum",
    "effect_size",
    "confidence_interval",
    "threshold",
    "exceeds_all_controls",
)
"""Fields of a stored test that follow from the others."""


def follows(stored: Any, derived: Any) -> bool:
    """Return whether a stored value is the derived one. Last digits depend on versions of libraries and the machine."""
    if isinstance(stored, dict) and isinstance(derived, dict):
        return stored.keys() == derived.keys() and all(follows(v, derived[k]) for k, v in stored.items())
    if isinstance(stored, list) and isinstance(derived, list):
        return len(stored) == len(derived) and all(map(follows, stored, derived))
    if isinstance(stored, float) and isinstance(derived, float):
        return math.isclose(stored, derived, rel_tol=1e-9, abs_tol=1e-12)
    return bool(stored == derived)


def test_to_dict(
    test: TestResult, adjusted_pvalues: Mapping[str, float], rejecting: Collection[str], share: float
) -> dict[str, Any]:
    """Return a test with everything that follows from it."""
    return {
        **to_json(test),
        "strata": {
            s: {**to_json(c), "confidence_interval": list(c.confidence_interval)} for s, c in test.strata.items()
        },
        "primary": test.name in adjusted_pvalues,
        "pvalue": test.pvalue,
        "adjusted_pvalue": adjusted_pvalues.get(test.name),
        "rejects": test.name in rejecting if test.name in adjusted_pvalues else None,
        "decisive_stratum": test.decisive_stratum,
        "effect_size": test.decisive.effect_size,
        "confidence_interval": list(test.decisive.confidence_interval),
        "threshold": test.threshold(share),
        "exceeds_all_controls": test.exceeds_all_controls,
    }


def test_from_dict(value: dict[str, Any]) -> TestResult:
    """Return the test that `test_to_dict` stored."""
    kept = {k: v for k, v in value.items() if k not in DERIVED}
    test: TestResult = from_json(TestResult, kept)
    return test


KEY_DERIVED = ("pvalue", "adjusted_pvalue", "alpha", "rejects")
"""Fields of a stored key test that follow from the others."""


def key_to_dict(key: KeyTest | None, alpha: float) -> dict[str, Any] | None:
    """Return a key test with everything that follows from it."""
    if key is None:
        return None
    derived = {"pvalue": key.pvalue, "adjusted_pvalue": key.adjusted_pvalue}
    return {**to_json(key), **derived, "alpha": alpha, "rejects": key_rejects(key, alpha)}


def stored_key(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a stored key test without what follows from it."""
    return None if value is None else {k: v for k, v in value.items() if k not in KEY_DERIVED}


TWINS_DERIVED = (*KEY_DERIVED, "decides")
"""Fields of a stored test of twins that follow from the others."""


def twins_to_dict(findings: Findings) -> dict[str, Any] | None:
    """Return the test of twins with everything that follows from it; None if it was not made."""
    twins = findings.twins
    if twins is None:
        return None
    derived = {"pvalue": twins.pvalue, "adjusted_pvalue": twins.adjusted_pvalue, "alpha": findings.plan.twins_alpha}
    return {**to_json(twins), **derived, "decides": findings.twins_decide, "rejects": findings.twins_reject}


def stored_twins(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a stored test of twins without what follows from it."""
    return None if value is None else {k: v for k, v in value.items() if k not in TWINS_DERIVED}


def interim_to_dict(interim: InterimAnalysis) -> dict[str, Any]:
    """Return an interim analysis with everything that follows from it."""
    share = interim.alpha / max(1, len(interim.results))
    names = [t.name for t in rejecting(interim.results, interim.alpha)]
    results = [test_to_dict(r, adjusted(interim.results), names, share) for r in interim.results]
    return {
        "queries": interim.queries,
        "alpha": interim.alpha,
        "key_alpha": interim.key_alpha,
        "key": key_to_dict(interim.key, interim.key_alpha),
        "results": results,
    }


def interim_from_dict(value: dict[str, Any]) -> InterimAnalysis:
    """Return the interim analysis that `interim_to_dict` stored."""
    return InterimAnalysis(
        queries=from_json(int, value["queries"]),
        alpha=from_json(float, value["alpha"]),
        key_alpha=from_json(float, value["key_alpha"]),
        key=from_json(KeyTest | None, stored_key(value["key"])),
        results=tuple(map(test_from_dict, value["results"])),
    )
