"""The sentences about the test of twins, and about which came first: the pick or the suspect."""

from __future__ import annotations

import math

from ownership.reports.glossary import format_exact_p
from ownership.reports.key_text import ORDER, beacon_round
from ownership.reports.report import Report
from ownership.verdict.findings import Findings
from ownership.verdict.order import KeyOrder, key_order
from ownership.verdict.rule import Evidence, ReasonCode

SUMMARIZED = (ReasonCode.KEY_TEST, ReasonCode.TWINS_TEST)
"""Reasons that have a sentence of their own on the first page (`key_summary`, `twins_summary`)."""


def twins_verdict(rate: str) -> str:
    """Return the verdict of the test of twins in two sentences, with its error rate in words."""
    return (
        "The evidence supports the claim that this encoder was copied from the victim: it resembles the victim more "
        "than the victim's twins, among which a signature that is not the owner's picked the victim. Of such picks, at "
        f"most {rate} support the claim against an encoder that does not depend on the pick, however it was made."
    )


def twins_result(findings: Findings) -> str:
    """Return in one sentence what the test of twins found, without a full stop; empty if it was not made."""
    twins = findings.twins
    if twins is None:
        return ""
    m = len(twins.scores)
    said = f"of the {m - 1} twins of the deployed encoder, {twins.exceeding} are as close to the suspect as it is"
    tried = f", times {twins.tried} picks tried" if twins.tried > 1 else ""
    found = f"{said} (p {format_exact_p(twins.pvalue)}{tried})"
    if findings.twins_reject:
        return f"The test of twins rejects independence: {found}"
    if findings.twins_decide:
        return f"The test of twins does not reject independence: {found}"
    return f"The test of twins is shown and does not decide: {found}. {why_not_decisive(findings)}"


def why_not_decisive(findings: Findings) -> str:
    """Return why the test of twins cannot reject, without a full stop; empty if it can, or was not made."""
    twins, alpha = findings.twins, findings.plan.twins_alpha
    if twins is None or findings.twins_decide:
        return ""
    if twins.least_pvalue > alpha:
        return (
            f"With {len(twins.scores)} twins p cannot be below {format_exact_p(twins.least_pvalue)}; for its alpha, "
            f"{alpha:g}, there would have to be {math.ceil(twins.tried / alpha - 1e-9)}"
        )
    record = findings.claim.twins
    if record is None or record.beacon is None:
        return (
            "No root certificate was given for the authority whose signature picked (--roots), so it is not excluded "
            "that the owner picked"
        )
    return (
        "No authority with a root certificate (--roots) stamped the commitment before the beacon's round was signed, "
        "so it is not excluded that the owner knew the pick"
    )


def twins_summary(report: Report) -> str:
    """Return in sentences what the test of twins found and what the order of pick and suspect is; empty without it."""
    said = twins_result(report.findings)
    if not said:
        return ""
    decided = Evidence.TWINS in report.decision.evidence
    return f"{said}. {twins_order(report)}" if decided else f"{said}."


def twins_order(report: Report) -> str:
    """Return in sentences what is shown about which came first, the pick or the suspect; empty without twins."""
    twins, published = report.claim.twins, report.options.published
    if twins is None:
        return ""
    found = key_order(twins, published)
    if twins.anchor is None:
        return f"{beacon_round(twins)} {NOT_DATED} {NOT_EXCLUDED}"
    stamped = f"{twins.anchor.authority} stamped the commitment to {twins.twins} twins at {twins.anchor.time}"
    stamped += ", and its signature picked the deployed one." if twins.beacon is None else f". {beacon_round(twins)}"
    if found is KeyOrder.KEY_FIRST:
        return (
            f"{stamped} The stamp was before {published}, from when the suspect is stated to exist, so the pick was "
            f"not made to fit it. {_declared(twins.tried)}"
        )
    if found is KeyOrder.SUSPECT_FIRST:
        return f"{stamped} The stamp was after {published}, from when the suspect is stated to exist. {NOT_EXCLUDED}"
    return f"{stamped} {ORDER[found]} {NOT_EXCLUDED}"


def _declared(tried: int) -> str:
    made = "this pick alone" if tried == 1 else f"{tried} picks"
    return (
        f"The owner declares to have had {made} made for this victim. No timestamp shows whether there were more, of "
        "which this one was chosen later."
    )


NOT_DATED = "The commitment is not timestamped: nothing shows when it was made."
NOT_EXCLUDED = (
    "It is not excluded that the owner had the commitment stamped until the pick fitted the suspect; the p-value "
    "assumes that this did not happen."
)
