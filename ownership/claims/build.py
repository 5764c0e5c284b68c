"""Building a claim: choose probes, ask victim, panel and references, score the panel, fix everything.

Imports no sibling: whoever calls it brings the reference surrogates (`attacks_for_eval.reference_surrogates`) and
the augmentation of the training (`watermark_training.simclr_view`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from ownership.claims.claim import Claim
from ownership.claims.probes import View, make_probes
from ownership.claims.record import EncoderRecord, teachers_among
from ownership.encoders.images import EncoderLike, images_sha256
from ownership.errors import ClaimError
from ownership.evidence.querying import Probes, query, response_problems, same_responses
from ownership.evidence.responses import Responses, ScoringContext
from ownership.evidence.statistics import score_members, score_others
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.plan import PRIMARY_TESTS_SMALL_OR_PUBLIC, REQUIRED_STRATA, STRATA, Plan
from ownership.watermark import RotationPredictor, WatermarkKey


def build_claim(
    victim: tuple[EncoderRecord, EncoderLike],
    private: Tensor,
    public: Tensor,
    panel: Sequence[tuple[EncoderRecord, EncoderLike]],
    *,
    plan: Plan | None = None,
    key: WatermarkKey | None = None,
    predictor: RotationPredictor | None = None,
    projection_head: nn.Module | None = None,
    references: Sequence[tuple[EncoderRecord, EncoderLike]] = (),
    view: View | None = None,
    data: dict[str, str] | None = None,
    progress: Progress = silent,
) -> Claim:
    """Returns a claim to the victim.

    Args:
        victim: its record and the encoder.
        private: images the victim was trained on, `(n, c, h, w)` uint8.
        public: images it was not trained on; two thirds at most become probes.
        panel: independent encoders with their stratum as `kind`; at least `plan.min_stratum` of a stratum, or none.
        plan: tests, error rate, sizes, seed; where the panel has no encoder of the victim's size, its tests give way.
        key: the watermark's key, with its predictor; both or neither.
        predictor: the rotation predictor trained with the victim.
        projection_head: the head of the victim's training, for dataset inference by loss.
        references: surrogates the owner made, which say what the claim can find.
        view: the training's augmentation, for dataset inference.
        data: descriptions of the private and public images, for the record.
        progress: called after every encoder asked.

    Raises:
        ClaimError: if the panel is too small, holds the victim, or an encoder's answers cannot be used.
    """
    plan = plan or Plan()
    if (key is None) != (predictor is None):
        raise ClaimError("a watermark needs both its key and its predictor")
    _check_names([m for m, _ in (victim, *panel, *references)])
    _check_strata([m for m, _ in panel], plan)
    probes, watermarked = make_probes(private, public, plan, key=key, view=view)
    labels, angles, images = watermarked or (None, None, None)
    plan = _fitting(plan, probes)
    total = 1 + len(panel) + len(references)
    queried: list[tuple[EncoderRecord, Responses]] = []
    for i, (member, encoder) in enumerate((victim, *panel, *references)):
        responses = query(encoder, probes, member.name)
        relaxed = replace(plan, min_probes=0)  # too few probes is the audit's verdict, not the encoder's fault
        if problems := response_problems(responses, encoder, probes, relaxed):
            raise ClaimError(f"{printable(member.name)}: {problems[0]}", "leave this encoder out")
        queried.append((replace(member, dim=responses.dim), responses))
        progress("asking encoders", i + 1, total)
    (victim_member, victim_answers), rest = queried[0], queried[1:]
    kept, dropped = _without_duplicates(rest[: len(panel)], victim_answers)
    members = tuple(m for m, _ in kept)
    _check_strata(members, plan)
    if not any(m.kind in REQUIRED_STRATA for m in members):
        plan = replace(plan, primary=PRIMARY_TESTS_SMALL_OR_PUBLIC)
    context = ScoringContext(
        plan=plan,
        victim=victim_answers,
        panel=tuple(a for _, a in kept),
        teachers=teachers_among(members),
        watermark_labels=None if labels is None else labels.numpy(),
        watermark_images=None if images is None else images.numpy(),
        predictor=predictor,
        projection_head=projection_head,
    )
    stolen = [responses for _, responses in rest[len(panel) :]]
    interim_analyses = {n: plan.sizes(n, watermark=key is not None) for n in plan.interim_queries}
    return Claim(
        plan=plan,
        victim=victim_member,
        members=members,
        references=tuple(m for m, _ in rest[len(panel) :]),
        scores=score_members(context),
        reference_scores=score_others(stolen, context),
        interim_scores={n: score_members(context.first(s), plan.primary) for n, s in interim_analyses.items()},
        interim_reference_scores={
            n: score_others([a.first(s) for a in stolen], context.first(s), plan.primary)
            for n, s in interim_analyses.items()
        },
        dropped=tuple(dropped),
        data=_describe(data, private, public),
        probes=probes,
        responses={m.name: a for m, a in (queried[0], *kept, *rest[len(panel) :])},
        key=key,
        watermark_labels=labels,
        watermark_angles=angles,
        watermark_images=images,
        predictor=predictor,
        projection_head=projection_head,
    )


def _fitting(plan: Plan, probes: Probes) -> Plan:
    """The plan without looks that would ask as many probes as there are: their share of alpha goes to the last look."""
    kept = [
        (n, share)
        for n, share in zip(plan.interim_queries, plan.interim_alpha_shares, strict=True)
        if all(len(probes[name]) > k for name, k in plan.sizes(n, watermark="watermark" in probes).items())
    ]
    return replace(
        plan, interim_queries=tuple(n for n, _ in kept), interim_alpha_shares=tuple(share for _, share in kept)
    )


def _describe(data: dict[str, str] | None, private: Tensor, public: Tensor) -> dict[str, str]:
    return {
        **(data or {}),
        "private_sha256": images_sha256(private),
        "public_sha256": images_sha256(public),
        "private_images": str(len(private)),
        "public_images": str(len(public)),
    }


def _check_names(members: Sequence[EncoderRecord]) -> None:
    names = [m.name for m in members]
    for name in names:
        if names.count(name) > 1:
            raise ClaimError(f"two encoders are called {printable(name)}", "names must differ")
        if not name or set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"):
            raise ClaimError(f"the name {printable(name)!r} cannot be a file name", "letters, digits, - and _")


def _check_strata(members: Sequence[EncoderRecord], plan: Plan) -> None:
    """Every stratum has enough members or none, and one of the required ones has."""
    for kind in {m.kind for m in members}:
        if kind not in STRATA:
            raise ClaimError(f"unknown stratum {printable(kind)!r}", f"one of: {', '.join(STRATA)}")
    counts = {kind: sum(m.kind == kind for m in members) for kind in STRATA}
    for kind, count in counts.items():
        if 0 < count < plan.min_stratum:
            raise ClaimError(
                f"too small a panel: stratum {kind!r} has {count} different encoder{'s' if count > 1 else ''}",
                f"at least {plan.min_stratum} of a kind, or none",
            )
    if not any(counts[kind] for kind in (*REQUIRED_STRATA, "small")):
        raise ClaimError(
            "too small a panel: no independent encoders",
            f"at least {plan.min_stratum} plain ones, and {plan.min_stratum} with a foreign mark (turnmark train); "
            "or small ones, for a victim too large to train its like",
        )


def _without_duplicates(
    panel: Sequence[tuple[EncoderRecord, Responses]], victim: Responses
) -> tuple[list[tuple[EncoderRecord, Responses]], list[str]]:
    """Identical responses count once, whatever file they came from; the victim is no independent."""
    kept: list[tuple[EncoderRecord, Responses]] = []
    dropped = []
    for member, responses in panel:
        if same_responses(responses, victim):
            raise ClaimError(f"panel member {member.name} gives the victim's own answers", "leave it out of the panel")
        twin = next((m for m, a in kept if same_responses(a, responses)), None)
        if twin is None:
            kept.append((member, responses))
        else:
            dropped.append(f"{member.name}: gives the same answers as {twin.name}")
    return kept, dropped
