"""Every sentence that is said about an audit, made from codes and numbers: for the HTML report and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ownership.evidence.statistics import STATISTICS
from ownership.plan import MIN_RELATIVE_SIMILARITY
from ownership.reports.glossary import format_exact_p, format_number, format_p
from ownership.reports.key_text import key_result
from ownership.reports.panel_text import panel_doubts, panel_order, weakness
from ownership.reports.report import Report
from ownership.reports.twins_text import SUMMARIZED, twins_result, twins_verdict
from ownership.verdict.findings import Findings
from ownership.verdict.results import (
    POOL_ALPHA,
    PoolTest,
    PredictorCheck,
    ProbeQuality,
    Skip,
    SkipCode,
    TestResult,
)
from ownership.verdict.rule import Evidence, Reason, ReasonCode, Verdict, has_full_size_controls, missing_strata


def models_checked(report: Report) -> str:
    """Return which of the claim's representations were computed again from the encoders' files."""
    checked = report.findings.models_checked
    if checked is None:
        return "not computed again from files (--models), so they are its owner's word"
    again = ", ".join(sorted(name for name, check in checked.items() if check.recomputed))
    without = ", ".join(sorted(name for name, check in checked.items() if not check.recomputed))
    believed = f"; its owner's word, as no file of their SHA-256 was given: {without}" if without else ""
    return f"computed again from files: {again or 'none'}{believed}"


def title_of(name: str, tests: Sequence[TestResult] = ()) -> str:
    """Return the title of a test: as the report records it, or as this version names it."""
    named = STATISTICS[name].title if name in STATISTICS else name
    return next((t.title for t in tests if t.name == name and t.title), named)


def percent(rate: float) -> str:
    """Return a rate in percent.

    >>> percent(0.01), percent(0.0025)
    ('1 %', '0.25 %')
    """
    return f"{100 * rate:g} %"


def verdict(report: Report) -> str:
    """Return the verdict in one sentence or two, with its error rate."""
    rate = percent(report.strength.error_rate)
    if Evidence.KEY in report.decision.evidence:
        return (
            "The evidence supports the claim that this encoder was copied from the victim: it depends on the owner's "
            f"secret key. Of keys drawn at random, at most {rate} support the claim against an encoder that was made "
            "without the victim, however it was made."
        )
    if Evidence.TWINS in report.decision.evidence:
        return twins_verdict(rate)
    if report.verdict is Verdict.SUPPORTED:
        return (
            "The evidence supports the claim that this encoder was copied from the victim. The rule of the claim says "
            f"so of at most {rate} of independent encoders of the panel's kinds, if its assumptions hold."
        )
    if report.verdict is Verdict.NOT_SUPPORTED:
        return (
            "No evidence was found that this encoder was copied from the victim, at the error rate of "
            f"{rate} that the claim fixes. This does not prove that the encoder is independent."
        )
    return "The audit is inconclusive. It says nothing for or against a copy."


def tests_summary(report: Report) -> str:
    """Return in one sentence which primary tests found a copy, which did not, and why one suffices."""
    f = report.findings
    if Evidence.KEY in report.decision.evidence:
        return ""  # the key test suffices; its own sentence says so
    if not f.primary:
        return ""
    yes = [t for t in f.primary if t.name in report.rejecting]
    no = [t for t in f.primary if t.name not in report.rejecting]
    names_yes, names_no = (_and([f'"{t.title}"' for t in tests]) for tests in (yes, no))
    if not yes:
        return f"None of the {len(no)} primary tests rejects independence ({names_no})."
    said = f"{len(yes)} of {len(f.primary)} primary tests {_verb(len(yes), 'reject')} independence ({names_yes})"
    said += f"; {names_no} {_verb(len(no), 'do')} not" if no else ""
    said = f"{said}{_why_enough(report, yes)}."
    if Evidence.PANEL not in report.decision.evidence:
        return said
    return " ".join(x for x in (said, panel_doubts(report), panel_order(report)) if x)


def _why_enough(report: Report, rejecting: Sequence[TestResult]) -> str:
    if Evidence.PANEL not in report.decision.evidence:
        return ""
    if not has_full_size_controls(report.primary, report.findings.weak_strata):
        return (
            "; partial RSA suffices together with a relative similarity of at least "
            f"{MIN_RELATIVE_SIMILARITY:g} to the reference surrogates"
        )
    if all(missing_strata(t, report.findings.weak_strata) for t in rejecting):
        return "; tests of two families are required and suffice, because the panel lacks a stratum"
    return (
        "; one test suffices, because the error rate is divided among the tests (Holm's correction) and a copy need "
        "not leave every kind of trace"
    )


def reason(of: Reason, findings: Findings) -> str:
    """Return a reason of the verdict in words, without a full stop."""
    return _REASONS[of.code](of, findings)


def reasons(report: Report) -> list[str]:
    """Return the reasons of a report's verdict in words, but for those that `key_summary` and `twins_summary` give."""
    return [reason(r, report.findings) for r in report.reasons if r.code not in SUMMARIZED]


def _test(of: Reason, findings: Findings) -> str:
    said = "rejects" if of.data["rejects"] else "does not reject"
    beyond = "exceeds all controls" if of.data["exceeds_all_controls"] else "does not exceed all controls"
    return (
        f"{title_of(of.data['test'], findings.results)}: {said} at alpha {of.data['alpha']:g} (Holm-adjusted p "
        f"{format_p(of.data['adjusted_pvalue'])}; the suspect {beyond})"
    )


def pool_result(test: PoolTest) -> str:
    """Return what the test of the pool found."""
    said = (
        f"a linear classifier on the responses to {test.probes} probes and {test.others} other images of their pool "
        f"explains {percent(round(test.explained, 3))} of the variance of which are probes (p "
        f"{format_exact_p(test.pvalue)}, level {percent(POOL_ALPHA)})"
    )
    if not test.rejects:
        return f"{said}: no sign that the suspect answers probes differently"
    return (
        f"{said}: the suspect answers probes unlike other images, as a gate does that knows them, so nothing follows "
        "from tests that do not reject"
    )


def _no_primary_test(of: Reason, findings: Findings) -> str:
    skipped = findings.skipped.get(of.data["test"])
    why = "it is not in the claim" if skipped is None else skip(skipped)
    return f"{title_of(of.data['test'])} could not be computed: {why}"


def _indiscriminate(of: Reason, _: Findings) -> str:
    names = of.data["positives"]
    return (
        f"the claim is indiscriminate: it is supported against {len(names)} of the auditor's {of.data['n']} "
        f"independent encoders ({', '.join(names)}), more than alpha {of.data['alpha']:g} allows"
    )


def _auditor_panel(of: Reason, _: Findings) -> str:
    names = of.data["positives"]
    listed = f" ({', '.join(names)})" if names else ""
    return (
        f"the claim is supported against {len(names)} of the auditor's own {of.data['n']} independent encoders{listed}"
    )


def _interim(of: Reason, _: Findings) -> str:
    return (
        f"the interim analysis after {of.data['queries']} queries supports the claim at its share of alpha, "
        f"{of.data['alpha']:g} (Holm-adjusted p {format_p(of.data['adjusted_pvalue'])})"
    )


def _no_full_size(of: Reason, _: Findings) -> str:
    said = "the panel has no encoders of the victim's size and strength that count, plain or watermarked"
    found, required = of.data["relative_similarity"], of.data["required"]
    if found is None:
        return f"{said}, and no reference surrogate exceeds them: there is nothing to measure relative similarity by"
    return (
        f"{said}. An independent encoder of that size could exceed them, too, so a relative similarity of at least "
        f"{required:g} is required (0: the panel, 1: the closest reference surrogate); partial RSA gives {found:.2f}"
    )


_REASONS: dict[ReasonCode, Callable[[Reason, Findings], str]] = {
    ReasonCode.UNUSABLE_RESPONSES: lambda r, _: str(r.data["detail"]),
    ReasonCode.INDISCRIMINATE_CLAIM: _indiscriminate,
    ReasonCode.NOT_REPRESENTATIONS: lambda r, _: (
        f"the suspect is declared to return {r.data['output_kind']}, not representations. The panel is no null model "
        "for them: what can be computed is shown, and nothing decides"
    ),
    ReasonCode.NO_PRIMARY_TEST: _no_primary_test,
    ReasonCode.AUDITOR_PANEL: _auditor_panel,
    ReasonCode.INTERIM_REJECTION: _interim,
    ReasonCode.TEST: _test,
    ReasonCode.WEAK_STRATA: lambda r, _: weakness(r),
    ReasonCode.NO_FULL_SIZE_CONTROLS: _no_full_size,
    ReasonCode.KEY_TEST: lambda r, f: key_result(f.key, rejects=r.data["rejects"]) if f.key else "",
    ReasonCode.TWINS_TEST: lambda _, f: twins_result(f),
    ReasonCode.KEY_INTERIM_REJECTION: lambda r, _: (
        f"the key test rejects after {r.data['queries']} queries at its share of alpha, "
        f"{format_exact_p(r.data['alpha'])} (p {format_exact_p(r.data['adjusted_pvalue'])})"
    ),
    ReasonCode.KEY_DIMENSIONS: lambda r, _: (
        f"the suspect returns {r.data['dim']} numbers for an image, more than a quarter of the {r.data['probes']} "
        "probes: the key test has little power there, and nothing follows from its not rejecting"
    ),
    ReasonCode.POOL_TEST: lambda _, f: pool_result(f.pool_test) if f.pool_test else "",
    ReasonCode.POOL_PROBLEM: lambda r, _: f"{r.data['detail']}; so nothing follows from tests that do not reject",
    ReasonCode.KEY_UNDETECTED: lambda r, _: (
        "the key test could not have found a copy: it finds "
        + ("no reference surrogate" if r.data["victim"] else "not even the victim")
    ),
    ReasonCode.MISSING_STRATA: lambda r, _: (
        f"the panel has no stratum {' or '.join(r.data['strata'])} that counts, so tests of two families have to reject"
    ),
    ReasonCode.ONE_FAMILY: lambda _, __: (
        "tests of one family only could be made, so this claim cannot be supported here"
    ),
    ReasonCode.NO_REFERENCE_DETECTED: lambda r, _: (
        f"no test detects a reference surrogate ({', '.join(r.data['references'])}): this claim cannot tell a "
        "surrogate from an independent encoder"
    ),
}


def skip(why: Skip) -> str:
    """Return in words why a statistic was not computed."""
    if why.code is SkipCode.NOT_APPLICABLE:
        return why.detail
    if why.code is SkipCode.OUTPUT_KIND:
        return f"it needs representations; the suspect is declared to return {why.detail}"
    return {
        SkipCode.DECIDED_EARLY: "an interim analysis decided before its probes were queried",
        SkipCode.UNUSABLE_RESPONSES: "the responses cannot be tested",
        SkipCode.REDACTED: "the owner's private images are not in this redacted claim",
        SkipCode.SEPARABLE_PROBES: "private and public probes can be told apart without any encoder",
    }[why.code]


def probe_notes(quality: ProbeQuality) -> list[str]:
    """Return what is wrong with a claim's probes, a sentence each without a full stop; empty if nothing is."""
    q, notes = quality, []
    if q.duplicates:
        notes.append(f"{q.duplicates} of {q.public} public probes are duplicates of others")
    if q.mislabeled_rotations:
        notes.append(
            f"{q.mislabeled_rotations} of {q.rotated} rotated probes are not the stated public probe rotated by the "
            "stated angle: one of the two was altered"
        )
    if q.shared_private:
        notes.append(f"{q.shared_private} of {q.private} private probes are public probes, too")
    if q.separability is not None and q.separability.separable:
        notes.append(
            "private and public probes can be told apart without any encoder (area under the ROC curve "
            f"{q.separability.auc:.2f}): they are from different sources, or some were altered, so dataset inference "
            "is not valid"
        )
    return notes


def predictor_note(check: PredictorCheck) -> str:
    """Return what the check of the claim's predictor found, in sentences."""
    low, high = format_number(min(check.control_rates)), format_number(max(check.control_rates))
    said = (
        "This audit fitted linear predictors to the victim's responses and measured the watermark with them. Success "
        f"rate on the suspect: {format_number(check.refitted)} for the claim's key, {low} to {high} for "
        f"{len(check.control_rates)} control keys; on the victim: {format_number(check.refitted_victim)} on average. "
        f"The claim's predictor: {format_number(check.claimed)} on the suspect, {format_number(check.claimed_victim)} "
        "on the victim."
    )
    return f"{said} {PREDICTOR_ANOMALY}" if check.anomalous else said


PREDICTOR_ANOMALY = (
    "Predictors fitted to the victim do not transfer to the suspect, but the claim's predictor detects the watermark "
    "there: it may have been trained on the suspect."
)


def _and(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _verb(count: int, verb: str) -> str:
    return verb if count != 1 else "does" if verb == "do" else f"{verb}s"
