"""Audits that ask for other images of the key's pool: gates of every kind are inconclusive, and failing is no way out.

H0: which images are probes does not show in the responses. H1: a gate answers the probes with another encoder.
Unit: the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.encoders import as_suspect, encoder
from support.marked import keyed_claim as keyed_claim_of
from support.marked import marked, material, pool
from torch import Tensor, nn

from ownership.auditing.engine import audit
from ownership.auditing.reproduce import reproduce
from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.images import as_input, three_channels
from ownership.errors import ClaimError, ReportError, SuspectFailure
from ownership.evidence.pool_test import LEAST
from ownership.evidence.querying import ProblemCode
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from ownership.plan import Plan
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.verdict.records import AuditOptions
from ownership.verdict.results import PoolTest
from ownership.verdict.rule import ReasonCode, Verdict

PROBES, OTHERS = 400, 200
FEW_DECOYS = Plan(key_alpha=0.01)


def keyed_claim() -> Claim:
    return keyed_claim_of(FEW_DECOYS)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Claim:
    place = tmp_path_factory.mktemp("keyed") / "claim"
    keyed_claim().save(place)
    return Claim.load(place)


def pool_test(report: Report) -> PoolTest:
    assert report.findings.pool_test is not None
    return report.findings.pool_test


class KnowsProbes(nn.Module):
    """A copy that knows the probes, from an earlier audit, and has another encoder for them."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other, self.asked, self.met = marked(1), encoder(99), 0, False
        self.known = {self.name(x) for x in three_channels(as_input(material().probes))}

    @staticmethod
    def name(image: Tensor) -> bytes:
        return (255 * image).round().to(torch.uint8).numpy().tobytes()

    def probes(self, x: Tensor) -> Tensor:
        """Return which images are probes, and remember how many were asked and whether one was."""
        found = torch.tensor([self.name(image) in self.known for image in x])
        self.asked, self.met = self.asked + len(x), self.met or bool(found.any())
        return found

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.chosen(self.probes(x))[:, None], self.other(x), self.own(x))

    def chosen(self, probes: Tensor) -> Tensor:
        """Return for which images the other encoder answers."""
        return probes


class BatchGate(KnowsProbes):
    """Answers the whole batch with the other encoder if one of its images is a probe."""

    def chosen(self, probes: Tensor) -> Tensor:
        return probes.any().expand(len(probes))


class CounterGate(KnowsProbes):
    """Answers the first images that it is asked with the other encoder, as many as an audit without the pool asks."""

    def chosen(self, probes: Tensor) -> Tensor:
        return torch.full((len(probes),), self.asked <= LEAST + 440)


class StickyGate(KnowsProbes):
    """Answers everything with the other encoder once it has seen a probe."""

    def chosen(self, probes: Tensor) -> Tensor:
        return torch.full((len(probes),), self.met)


class FailsLater(nn.Module):
    """A copy that answers the probes, and fails afterwards."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.own, self.how, self.asked = marked(30, 1.0), how, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        out: Tensor = self.own(x)
        return self.how(out) if self.asked > LEAST + 440 else out


def crash(_: Tensor) -> Tensor:
    raise SuspectFailure("the suspect's process died")


def raise_error(_: Tensor) -> Tensor:
    raise RuntimeError("no")


def test_a_gate_that_knows_the_probes_is_inconclusive_where_the_pool_is_asked() -> None:
    assert audit(keyed_claim(), as_suspect(KnowsProbes())).verdict is Verdict.NOT_SUPPORTED
    report = audit(keyed_claim(), as_suspect(KnowsProbes()), pool=pool())
    assert report.verdict is Verdict.INCONCLUSIVE
    test = pool_test(report)
    assert (test.probes, test.others, test.reaching) == (PROBES, OTHERS, 0)
    alone = audit(keyed_claim(), as_suspect(KnowsProbes())).findings.queries
    assert report.findings.queries == alone + LEAST + PROBES + OTHERS
    assert "unlike other images" in render_html(report)
    assert Report.from_dict(report.to_dict()) == report


@pytest.mark.parametrize("gate", [BatchGate, CounterGate, StickyGate])
def test_gates_that_look_at_the_batch_or_remember_are_inconclusive(gate: Callable[[], nn.Module]) -> None:
    """The test of the pool alone sees none of them: probes and other images are answered alike."""
    report = audit(keyed_claim(), as_suspect(gate()), pool=pool())
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.findings.pool_problem is not None
    assert report.findings.pool_problem.code is ProblemCode.UNSTABLE
    assert "asked before and after the probes" in render_html(report)
    assert Report.from_dict(report.to_dict()) == report


FAILURES = [
    (crash, ProblemCode.FAILED),
    (raise_error, ProblemCode.FAILED),
    (lambda x: x[:-1], ProblemCode.FAILED),
    (lambda x: x[:, :0], ProblemCode.FAILED),
    (lambda x: x * float("nan"), ProblemCode.NOT_FINITE),
    (lambda x: torch.cat([x, x], 1), ProblemCode.UNSTABLE),
    (torch.zeros_like, ProblemCode.UNSTABLE),
]


@pytest.mark.parametrize(("how", "code"), FAILURES)
def test_a_copy_does_not_escape_by_failing_when_the_pool_is_asked(
    how: Callable[[Tensor], Tensor], code: ProblemCode
) -> None:
    report = audit(keyed_claim(), as_suspect(FailsLater(how)), pool=pool())
    assert report.verdict is Verdict.SUPPORTED
    assert report.findings.pool_problem is not None
    assert report.findings.pool_problem.code is code
    assert ReasonCode.POOL_PROBLEM in [r.code for r in report.reasons]
    assert Report.from_dict(report.to_dict()) == report


def test_asking_for_other_images_of_the_pool_changes_no_other_verdict() -> None:
    for suspect, verdict in ((marked(30, 1.0), Verdict.SUPPORTED), (encoder(31), Verdict.NOT_SUPPORTED)):
        report = audit(keyed_claim(), as_suspect(suspect), pool=pool())
        assert report.verdict is verdict
        assert not pool_test(report).rejects
        assert "no sign that the suspect answers probes differently" in render_html(report)


def test_which_images_are_asked_cannot_be_foretold_and_is_stated() -> None:
    """Two audits draw other seeds; the seed of a report gives its numbers again."""
    first, second = (audit(keyed_claim(), as_suspect(encoder(31)), pool=pool()) for _ in range(2))
    assert first.options.pool_seed != second.options.pool_seed
    again = audit(keyed_claim(), as_suspect(encoder(31)), AuditOptions(pool_seed=first.options.pool_seed), pool=pool())
    assert again.findings.pool_test == first.findings.pool_test
    assert audit(keyed_claim(), as_suspect(encoder(31)), AuditOptions(pool_seed=5)).options.pool_seed is None


def test_a_report_with_a_test_of_the_pool_is_reproduced(stored: Claim) -> None:
    suspect = as_suspect(encoder(31))
    report = audit(stored, suspect, pool=pool())
    with_pool, without = reproduce(report, stored, suspect, pool=pool()), reproduce(report, stored, suspect)
    assert (with_pool.differences, with_pool.left_out) == ((), ())
    assert (without.differences, without.left_out) == ((), ("the test of the pool: --pool was not given",))
    with pytest.raises(ReportError, match="no test of the pool"):
        reproduce(audit(stored, suspect), stored, suspect, pool=pool())


def test_a_report_of_a_suspect_that_fails_on_the_pool_is_reproduced(stored: Claim) -> None:
    report = audit(stored, as_suspect(FailsLater(crash)), pool=pool())
    for given in (pool(), None):
        again = reproduce(report, stored, as_suspect(FailsLater(crash)), pool=given)
        assert again.differences == ()
        assert again.repeated.verdict is Verdict.SUPPORTED
    assert reproduce(report, stored, as_suspect(marked(30, 1.0)), pool=pool()).differences


@pytest.mark.parametrize(
    "forged",
    [
        {"reaching": 9999},
        {"reaching": -1},
        {"probes": 399},
        {"others": 100},
        {"permutations": 9},
        {"explained": 2.0},
        {"explained": 0.0},
    ],
)
def test_a_stored_test_of_the_pool_has_possible_numbers(forged: dict[str, float]) -> None:
    stored = report_of_a_gate().to_dict()
    with pytest.raises(ReportError):
        Report.from_dict({**stored, "pool_test": {**stored["pool_test"], **forged}})


def test_a_stored_report_states_what_the_pool_showed() -> None:
    stored = report_of_a_gate().to_dict()
    without_gate = audit(keyed_claim(), as_suspect(encoder(31))).to_dict()
    problem = {"code": "failed", "detail": "x"}
    for changed in (
        {"pool_test": None},
        {"pool_problem": problem},
        {"options": without_gate["options"]},
        {"queries": without_gate["queries"]},
    ):
        with pytest.raises(ReportError):
            Report.from_dict({**stored, **changed})
    with pytest.raises(ReportError):
        Report.from_dict({**without_gate, "pool_problem": problem})


_REPORTS: list[Report] = []


def report_of_a_gate() -> Report:
    if not _REPORTS:
        _REPORTS.append(audit(keyed_claim(), as_suspect(KnowsProbes()), AuditOptions(pool_seed=1), pool=pool()))
    return _REPORTS[0]


def test_an_audit_that_ended_early_asks_only_before_the_probes() -> None:
    options = AuditOptions(stop_early=True)
    alone = audit(keyed_claim(), as_suspect(marked(30, 1.0)), options)
    report = audit(keyed_claim(), as_suspect(marked(30, 1.0)), options, pool=pool())
    assert (report.findings.ended_early, report.findings.pool_test) == (True, None)
    assert report.findings.queries == alone.findings.queries + LEAST
    assert Report.from_dict(report.to_dict()) == report


def test_other_images_are_not_the_pool() -> None:
    suspect = as_suspect(encoder(31))
    for images in (pool().flip(0), pool()[:599]):
        with pytest.raises(ClaimError, match="not the ones that the key was made for"):
            audit(keyed_claim(), suspect, pool=images)
    whole = KeyMaterial.draw(Key(secret=bytes(32), pool=pool_of(pool()[:450]), probes=400), pool()[:450])
    few = build_claim(NamedEncoder(keyed_claim().victim, marked(1)), ClaimImages(None, whole.probes), material=whole)
    with pytest.raises(ClaimError, match="50 are left"):
        audit(few, suspect, pool=pool()[:450])


def test_every_image_of_the_pool_is_equally_likely_to_be_asked() -> None:
    """H0 of the test needs it: labels are exchangeable among the images asked. A suspect records what it is asked."""
    counts = np.zeros(600)
    names = {KnowsProbes.name(x): i for i, x in enumerate(three_channels(as_input(pool())))}

    class Records(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for image in x:
                counts[names[KnowsProbes.name(image)]] += 1
            return encoder(31)(x)

    audit(keyed_claim(), as_suspect(Records().eval()), pool=pool())
    drawn = np.asarray(material().key.probe_indices())
    others = np.setdiff1d(np.arange(600), drawn)
    assert counts[drawn].min() >= 2  # in the audit, and among the images of the pool
    assert counts[others].min() >= 1
    assert counts[others].sum() == OTHERS + LEAST
