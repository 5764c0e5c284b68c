"""Build a claim: choose probes, query victim, panel and references, score the panel, fix everything.

This module imports neither `watermark_training` nor `attacks_for_eval`: the caller brings the reference surrogates
(`attacks_for_eval.claims`) and the augmentation of the training (`watermark_training.augment`).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ownership.claims.claim import Claim
from ownership.claims.parts import check_references
from ownership.claims.probes import ClaimImages, make_probes
from ownership.claims.record import EncoderRecord, NamedEncoder
from ownership.claims.twins import Twins
from ownership.errors import ClaimError
from ownership.evidence.querying import Probes, query, response_problems, same_responses
from ownership.evidence.responses import Responses
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.keyed.pool import KeyMaterial
from ownership.plan import PRIMARY_TESTS_SMALL_OR_PUBLIC, REQUIRED_STRATA, STRATA, Plan
from ownership.watermark import Watermark

NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_")
"""Characters of an encoder's name, which is also a file name."""

Queried = tuple[EncoderRecord, Responses]
"""An encoder's record and its responses to the probes."""

MOST_TRIED = 10**9
"""Most keys, or picks of twins, that a claim can declare; every p-value times it is 1."""


def build_claim(
    victim: NamedEncoder,
    images: ClaimImages,
    panel: Sequence[NamedEncoder] = (),
    *,
    material: KeyMaterial | None = None,
    keys_tried: int = 1,
    twins: Twins | None = None,
    twins_tried: int = 1,
    plan: Plan | None = None,
    watermark: Watermark | None = None,
    projection_head: nn.Module | None = None,
    references: Sequence[NamedEncoder] = (),
    progress: Progress = silent,
) -> Claim:
    """Return a claim to the victim.

    Args:
        victim: The owner's encoder.
        images: The private and the public images.
        panel: Independent encoders, each with its stratum as `kind`. Every stratum has at least `plan.min_stratum`
            members, or none. With a key there need not be any.
        material: The key of the keyed watermark that the victim was trained with, and its probes.
        keys_tried: Commitments that the owner made for this victim, abandoned ones included; p-values are multiplied
            by it.
        twins: Commitment to encoders of one recipe, of which an authority's signature picked the victim.
        twins_tried: Picks that the owner had made for this victim, abandoned ones included; their p-value is multiplied
            by it.
        plan: Tests, error rate, sizes and seed. If the panel has no encoder of the victim's size, the primary tests
            become those for such panels (docs/adr/0008).
        watermark: The victim's rotation watermark; None if it has none.
        projection_head: The head of the victim's training, for dataset inference by loss.
        references: Surrogates that the owner extracted, which show what the claim can detect.
        progress: Called after every encoder.

    Raises:
        ClaimError: If there is neither a key nor a large enough panel, the panel holds the victim, the watermark has no
            key, the victim is not the twin that was picked, or the responses of an encoder cannot be used.
        DataError: If the private and the public images have different sizes.
    """
    plan = plan or Plan()
    if watermark is not None and watermark.key is None:
        raise ClaimError("a watermark needs both its key and its predictor")
    _check_names([entry.record for entry in (victim, *panel, *references)])
    _check_strata([entry.record for entry in panel], plan, keyed=material is not None)
    if not 1 <= keys_tried <= MOST_TRIED:
        raise ClaimError("keys tried: out of range", f"1, the one of this claim, to {MOST_TRIED:,}")
    _check_twins(twins, twins_tried, material)
    key = None if watermark is None else watermark.key
    probes, watermark_probes = make_probes(images, plan, material=material, key=key, panel=bool(panel))
    plan = plan.feasible(sizes := {name: len(images) for name, images in probes.items()})
    if material is not None:
        plan.check_key_test(sizes, material.key.directions)
    (victim_record, victim_responses), *rest = _query_all([victim, *panel, *references], probes, plan, progress)
    if twins is not None:
        twins.check_victim(victim_record.sha256, victim_responses)
    surrogates = rest[len(panel) :]
    check_references(victim_responses, {record.name: responses for record, responses in surrogates})
    kept, dropped = _without_duplicates(rest[: len(panel)], victim_responses)
    members = tuple(record for record, _ in kept)
    _check_strata(members, plan, keyed=material is not None)
    if not members:
        plan = replace(plan, primary=())
    elif not any(m.kind in REQUIRED_STRATA for m in members):
        plan = replace(plan, primary=PRIMARY_TESTS_SMALL_OR_PUBLIC)
    return Claim(
        plan=plan,
        victim=victim_record,
        members=members,
        references=tuple(record for record, _ in surrogates),
        dropped=tuple(dropped),
        data=images.describe(),
        probes=probes,
        responses={r.name: a for r, a in ((victim_record, victim_responses), *kept, *surrogates)},
        material=material,
        keys_tried=keys_tried,
        twins=twins,
        twins_anchor=None if twins is None else twins.commitment.timestamp(),
        twins_tried=twins_tried,
        watermark=watermark,
        watermark_probes=watermark_probes,
        projection_head=projection_head,
    )


def _check_twins(twins: Twins | None, tried: int, material: KeyMaterial | None) -> None:
    """Raise ClaimError unless the twins, if there are any, are anchored, and of the key's probes."""
    if not 1 <= tried <= MOST_TRIED:
        raise ClaimError("picks of twins tried: out of range", f"1, the one of this claim, to {MOST_TRIED:,}")
    if twins is None:
        return
    if material is None:
        raise ClaimError("twins need a victim with a key, which draws the probes", "turnmark train --key")
    twins.check(material)
    _ = twins.picked  # which refuses twins that no authority has picked from


def _query_all(encoders: Sequence[NamedEncoder], probes: Probes, plan: Plan, progress: Progress) -> list[Queried]:
    """Return the responses of every encoder, and its record with their dimension."""
    relaxed = replace(plan, min_probes=0)  # too few probes make audits inconclusive; no encoder is unusable for that
    queried = []
    for i, (record, encoder) in enumerate(encoders):
        responses = query(encoder, probes, record.name)
        if problems := response_problems(responses, encoder, probes, relaxed):
            raise ClaimError(f"{printable(record.name)}: {problems[0]}", "leave this encoder out")
        queried.append((replace(record, dim=responses.dim), responses))
        progress("querying encoders", i + 1, len(encoders))
    return queried


def _check_names(records: Sequence[EncoderRecord]) -> None:
    names = [r.name for r in records]
    for name in names:
        if names.count(name) > 1:
            raise ClaimError(f"two encoders are called {printable(name)}", "names must differ")
        if not name or set(name) - NAME_CHARACTERS:
            raise ClaimError(f"the name {printable(name)!r} cannot be a file name", "letters, digits, - and _")


def _check_strata(members: Sequence[EncoderRecord], plan: Plan, *, keyed: bool) -> None:
    """Raise ClaimError unless every stratum has enough members or none, and one of the necessary strata has.

    With a key no stratum is necessary.
    """
    for kind in {m.kind for m in members}:
        if kind not in STRATA:
            raise ClaimError(f"unknown stratum {printable(kind)!r}", f"one of: {', '.join(STRATA)}")
    counts = {kind: sum(m.kind == kind for m in members) for kind in STRATA}
    for kind, count in counts.items():
        if 0 < count < plan.min_stratum:
            raise ClaimError(
                f"too small a panel: stratum {kind!r} has {count} different encoder{'s' if count > 1 else ''}",
                f"at least {plan.min_stratum} per stratum, or none",
            )
    if not keyed and not any(counts[kind] for kind in (*REQUIRED_STRATA, "small")):
        raise ClaimError(
            "too small a panel: no independent encoders, and the victim has no key",
            f"at least {plan.min_stratum} plain ones, and {plan.min_stratum} with another owner's watermark "
            "(turnmark train); or small ones, for a victim too large to train encoders of its size",
        )


def _without_duplicates(panel: Sequence[Queried], victim: Responses) -> tuple[list[Queried], list[str]]:
    """Return the panel without members that respond as an earlier one does, and the reasons.

    Raises:
        ClaimError: If a member responds as the victim does.
    """
    kept: list[Queried] = []
    dropped = []
    for record, responses in panel:
        if same_responses(responses, victim):
            raise ClaimError(f"panel member {record.name} gives the victim's own responses", "leave it out")
        twin = next((r for r, a in kept if same_responses(a, responses)), None)
        if twin is None:
            kept.append((record, responses))
        else:
            dropped.append(f"{record.name}: gives the same responses as {twin.name}")
    return kept, dropped
