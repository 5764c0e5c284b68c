"""The sentences about the key test, and about which came first: the key or claim, or the suspect."""

from __future__ import annotations

from datetime import datetime

from ownership.reports.glossary import format_exact_p
from ownership.reports.report import Report
from ownership.verdict.order import KeyOrder, key_order
from ownership.verdict.results import KeyTest
from ownership.verdict.rule import Evidence, first_key_rejection, key_detects


def key_result(key: KeyTest, *, rejects: bool) -> str:
    """Return in one sentence what the key test found, without a full stop."""
    said = "rejects independence" if rejects else "does not reject independence"
    tried = f", times {key.keys_tried} keys tried" if key.keys_tried > 1 else ""
    return (
        f"The key test {said}: of {key.decoys:,} keys drawn anew, {key.exceeding:,} do as well as the owner's key (p "
        f"{format_exact_p(key.pvalue)}{tried})"
    )


def map_scores(key: KeyTest) -> str:
    """Return the scores of the feature maps in one sentence, without a full stop."""
    return "; ".join(
        f"{name} map: {100 * max(m.r_squared, 0):.0f} % of the key's variance is predicted; {m.z:.1f} standard "
        "deviations above the mean of keys drawn anew"
        for name, m in key.maps.items()
    )


def key_summary(report: Report) -> str:
    """Return in sentences what the key test found, and what is shown about the order of key and suspect."""
    early = first_key_rejection(report.findings)
    if early is not None and early.key is not None:
        said = f"{key_result(early.key, rejects=True)}, after {early.queries} queries. It alone suffices."
    elif (key := report.findings.key) is None:
        return ""
    else:
        rejects = Evidence.KEY in report.decision.evidence
        said = f"{key_result(key, rejects=rejects)}.{' It alone suffices.' if rejects else ''}"
    return f"{said} {order(report)}" if Evidence.KEY in report.decision.evidence else said


def order(report: Report) -> str:
    """Return in sentences what is shown about which came first, the key or the suspect; empty without a key."""
    key, published = report.claim.key, report.options.published
    if key is None:
        return ""
    found = key_order(key, published)
    if key.anchor is None:
        return f"{ORDER[found]} {NOT_EXCLUDED}"
    stamped = f"{key.anchor.authority} stamped the commitment to the key at {key.anchor.time}"
    if found is KeyOrder.KEY_FIRST:
        return (
            f"{stamped}, before {published}, from when the suspect is stated to exist, so the key was not drawn to fit "
            f"it. {_declared(key.keys_tried)}"
        )
    if found is KeyOrder.SUSPECT_FIRST:
        return f"{stamped}, after {published}, from when the suspect is stated to exist. {NOT_EXCLUDED}"
    return f"{stamped}. {ORDER[found]} {NOT_EXCLUDED}"


def panel_order(report: Report) -> str:
    """Return in a sentence what is shown about which came first, the claim or the suspect, where the panel decides.

    The tests against the panel are symmetric: they give the same if the victim was made from the suspect.
    """
    seal, published = report.claim.seal, report.options.published
    times = [] if seal is None else [t.time for t in seal.timestamps if t.trusted]
    if published is not None and times:
        first = min(times, key=datetime.fromisoformat)
        if datetime.fromisoformat(first) < datetime.fromisoformat(published):
            return f"The claim was stamped at {first}, before {published}, from when the suspect is stated to exist."
    return (
        "Nothing shows that the victim is older than the suspect: these tests would find the same if the victim had "
        "been made from the suspect. A trusted timestamp of the claim (--roots) before the suspect's first date "
        "(--published) would."
    )


def panel_doubts(report: Report) -> str:
    """Return in sentences what speaks against a verdict that the panel alone supports; empty if nothing does.

    A panel of encoders weaker than the victim makes every good encoder look like a copy. The auditor's own encoders
    would show it; the key test, where it finds the claim's known copies, contradicts it.
    """
    findings, said = report.findings, []
    if key_detects(findings):
        said.append("The key test would have found a copy like the reference surrogates, and finds no key.")
    if not findings.auditor_panel:
        said.append(
            "No encoders of the auditor were tested (--auditor-panel): it is not excluded that the panel's encoders "
            "are weaker than the victim, so that every good encoder would look like a copy."
        )
    return " ".join(said)


def _declared(keys_tried: int) -> str:
    made = "this key alone" if keys_tried == 1 else f"{keys_tried} keys"
    return (
        f"The owner declares to have had {made} stamped for this victim. No timestamp shows whether there were more, "
        "of which this one was picked later."
    )


ORDER = {
    KeyOrder.UNANCHORED: "The key is not anchored: nothing shows when it was drawn.",
    KeyOrder.UNCHECKED: "No root certificates were given, so the authority was not checked (--roots).",
    KeyOrder.NO_DATE: "No date was stated from which the suspect is known to exist (--published).",
}

NOT_EXCLUDED = (
    "It is not excluded that the owner drew keys until one fitted the suspect; the p-value and the likelihood ratio "
    "assume that this did not happen."
)
