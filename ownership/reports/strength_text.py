"""The sentences about the strength of a verdict."""

from __future__ import annotations

from ownership.reports.glossary import SUPPORT_LEVELS, format_exact_p, format_ratio
from ownership.verdict.rule import Verdict
from ownership.verdict.strength import Strength, Support


def strength(of: Strength, decision: Verdict, *, panel: bool) -> str:
    """Return the strength of a verdict in one sentence.

    Args:
        of: the strength.
        decision: the verdict.
        panel: whether independence is of the kinds of a panel.
    """
    if decision is Verdict.INCONCLUSIVE:
        return "No strength is stated: nothing follows from an inconclusive audit."
    if of.likelihood_ratio is None:
        return (
            "No likelihood ratio can be stated: the claim has no reference surrogates, so it is not known how often a "
            "surrogate gets this verdict."
        )
    level = SUPPORT_LEVELS[of.support or Support.NONE]
    copied = of.favors == "copied"
    ratio = of.likelihood_ratio if copied else 1 / of.likelihood_ratio
    if ratio < 1:
        return (
            f"No useful bound of the likelihood ratio follows from {len(of.reached)} of {of.references} reference "
            "surrogates that get the verdict SUPPORTED."
        )
    these = (
        "it was copied as the owner's reference surrogates were",
        "it is an independent encoder of the panel's kinds"
        if panel and of.by is None
        else "it is an independent encoder",
    )
    if_this, if_that = these if copied else these[::-1]
    level += "" if of.support is Support.NONE else " for a copy" if copied else " for independence"
    said = f"This verdict is at least {format_ratio(ratio)} times as probable if {if_this} as if {if_that}"
    if of.limited:
        return (
            f"{said}. It is stated as {level} only, because the owner alone chose the encoders that stand for "
            "independence: with encoders of the auditor's own (--auditor-panel), the level is that of the ratio."
        )
    return f"{said}: {level} on the scale of ENFSI (2015)."


def strength_arithmetic(of: Strength) -> str:
    """Return in one sentence how the likelihood ratio follows; empty if none is stated.

    "3 of 3 reference surrogates get this verdict, so it has a probability of at least 0.368 if copied; ..."
    """
    if of.likelihood_ratio is None or of.probability is None:
        return ""
    k, n, rate = len(of.reached), of.references, of.error_rate
    if of.favors == "copied":
        return (
            f"{k} of {n} reference surrogates get this verdict, so it has a probability of at least "
            f"{of.probability:.3g} for a copy, and of at most {format_exact_p(rate)} for an independent encoder: at "
            f"least {of.probability:.3g} / {format_exact_p(rate)} = {format_ratio(of.likelihood_ratio)}."
        )
    return (
        f"{n - k} of {n} reference surrogates get this verdict, so it has a probability of at most "
        f"{of.probability:.3g} for a copy, and of at least {1 - rate:g} for an independent encoder: at least "
        f"{1 - rate:g} / {of.probability:.3g} = {format_ratio(1 / of.likelihood_ratio)}."
    )
