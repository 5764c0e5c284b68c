"""The engine: verdicts on known suspects, and suspects that game the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import Noisy, as_suspect, encoder, member
from torch import Tensor, nn

from ownership import audit, build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike
from ownership.errors import ClaimError, SuspectError
from ownership.evidence.querying import ProblemCode
from ownership.evidence.statistics import STATISTICS
from ownership.plan import Plan
from ownership.reports import sentences
from ownership.reports.claim_text import describe
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.stats import case_control_test
from ownership.suspects.suspect import Suspect, load_suspect
from ownership.verdict.explanations import Consequence
from ownership.verdict.results import Skip, SkipCode
from ownership.verdict.rule import Reason, ReasonCode, Verdict
from watermark_training.data import Data
from watermark_training.encoder_files import onnx_bytes, weights_bytes


def test_a_copy_is_supported_and_an_independent_encoder_is_not(claim: Claim, victim: Encoder) -> None:
    copy = audit(claim, as_suspect(Noisy(victim, 8, 0.002).eval()))
    assert copy.verdict is Verdict.SUPPORTED
    assert copy.adjusted_pvalues["partial_rsa_relative"] < 0.001
    spec = audit(claim, as_suspect(encoder(77)))
    assert spec.verdict is Verdict.NOT_SUPPORTED
    assert not spec.findings.problems


def test_the_numbers_are_the_statistics(claim: Claim, victim: Encoder) -> None:
    """partial_rsa by hand: Fisher z, both strata, the larger p; and the exact rank p with the suspect symmetric."""
    report = audit(claim, as_suspect(encoder(77)))
    result = next(r for r in report.results if r.name == "partial_rsa")
    z = {m.name: np.arctanh(claim.panel_scores.members["partial_rsa"][m.name]) for m in claim.members}
    p = [
        case_control_test(float(np.arctanh(result.value)), [z[m.name] for m in claim.stratum(kind)]).pvalue
        for kind in ("plain", "watermarked")
    ]
    assert result.pvalue == pytest.approx(max(p))
    assert result.rank_pvalue >= 1 / 6
    assert report.primary[0].name == "partial_rsa_relative"


@pytest.mark.heavy
def test_auditing_twice_gives_the_same_bytes(claim_folder: Path, tmp_path: Path, victim: Encoder) -> None:
    path = tmp_path / "suspect.safetensors"
    path.write_bytes(weights_bytes(encoder(5), "tiny"))
    for name in ("a", "b"):
        audit(Claim.load(claim_folder), load_suspect(path)).save(tmp_path / f"{name}.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.heavy
def test_both_file_forms_agree(claim: Claim, victim: Encoder, tmp_path: Path) -> None:
    (tmp_path / "v.safetensors").write_bytes(weights_bytes(victim, "tiny"))
    (tmp_path / "v.onnx").write_bytes(onnx_bytes(victim, (16, 16)))
    a, b = (audit(claim, load_suspect(tmp_path / f"v.{suffix}")) for suffix in ("safetensors", "onnx"))
    assert a.verdict is b.verdict is Verdict.SUPPORTED
    for x, y in zip(a.results, b.results, strict=True):
        if x.name == "partial_rsa_relative":  # of the victim itself: unbounded but for a floor
            assert min(x.value, y.value) > 100
        else:
            assert x.value == pytest.approx(y.value, abs=1e-3)


class _Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), 64)


class _BatchDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = encoder(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        return out - out.mean(0)


class _Counting(nn.Module):
    """Responses honestly for a while, then like another network."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.seen = encoder(3), encoder(4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        out: Tensor = (self.a if self.seen < 900 else self.b)(x)
        return out


GAMES: dict[str, tuple[EncoderLike, ProblemCode]] = {
    "random": (_Random(), ProblemCode.UNSTABLE),
    "batch-dependent": (_BatchDependent(), ProblemCode.UNSTABLE),
    "stateful": (_Counting(), ProblemCode.UNSTABLE),
    "constant": (lambda x: torch.full((len(x), 64), 0.7), ProblemCode.CONSTANT),
    "zero": (lambda x: torch.zeros(len(x), 64), ProblemCode.CONSTANT),
    "nan": (lambda x: torch.full((len(x), 64), float("nan")), ProblemCode.NOT_FINITE),
    "one nan": (
        lambda x: torch.where(torch.arange(len(x))[:, None] == 0, torch.inf, x.flatten(1)),
        ProblemCode.NOT_FINITE,
    ),
    "collapsed": (lambda x: x.mean((1, 2, 3))[:, None] * torch.ones(64), ProblemCode.COLLAPSED),
}


@pytest.mark.parametrize("name", sorted(GAMES))
def test_a_suspect_that_games_the_test_is_inconclusive(name: str, claim: Claim) -> None:
    game, code = GAMES[name]
    report = audit(claim, as_suspect(game))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {r.code for r in report.reasons} == {ReasonCode.UNUSABLE_RESPONSES}
    assert code in {p.code for p in report.findings.problems}
    assert not report.results
    assert "inconclusive" in sentences.verdict(report)
    assert Report.from_dict(report.to_dict()) == report
    assert report.findings.problems[0].detail in render_html(report)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), "cannot process images of 3x16x16"),
        (nn.Sequential(nn.Flatten(), nn.Linear(99, 8)), "cannot process images"),
        (nn.Identity(), r"expected \(n, d\)"),
        (lambda x: x.flatten(1)[:-1], r"expected \(n, d\)"),
    ],
)
def test_a_suspect_that_does_not_fit_is_one_line(broken: EncoderLike, said: str, claim: Claim) -> None:
    with pytest.raises(SuspectError, match=said):
        audit(claim, as_suspect(broken))


def _small_claim(digits: Data, victim: Encoder, kinds: list[str], public: int, **more: object) -> Claim:
    panel = [NamedEncoder(member(f"m{i}", kind), encoder(10 + i)) for i, kind in enumerate(kinds)]
    return build_claim(
        NamedEncoder(member("victim", "victim", victim), victim),
        ClaimImages(digits.images[:50], digits.images[50 : 50 + public]),
        panel,
        **more,  # type: ignore[arg-type]
    )


def test_too_few_probes_are_inconclusive(digits: Data, victim: Encoder) -> None:
    claim = _small_claim(digits, victim, ["plain"] * 5 + ["watermarked"] * 5, 150)
    report = audit(claim, as_suspect(victim))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "too few probes: the claim has 100 public probes" in sentences.reasons(report)[0]


def test_a_missing_stratum_asks_for_both_tests(digits: Data, victim: Encoder) -> None:
    """Without watermarked members and without a watermark only one test can run: the claim supports nothing."""
    claim = _small_claim(digits, victim, ["plain"] * 5, 400)
    report = audit(claim, as_suspect(victim))
    assert report.results[0].missing_strata == ("watermarked",)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {ReasonCode.MISSING_STRATA, ReasonCode.ONE_FAMILY} <= {r.code for r in report.reasons}
    assert Consequence.TWO_FAMILIES in {e.consequence for e in report.explanations}


def test_a_panel_of_small_and_public_encoders(digits: Data, victim: Encoder) -> None:
    """It finds the victim itself, clears an independent encoder, and says what it could not exclude."""
    references = [NamedEncoder(member("reference_mse", "reference"), Noisy(victim, 70, 0.2).eval())]
    claim = _small_claim(digits, victim, ["small"] * 6 + ["public"] * 5, 400, references=references)
    said = describe(claim)
    assert claim.plan.primary == ("partial_rsa",)  # the only test that may; others would only cost alpha
    assert any("no plain members" in line and "0.6 of the way" in line for line in said)
    found, cleared = (audit(claim, as_suspect(e)) for e in (victim, encoder(77)))
    assert found.verdict is Verdict.SUPPORTED
    assert cleared.verdict is Verdict.NOT_SUPPORTED
    assert cleared.results[0].missing_strata == ("plain", "watermarked")
    assert Consequence.RELATIVE_SIMILARITY in {e.consequence for e in found.explanations}
    bare = _small_claim(digits, victim, ["small"] * 6, 400)
    assert any("no reference surrogates" in line for line in describe(bare))
    assert audit(bare, as_suspect(victim)).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(ClaimError, match="no independent encoders"):
        _small_claim(digits, victim, ["public"] * 6, 400)


def test_the_sibling_stratum_counts(digits: Data, victim: Encoder) -> None:
    """A suspect near the victim's relatives is beyond plain members but not beyond its own kind."""
    kinds = ["plain"] * 5 + ["watermarked"] * 5
    panel = [NamedEncoder(member(f"m{i}", kind), encoder(10 + i)) for i, kind in enumerate(kinds)]
    from_checkpoint = [
        NamedEncoder(member(f"sibling{i}", "sibling"), Noisy(victim, 40 + i, 0.3 + 0.02 * i).eval()) for i in range(5)
    ]
    sibling = as_suspect(Noisy(victim, 60, 0.33).eval())
    args = (
        NamedEncoder(member("victim", "victim", victim), victim),
        ClaimImages(digits.images[:50], digits.images[50:500]),
    )
    without = audit(build_claim(*args, panel), sibling)
    among = audit(build_claim(*args, [*panel, *from_checkpoint]), sibling)  # type: ignore[list-item]
    assert without.verdict is Verdict.SUPPORTED
    assert among.results[0].decisive_stratum == "sibling"
    assert among.verdict is Verdict.NOT_SUPPORTED


def test_a_panel_member_as_suspect_is_no_copy(claim: Claim) -> None:
    report = audit(claim, as_suspect(encoder(12)))
    assert report.verdict is not Verdict.SUPPORTED
    assert "partial_rsa" in report.findings.skipped


def test_a_claim_that_finds_nothing_is_inconclusive(claim: Claim) -> None:
    low = {"partial_rsa_relative": {"r": 0.0}, "watermark_probability": {"r": 0.5}}
    weak = replace(claim, scored=replace(claim.panel_scores, references=low))
    report = audit(weak, as_suspect(encoder(77)))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.reasons[-1].code is ReasonCode.NO_REFERENCE_DETECTED
    unknown = replace(claim, scored=replace(claim.panel_scores, references={}), references=())
    assert audit(unknown, as_suspect(encoder(77))).verdict is Verdict.NOT_SUPPORTED


def test_only_members_off_the_private_images_judge_dataset_inference(claim: Claim) -> None:
    members = tuple(
        replace(m, trained_on_private=[True, None, False][i % 3] if i < 6 else False)
        for i, m in enumerate(claim.members)
    )
    report = audit(replace(claim, members=members), as_suspect(encoder(77)))
    result = next(r for r in report.results if r.name == "inference_gmm")
    (group,) = result.members.values()
    assert set(group) == {"m2", "m5", "m6", "m7", "m8", "m9"}
    assert result.missing_strata == ()


def test_the_papers_test_is_shown_and_never_decides(claim: Claim) -> None:
    report = audit(claim, as_suspect(encoder(77)))
    shown = {r.name: r.image_level for r in report.results}
    assert {n for n, t in shown.items() if t} == {
        "watermark_success", "l2_distance", "inference_gmm", "inference_loss", "inference_augmentation",
    }  # fmt: skip
    assert {r.name for r in report.primary} == {"partial_rsa_relative", "watermark_probability", "partial_rsa_rotated"}


def test_plan_defaults_are_the_rules() -> None:
    plan = Plan()
    assert (plan.alpha, plan.correction, plan.min_stratum) == (0.01, "holm", 5)
    assert plan.primary == ("partial_rsa_relative", "watermark_probability", "partial_rsa_rotated")
    assert plan.final_alpha + sum(s * plan.alpha for s in plan.interim_alpha_shares) == pytest.approx(plan.alpha)


@pytest.mark.heavy
@pytest.mark.parametrize(("output_kind", "said"), [("logits", {"partial_rsa", "cka"}), ("labels", {"cka"})])
def test_a_declared_classifier_is_described_and_never_decided(
    output_kind: str, said: set[str], claim: Claim, victim: Encoder, tmp_path: Path
) -> None:
    """The victim itself, declared to give class scores: what can be computed is shown, the rest is refused by name."""
    path = tmp_path / "s.safetensors"
    path.write_bytes(weights_bytes(victim, "tiny"))
    report = audit(claim, load_suspect(path, output_kind=output_kind))
    assert {r.name for r in report.results} == said
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.primary == ()
    assert [r.code for r in report.reasons] == [ReasonCode.NOT_REPRESENTATIONS]
    assert report.options.output_kind == output_kind
    assert report.findings.skipped["watermark_success"] == Skip(code=SkipCode.OUTPUT_KIND, detail=output_kind)
    assert set(report.findings.skipped) | said == set(STATISTICS)
    assert Report.from_dict(report.to_dict()) == report
    with pytest.raises(SuspectError, match="unknown kind"):
        load_suspect(path, output_kind="vibes")


def test_a_claim_supported_for_the_auditors_encoders_is_indiscriminate(claim: Claim, victim: Encoder) -> None:
    """Fine where it leaves them alone; two of them called copies, and the same suspect is no longer SUPPORTED."""
    copy = as_suspect(Noisy(victim, 8, 0.002).eval())

    def named(e: EncoderLike, name: str) -> tuple[Suspect, str]:
        return replace(as_suspect(e), name=name), "trained by the auditor"

    independents = [named(encoder(80 + i), f"independent {i}") for i in range(3)]
    fair = audit(claim, copy, auditor_panel=independents)
    assert (fair.verdict, fair.decision.auditor_positives) == (Verdict.SUPPORTED, ())
    assert fair.reasons[0] == Reason(code=ReasonCode.AUDITOR_PANEL, data={"positives": [], "n": 3})
    positives = [named(Noisy(victim, 20 + i, 0.002).eval(), f"positive {i}") for i in range(2)]  # stated as independent
    unfair = audit(claim, copy, auditor_panel=[*independents, *positives])
    assert unfair.decision.auditor_positives == ("positive 0", "positive 1")
    assert unfair.verdict is Verdict.INCONCLUSIVE
    assert unfair.reasons[0].code is ReasonCode.INDISCRIMINATE_CLAIM
    assert Report.from_dict(unfair.to_dict()) == unfair
    assert "trained by the auditor" in render_html(unfair)
