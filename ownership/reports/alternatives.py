"""The sentences about alternative explanations: what each is, and what the panel says about it."""

from __future__ import annotations

from ownership.reports.glossary import format_p
from ownership.reports.report import Report
from ownership.reports.sentences import percent, title_of
from ownership.verdict.explanations import CHANCE, SAME_DATA, UNPUBLISHED_CHECKPOINT, Consequence, Explanation
from ownership.verdict.explanations import ExplanationFinding as Finding
from ownership.verdict.findings import KEY_TEST, TWINS_TEST

KINDS = {
    "plain": "Independence: an ordinary encoder that was trained independently",
    "watermarked": "Another watermark: an independent encoder with a watermark of its own",
    "sibling": "The same base checkpoint: suspect and victim were fine-tuned from it independently",
    "rotation_invariant": "Rotation invariance: an independent encoder trained on rotated images",
    "distilled": "Distillation from another encoder: distilled from an independent teacher",
    "small": "An independent encoder of smaller capacity, or less training, than the victim",
    "public": "Publication: the suspect is a published encoder, or was fine-tuned from one",
    SAME_DATA: "The same data: an independent encoder trained on the victim's own images",
    UNPUBLISHED_CHECKPOINT: "A common base checkpoint that was never published",
    CHANCE: "Chance",
}
"""Name of an alternative explanation -> what it is."""

FINDINGS = {
    Finding.SET_APART: "set apart",
    Finding.NOT_SET_APART: "not set apart",
    Finding.NOT_REPRESENTED: "not represented",
    Finding.NOT_TESTED: "not tested",
}

CONSEQUENCES = {
    Consequence.NOT_EXCLUDED: "It is not excluded.",
    Consequence.TWO_FAMILIES: "It is not excluded, so tests of two families have to reject.",
    Consequence.RELATIVE_SIMILARITY: "It is not excluded, so the suspect has to be close to the owner's reference "
    "surrogates.",
    Consequence.ROTATED_NOT_ALONE: "The test on rotated images therefore cannot decide alone.",
    Consequence.IF_FINE_TUNED: "It is not excluded if the victim was fine-tuned from a public checkpoint.",
}


EXACT = {
    KEY_TEST: "The key test sets the suspect apart from every encoder that was made without the key.",
    TWINS_TEST: "The test of twins sets it apart from every encoder that does not depend on which twin was picked.",
}
"""Exact test -> what it sets the suspect apart from."""


def explanation_title(of: Explanation) -> str:
    """Return what an alternative explanation is."""
    return KINDS.get(of.name, of.name)


def explanation(of: Explanation, report: Report) -> str:
    """Return what the panel says about an alternative explanation, in sentences."""
    f = report.findings
    if of.name == CHANCE:
        rate = percent(report.strength.error_rate)
        of_kinds = "" if f.has_key else " of the panel's kinds"
        said = f"The rule is wrong about an independent encoder{of_kinds} in at most {rate} of audits."
        if f.auditor_panel:
            positives = len(report.decision.auditor_positives)
            said += f" It is wrong about {positives} of the auditor's own {len(f.auditor_panel)} independent encoders."
        return said
    if exact := [said for name, said in EXACT.items() if name in of.set_apart_by]:
        others = [title_of(n, f.results) for n in of.set_apart_by if n not in EXACT]
        also = [f"So {'does' if len(others) == 1 else 'do'} {', '.join(others)}, against the panel."] if others else []
        return " ".join([*exact, *also])
    if of.name == UNPUBLISHED_CHECKPOINT:
        return (
            "No panel can represent a checkpoint that was not published. It is not excluded: access to the victim's "
            "base checkpoints has to be investigated by other means."
        )
    if of.consequence is not None:
        return f"The panel does not represent it. {CONSEQUENCES[of.consequence]}"
    represented = f"The panel represents it by {of.members} encoders."
    tests = "; ".join(f"{title_of(n, f.results)}: p {format_p(p)}" for n, p in of.pvalues.items())
    listed = f" ({tests})" if tests else ""
    if of.finding is Finding.NOT_TESTED:
        return f"{represented} No primary test could be made against them."
    if of.finding is Finding.NOT_SET_APART:
        return f"{represented} The suspect does not differ from them{listed}."
    if not tests:
        listed = f" ({', '.join(title_of(n, f.results) for n in of.set_apart_by)})"
    return f"{represented} The suspect differs from them and exceeds each of them{listed}."
