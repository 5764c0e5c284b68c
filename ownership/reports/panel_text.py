"""The sentences about the panel: whether it can be trusted, and whether the claim or the suspect came first."""

from __future__ import annotations

from ownership.reports.report import Report
from ownership.verdict.order import stamped_first
from ownership.verdict.panel_strength import PanelStrength
from ownership.verdict.rule import Reason, key_detects


def weakness(of: Reason) -> str:
    """Return in a sentence which required strata are weaker than the victim, without a full stop."""
    counts = [
        f"{n['strong']} of {n['members']} members of the stratum {s} (median lead {n['median_lead']:.3f})"
        for s, n in of.data["strata"].items()
    ]
    return (
        f"the panel is weaker than the victim: {' and '.join(counts)} agree with it better than untrained baselines do "
        "about which probes are alike, and at least half are required, so they do not count as controls of its size"
    )


def agreements(of: PanelStrength) -> str:
    """Return in sentences how well baselines and members agree with the victim, without the last full stop."""
    leads = "; ".join(
        f"{stratum} {', '.join(f'{name} {lead:.3f}' for name, lead in of.leads(stratum).items())}"
        for stratum in of.members
    )
    baselines = ", ".join(f"{name.replace('_', ' ')} {x:.3f}" for name, x in of.baselines.items())
    return (
        f"share of the victim's nearest neighbours (10 of each of {of.probes} probes) that an encoder finds, beyond "
        f"those that untrained baselines find. Each baseline, beyond the others: {baselines}. Lead of each member over "
        f"the baseline that comes closest to it: {leads}. A member with a lead above 0 is strong"
    )


def panel_order(report: Report) -> str:
    """Return in a sentence what is shown about which came first, the claim or the suspect, where the panel decides.

    The tests against the panel are symmetric: they give the same if the victim was made from the suspect.
    """
    published = report.options.published
    if first := stamped_first(report.claim.seal, published):
        return f"The claim was stamped at {first}, before {published}, from when the suspect is stated to exist."
    return (
        "Nothing shows that the victim is older than the suspect: these tests would find the same if the victim had "
        "been made from the suspect. A trusted timestamp of the claim (--roots) before the suspect's first date "
        "(--published) would."
    )


def panel_doubts(report: Report) -> str:
    """Return in sentences what speaks against a verdict that the panel alone supports; empty if nothing does.

    A panel of encoders weaker than the victim makes every good encoder look like a copy. The auditor's own encoders
    would show it; the key test, where it finds the claim's known copies, contradicts it. Against a panel without
    siblings, a common base checkpoint does so, too.
    """
    findings, said = report.findings, []
    if key_detects(findings):
        said.append("The key test would have found a copy like the reference surrogates, and finds no key.")
    if not findings.auditor_panel:
        said.append(
            "No encoders of the auditor were tested (--auditor-panel): it is not excluded that the panel's encoders "
            "are weaker than the victim or unlike the suspect, so that every good encoder would look like a copy."
        )
    if not any(m.kind == "sibling" for m in findings.claim.panel):
        said.append(
            "The claim names no base checkpoint of the victim (stratum sibling): it is not excluded that suspect and "
            "victim were trained from the same public encoder, independently of each other."
        )
    return " ".join(said)
