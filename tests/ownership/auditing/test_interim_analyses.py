"""Looks: alpha is shared, fewer answers are asked, and the panel's answers can be computed anew from its files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from support.encoders import Noisy, as_suspect, encoder, member
from support.reports import simulated
from torch import Tensor

from ownership import audit, build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.architectures import Encoder
from ownership.errors import ClaimError, ClaimIntegrityError, ReportError
from ownership.evidence.similarity import rsa_vector
from ownership.plan import Plan
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.suspects.suspect import Suspect, load_encoder
from ownership.verdict.records import AuditOptions
from ownership.verdict.results import Skip, SkipCode
from ownership.verdict.rule import ReasonCode, Verdict, supports
from watermark_training.data import Data


class Counting:
    """Counts the images an encoder is shown."""

    def __init__(self, model: Encoder) -> None:
        self.model, self.seen = model, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        out: Tensor = self.model(images)
        return out


# ---- type-I error over the looks: models are simulated, not images --------------------------------------------------


def _draw(rng: np.random.Generator, n: int, tail: str) -> NDArray[np.float64]:
    """n models' true scores: normal, heavy-tailed (t, 3 degrees of freedom), or a mixture of two kinds."""
    if tail == "heavy":
        return rng.standard_t(3, n)
    if tail == "mixed":
        return rng.normal(0, 1, n) + 1.5 * (rng.random(n) < 0.3)
    return rng.normal(0, 1, n)


@pytest.mark.parametrize(("tail", "most"), [("normal", 0.01), ("mixed", 0.01), ("heavy", 0.02)])
def test_type_one_error_over_the_looks(tail: str, most: float) -> None:
    """H0: the suspect is one more model of the marked stratum. Unit: a model, with one true score a test and less noise
    the more probes are asked. The chance of SUPPORTED at any of three looks must not exceed alpha (heavy tails: twice).
    """
    plan, rng, runs, hits = Plan(), np.random.default_rng(1), 3000, 0
    alphas = [plan.alpha * s for s in plan.interim_alpha_shares] + [plan.final_alpha]
    for _ in range(runs):
        true = {name: (_draw(rng, 6, tail), _draw(rng, 7, tail)) for name in plan.primary[:2]}
        for noise, alpha in zip((0.6, 0.4, 0.2), alphas, strict=True):
            tests = []
            for name, (plain, watermarked) in true.items():
                a, b = (x + noise * rng.normal(size=len(x)) for x in (plain, watermarked))
                tests.append(simulated(name, float(b[6]), {"plain": a, "watermarked": b[:6]}))
            if supports(tests, alpha, ()):
                hits += 1
                break
    assert hits / runs <= most + 3 * (most * (1 - most) / runs) ** 0.5


# ---- asking look by look --------------------------------------------------------------------------------------------


def test_a_copy_is_found_at_the_first_look_and_asked_no_more(claim: Claim, victim: Encoder) -> None:
    assert claim.plan.interim_queries == (250,)  # 300 public probes do not fill the look at 500: its share is not spent
    counting = Counting(victim)
    report = audit(claim, as_suspect(counting), AuditOptions(stop_early=True))
    assert report.verdict is Verdict.SUPPORTED
    assert report.decided_after == 250
    assert report.findings.queries == counting.seen <= 250
    assert {r.name for r in report.results} == {"partial_rsa_relative", "watermark_probability"}
    assert report.findings.skipped["inference_gmm"] == Skip(code=SkipCode.DECIDED_EARLY)
    assert Report.from_dict(report.to_dict()) == report


def test_asked_all_at_once_the_looks_are_the_same(claim: Claim, victim: Encoder) -> None:
    counting = Counting(victim)
    whole, early = audit(claim, as_suspect(counting)), audit(claim, as_suspect(victim), AuditOptions(stop_early=True))
    assert whole.findings.interim_analyses == early.findings.interim_analyses
    assert whole.decided_after == 250
    assert whole.findings.queries == counting.seen > 1000  # everything is asked, once, and a share of it twice
    (interim,) = (r for r in whole.reasons if r.code is ReasonCode.INTERIM_REJECTION)
    assert interim.data["queries"] == 250
    assert len(whole.results) > len(early.results)


def test_an_independent_encoder_is_asked_everything_and_once(claim: Claim) -> None:
    counting, spec = Counting(encoder(77)), as_suspect(encoder(77))
    early, whole = audit(claim, as_suspect(counting), AuditOptions(stop_early=True)), audit(claim, spec)
    assert early.verdict is whole.verdict is Verdict.NOT_SUPPORTED
    assert early.results == whole.results
    assert early.decided_after is None
    probes = sum(map(len, claim.probes.values()))
    assert early.findings.queries == counting.seen <= 1.06 * probes + 16


def test_a_suspect_that_answers_at_random_is_noticed_at_the_first_look(claim: Claim, victim: Encoder) -> None:
    generator = torch.Generator().manual_seed(0)
    counting = Counting(lambda x: victim(x) * (1 + 0.1 * torch.rand(len(x), 1, generator=generator)))  # type: ignore[arg-type]
    report = audit(claim, as_suspect(counting), AuditOptions(stop_early=True))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.findings.queries == counting.seen <= 250
    assert not report.findings.interim_analyses


def test_scores_of_a_look_are_those_of_its_probes(claim: Claim) -> None:
    """Against a naive computation on the first probes alone."""
    sizes = claim.sizes(250)
    assert sizes == {"public": 176, "watermark": 62}
    names = ["victim", "m3", *(m.name for m in claim.members if m.name != "m3")]
    plan, cut = claim.plan, [claim.responses[n].get("public")[:176] for n in names]
    x = np.stack([rsa_vector(a, plan.rsa_directions, plan.rsa_shrinkage) for a in cut]).astype(np.float64)

    def similarity(k: int) -> float:
        """Fisher z of the correlation of m3 (row 1) and row k after both are regressed on all others."""
        rest = [i for i in range(len(x)) if i not in (1, k)]
        design = np.column_stack([np.ones(x.shape[1]), x[rest].T])
        pair = x[[1, k]].T
        residuals = pair - design @ np.linalg.lstsq(design, pair, rcond=None)[0]
        return float(np.arctanh(np.corrcoef(residuals.T)[0, 1]))

    others = sorted(similarity(k) for k in range(2, len(x)))[1:-1]
    by_hand = (similarity(0) - np.mean(others)) / np.hypot(np.std(others, ddof=1), 0.01)
    assert claim.panel_scores.interim_members[250]["partial_rsa_relative"]["m3"] == pytest.approx(by_hand, abs=2e-3)


@pytest.mark.parametrize(
    ("interim_analyses", "shares"),
    [((250, 500, 750), (0.1, 0.1, 0.1)), ((500, 250), (0.2, 0.3)), ((50,), (0.2,)), ((250,), ()), ((250,), (1.0,))],
)
def test_looks_are_checked(interim_analyses: tuple[int, ...], shares: tuple[float, ...]) -> None:
    with pytest.raises(ClaimError):
        Plan(interim_queries=interim_analyses, interim_alpha_shares=shares)
    with pytest.raises(ClaimError):
        Plan(rule="turnmark-2")


# ---- the files of a claim's encoders --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_files(digits: Data, victim: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Claim, list[Suspect]]:
    """A small claim whose encoders lie in files: five panel members, the victim, a reference surrogate."""
    tmp_path, models = tmp_path_factory.mktemp("models"), []
    for name, of in [*((f"p{i}", encoder(10 + i)) for i in range(5)), ("victim", victim), ("reference", encoder(30))]:
        save_file(of.state_dict(), tmp_path / f"{name}.safetensors")
        models.append(load_encoder(tmp_path / f"{name}.safetensors"))

    def named(model: Suspect, kind: str) -> NamedEncoder:
        name = model.name.removesuffix(".safetensors")
        return NamedEncoder(replace(member(name, kind), sha256=model.sha256), model.encoder)

    *panel, owner, reference = models
    images, references = ClaimImages(digits.images[:40], digits.images[40:400]), [named(reference, "reference")]
    members = [named(m, "plain") for m in panel]
    return build_claim(named(owner, "victim"), images, members, references=references), models


def test_representations_are_computed_anew(with_files: tuple[Claim, list[Suspect]]) -> None:
    claim, models = with_files
    some = [m for m in models if m.name not in ("p4.safetensors", "victim.safetensors")]
    report = audit(claim, as_suspect(encoder(77)), models=some)
    checked = report.findings.models_checked
    assert checked is not None
    assert {name for name, check in checked.items() if check.recomputed} == {"p0", "p1", "p2", "p3", "reference"}
    assert {name for name, check in checked.items() if not check.recomputed} == {"p4", "victim"}
    assert {name: check.sha256 for name, check in checked.items()} == {
        m.name.removesuffix(".safetensors"): m.sha256 for m in models
    }
    assert Report.from_dict(report.to_dict()) == report
    page = render_html(report)
    assert "p3, reference; its owner&#39;s word, as no file of their SHA-256 was given: p4, victim." in page
    stored = report.to_dict()
    for forged in (
        {**stored["models_checked"], "victim": {"sha256": "0" * 64, "recomputed": True}},
        {**stored["models_checked"], "p0": {"sha256": "0" * 64, "recomputed": True}},
        {name: check for name, check in stored["models_checked"].items() if name != "reference"},
        {**stored["models_checked"], "another": stored["models_checked"]["p0"]},
    ):
        with pytest.raises(ReportError):
            Report.from_dict({**stored, "models_checked": forged})


@pytest.mark.parametrize("name", ["p2", "victim", "reference"])
def test_invented_representations_are_refused(with_files: tuple[Claim, list[Suspect]], name: str) -> None:
    """The claimant recorded the answers of another encoder under this file's digest."""
    claim, models = with_files
    invented = replace(claim, responses={**claim.responses, name: replace(claim.responses["p1"], name=name)})
    with pytest.raises(ClaimIntegrityError, match=f"{name}'s file"):
        audit(invented, as_suspect(encoder(77)), models=models)


# ---- the rotated test ---------------------------------------------------------------------------------------------


def test_the_same_response_to_every_rotation_is_found_by_the_rotated_test(digits: Data, victim: Encoder) -> None:
    """A suspect that returns an independent encoder's responses to unrotated images, and the victim's, disturbed, to
    rotated ones: the mean over rotations gives it away.
    """
    panel = [
        NamedEncoder(member(f"m{i}", "plain" if i < 6 else "rotation_invariant"), encoder(10 + i)) for i in range(12)
    ]
    panel += [NamedEncoder(member(f"k{i}", "watermarked"), encoder(40 + i)) for i in range(6)]
    panel += [NamedEncoder(member(f"s{i}", "distilled"), encoder(60 + i)) for i in range(6)]
    owner = NamedEncoder(member("victim", "victim", victim), victim)
    claim = build_claim(
        owner, ClaimImages(digits.images[:40], digits.images[40:700]), panel, plan=Plan(n_rotated=150, n_rotations=4)
    )
    unrotated = {i.numpy().tobytes(): i for i in claim.probes["public"]}
    turned = {x.numpy().tobytes(): claim.probes["public"][i % 150] for i, x in enumerate(claim.probes["rotated"])}
    hidden = encoder(90)

    def evader(images: Tensor) -> Tensor:
        known = [(x * 255).round().to(torch.uint8)[:1].numpy().tobytes() for x in images]
        source = torch.stack(
            [turned.get(k, unrotated.get(k, torch.zeros_like(claim.probes["public"][0]))) for k in known]
        )
        seen = torch.tensor([k in turned for k in known])[:, None]
        true = victim(source.float().expand(-1, 3, -1, -1) / 255)
        return torch.where(seen, true + 0.5 * hidden(images), hidden(images))

    report = audit(claim, as_suspect(evader))
    p = {r.name: r.pvalue for r in report.results}
    assert p["partial_rsa_rotated"] < 1e-3
    assert p["partial_rsa_relative"] > 0.01
    assert report.verdict is Verdict.SUPPORTED
    spec = audit(claim, as_suspect(encoder(91)))
    assert spec.verdict is Verdict.NOT_SUPPORTED


def test_without_members_who_answer_alike_the_rotated_test_decides_nothing_alone(claim: Claim, victim: Encoder) -> None:
    report = audit(claim, as_suspect(Noisy(victim, 5, 0.01)))
    turned = next(r for r in report.results if r.name == "partial_rsa_rotated")
    assert turned.missing_strata == ("rotation_invariant", "distilled")
    assert not supports([replace(turned, value=0.9)], 0.01, ())
