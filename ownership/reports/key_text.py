"""The sentences about the key test, and about which came first: the key or the suspect."""

from __future__ import annotations

from ownership.reports.glossary import format_exact_p
from ownership.reports.report import Report
from ownership.verdict.order import KeyOrder, key_order, stamped_first
from ownership.verdict.records import KeyRecord, TwinsRecord, stamped_before
from ownership.verdict.results import KeyTest
from ownership.verdict.rule import Evidence, first_key_rejection


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
    said = f"{_dated(key, found, published)} {_plan(report)}".strip()
    return said if key.beacon is None else f"{beacon_round(key)} {said}"


def _plan(report: Report) -> str:
    """Return in a sentence that the claim's plan is not shown to be older than the suspect; empty if it is."""
    if stamped_first(report.claim.seal, report.options.published):
        return ""
    return (
        "It is not shown that the claim, with its alpha and its choice of interim analyses, was fixed before the "
        "suspect existed (a timestamp of its seal would show it)."
    )


def beacon_round(of: KeyRecord | TwinsRecord) -> str:
    """Return in sentences what follows from the round that a commitment names; empty if it names none."""
    named, anchor = of.beacon, of.anchor
    if named is None:
        return ""
    shown = (
        "The commitment was stamped before that."
        if anchor is not None and anchor.trusted and stamped_before(anchor, named)
        else "This report does not show that the commitment was made before that; its publication would."
    )
    what, one = ("The key", "key") if isinstance(of, KeyRecord) else ("The pick", "pick")
    return (
        f"{what} follows from round {named.round} of {named.name}, whose signature was unknown before {named.time}: a "
        f"commitment that was made before gives one {one} and no choice. {shown}"
    )


def _dated(key: KeyRecord, found: KeyOrder, published: str | None) -> str:
    """Return in sentences what the anchor shows about the order of key and suspect."""
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
