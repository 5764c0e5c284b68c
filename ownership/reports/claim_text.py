"""A claim in words: what it holds and what it can detect."""

from __future__ import annotations

from collections.abc import Iterator

from ownership.attestation.statement import UNTIMESTAMPED, timestamp_line
from ownership.attestation.timestamps import Timestamp
from ownership.claims.claim import Claim
from ownership.claims.key_ranks import key_rank
from ownership.claims.redaction import redaction_detail
from ownership.claims.seal import Seal
from ownership.claims.strata import control_scores, leave_one_out_rejections
from ownership.io.text import printable
from ownership.keyed.commitment import Commitment
from ownership.plan import (
    MIN_RELATIVE_SIMILARITY,
    REQUIRED_STRATA,
    ROTATION_INVARIANT_STRATA,
    SMALL_OR_PUBLIC_STRATA,
    STRATA,
)
from ownership.reports.glossary import format_exact_p
from ownership.verdict.panel_strength import PanelStrength
from ownership.verdict.records import SealRecord, TimestampRecord

UNSEALED = "UNSEALED: no owner signed this claim; anyone who can write to it can replace all of it"


ADVISED_PROBES = 16
"""Probes for each dimension of a victim from which on more of them find few weaker copies (docs/adr/0039)."""


def describe(claim: Claim, strength: PanelStrength | None = None) -> list[str]:
    """Return lines that describe a claim to its owner; they reveal nothing of the key.

    Args:
        claim: The claim.
        strength: The strength of its panel; None for a claim without one, or to say nothing of it.
    """
    return [*_contents(claim), *_warnings(claim, strength), *_tests(claim)]


def _contents(claim: Claim) -> Iterator[str]:
    plan = claim.plan
    counts = {kind: len(claim.stratum(kind)) for kind in STRATA}
    architecture = claim.victim.architecture or "unknown architecture"
    yield f"victim      {architecture}, representations of dimension {claim.victim.dim}, SHA-256 {claim.victim.sha256}"
    yield from _key(claim)
    yield from _twins(claim)
    if claim.watermark is not None:
        yield f"watermark   {_watermark(claim)}"
    listed = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    yield f"panel       {listed or 'none: the key test alone decides'}"
    yield "probes      " + ", ".join(f"{len(x)} {name.replace('_', ' ')}" for name, x in sorted(claim.probes.items()))
    tests = [f"key test at alpha {format_exact_p(plan.key_alpha)}"] if claim.material else []
    if plan.primary:
        tests.append(f"primary tests {', '.join(plan.primary)}; {plan.correction.title()}, alpha {plan.alpha:g}")
    interim = f"; interim analyses after {' and '.join(map(str, plan.interim_queries))} queries"
    yield f"plan        {'; '.join(tests)}; rule {plan.rule}, seed {plan.seed}{interim if plan.interim_queries else ''}"
    for reason in claim.dropped:
        yield f"            left out: {printable(reason)}"
    if claim.redaction.parts:
        yield f"redacted    {redaction_detail(claim.redaction)}"
    for line in seal_lines(seal_record(claim.seal)):
        yield f"seal        {line}"


def _key(claim: Claim) -> Iterator[str]:
    if claim.material is None:
        yield "key         none: suspects can be compared with the panel only"
        return
    key, anchor = claim.material.key, claim.anchor
    tried = "" if claim.keys_tried == 1 else f", {claim.keys_tried} keys tried"
    yield f"key         commitment SHA-256 {key.commitment_sha256}, {key.probes} probes of {key.pool.images}{tried}"
    dim = claim.victim.dim
    if key.probes < ADVISED_PROBES * dim:
        yield (
            f"            {key.probes / dim:.0f} probes for each of the victim's {dim} dimensions: {ADVISED_PROBES} or "
            "more find weaker copies (turnmark key new --n-probes)"
        )
    if key.features is not None:
        yield f"            features of the encoder with SHA-256 {key.features.encoder_sha256}"
    stamped = "UNANCHORED: nothing shows when the key was drawn (turnmark key anchor)"
    if anchor is not None:
        stamped = timestamp_line(anchor.time.isoformat(), anchor.authority, trusted=anchor.trusted)
    yield from _signed(key, anchor, stamped)


def _signed(of: Commitment, anchor: Timestamp | None, stamped: str) -> Iterator[str]:
    """Yield the lines about the round and the anchor of a commitment."""
    if of.beacon is not None:
        yield f"            follows from {of.beacon}, signed at {of.beacon.time.isoformat()}"
        if not of.stamped_before_round(anchor):
            stamped += "; that the commitment was made before the round has to be shown by its publication"
    yield f"            {stamped}"


def _twins(claim: Claim) -> Iterator[str]:
    if claim.twins is None:
        return
    m, anchor = len(claim.twins.files), claim.twins_anchor
    tried = "" if claim.twins_tried == 1 else f", {claim.twins_tried} picks tried"
    yield f"twins       commitment SHA-256 {claim.twins.commitment.commitment_sha256}, picked 1 of {m}{tried}"
    stamped = "UNTIMESTAMPED: nothing shows when the commitment was made (turnmark twins anchor)"
    if anchor is not None:
        stamped = timestamp_line(anchor.time.isoformat(), anchor.authority, trusted=anchor.trusted)
    yield from _signed(claim.twins.commitment, anchor, stamped)
    least = claim.twins_tried / m
    if least > claim.plan.twins_alpha:
        yield (
            f"note        p of {m} twins is at least {format_exact_p(min(1.0, least))}, above their alpha "
            f"{claim.plan.twins_alpha:g}: it is shown and does not decide"
        )


def _watermark(claim: Claim) -> str:
    if claim.watermark is None or claim.watermark.key is None:
        return "rotation watermark, the key is redacted"
    return "rotation watermark, the key is redacted" if claim.watermark.key is None else "yes, the key is in the claim"


def _warnings(claim: Claim, strength: PanelStrength | None) -> Iterator[str]:
    if (n := len(claim.probes["public"])) < claim.plan.min_probes:
        yield f"warning     {n} public probes, fewer than {claim.plan.min_probes}: all audits are inconclusive"
    if claim.members:
        yield from _panel_warnings(claim, strength)


def _panel_warnings(claim: Claim, strength: PanelStrength | None) -> Iterator[str]:
    must = "primary tests of two families must reject"
    weak = () if strength is None else strength.weak_strata
    if not any(claim.stratum(kind) for kind in REQUIRED_STRATA if kind not in weak):
        must = (
            f"a suspect must come {MIN_RELATIVE_SIMILARITY:g} of the way from the panel to the closest reference "
            "surrogate"
        )
        if not claim.references:
            yield "warning     no reference surrogates: with this panel no audit can support anything"
        elif not any(claim.stratum(kind) for kind in SMALL_OR_PUBLIC_STRATA):
            yield "warning     no small and no public members: with this panel no audit can support anything"
    for kind in REQUIRED_STRATA:
        if not claim.stratum(kind):
            yield f"warning     no {kind} members: that alternative explanation is not excluded, and {must}"
    for line in [] if strength is None else weak_strata_lines(strength):
        yield f"warning     {line}; until then {must}"
    absent = [kind for kind in ROTATION_INVARIANT_STRATA if not claim.stratum(kind)]
    if absent:
        yield (
            f"note        no {' and no '.join(absent)} members (turnmark panel trains them): the test that detects "
            "surrogates whose watermark was trained away cannot decide alone"
        )


def weak_strata_lines(strength: PanelStrength) -> list[str]:
    """Return for each weak stratum of a panel a line that says why it is weak, and what its owner can do."""
    counts = strength.counts(strength.weak_strata)
    return [
        f"weak stratum {stratum}: {n['strong']} of {n['members']} members agree with the victim better than untrained "
        f"baselines do (median lead {n['median_lead']:.3f}), fewer than half, so it does not count; train its members "
        "like the victim, with as many images and epochs (turnmark panel), and build the claim again"
        for stratum, n in counts.items()
    ]


def _tests(claim: Claim) -> Iterator[str]:
    if claim.material is not None:
        yield from _key_power(claim)
    if claim.members:
        yield from _panel_tests(claim)


def _key_power(claim: Claim) -> Iterator[str]:
    """Yield what the key test finds: the victim and the reference surrogates."""
    level = claim.plan.key_alpha * claim.plan.final_share
    known = [claim.victim, *claim.references]
    pvalues = {m.name: min(1.0, key_rank(claim, claim.responses[m.name]).pvalue * claim.keys_tried) for m in known}
    shown = ", ".join(f"{name.removeprefix('reference_')} {format_exact_p(p)}" for name, p in pvalues.items())
    alpha = format_exact_p(claim.plan.key_alpha)
    share = f" (interim analyses have the rest of alpha, {alpha})" if claim.plan.interim_queries else ""
    yield f"key_test: p at most {format_exact_p(level)} rejects{share}; {shown}"
    found = [p <= level for p in pvalues.values()]
    if not found[0]:
        yield "warning     the key test does not find the victim itself: train it with a larger --keyed-weight"
    elif claim.references and not any(found[1:]):
        yield "warning     the key test finds no reference surrogate: audits that find nothing will be inconclusive"


def _panel_tests(claim: Claim) -> Iterator[str]:
    level = claim.plan.final_alpha / len(claim.plan.primary)
    detected = False
    for name in claim.plan.primary:
        controls = control_scores(claim, name)
        if not controls.strata:
            yield f"{name}: cannot run with this claim"
            continue
        references = claim.panel_scores.references.get(name, {})
        detected |= any(controls.exceeds(score, level) for score in references.values())
        shown = ", ".join(f"{n.removeprefix('reference_')} {score:.3f}" for n, score in references.items())
        yield f"{name}: threshold {controls.threshold(level):.3f}; reference surrogates: {shown or 'none'}"
    rejected = leave_one_out_rejections(claim)
    yield (
        f"left out    {len(rejected)} of {len(claim.members)} members would be called copies, each against the others"
        f"{': ' if rejected else ''}{', '.join(map(printable, rejected))} (descriptive: the panel judges itself)"
    )
    if claim.references:
        yield (
            "power       at least one reference surrogate is beyond a threshold: this claim can detect a surrogate"
            if detected
            else "warning     no reference surrogate reaches a threshold: audits that find nothing will be inconclusive"
        )


def seal_lines(seal: SealRecord | None) -> list[str]:
    """Return what is said of a claim's seal; None: it is not sealed."""
    if seal is None:
        return [UNSEALED, UNTIMESTAMPED]
    lines = [f"sealed with the key {seal.public_key_sha256}, Merkle root {seal.root}"]
    lines += [timestamp_line(t.time, t.authority, trusted=t.trusted) for t in seal.timestamps]
    return lines if seal.timestamps else [*lines, UNTIMESTAMPED]


def seal_record(seal: Seal | None) -> SealRecord | None:
    """Return what a report records of a claim's seal; None: it is not sealed."""
    if seal is None:
        return None
    return SealRecord(
        public_key_sha256=seal.public_key_sha256,
        root=seal.root,
        timestamps=tuple(
            TimestampRecord(authority=t.authority, time=t.time.isoformat(), trusted=t.trusted) for t in seal.timestamps
        ),
    )
