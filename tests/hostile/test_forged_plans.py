"""A plan, references or representations that an owner chose after seeing the suspect: refused, or said on page one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from support import independent_verifier
from support.encoders import as_suspect, encoder, member
from support.keys import claimed, rewritten
from torch import Tensor, nn

from ownership import audit
from ownership.claims.claim import Claim
from ownership.claims.record import NamedEncoder
from ownership.errors import ClaimError, OwnershipError
from ownership.evidence.querying import ProblemCode, allclose_responses, relative_difference
from ownership.keyed.pool import KeyMaterial
from ownership.plan import Plan
from ownership.reports import key_text
from ownership.verdict.order import stamped_first
from ownership.verdict.records import SealRecord, TimestampRecord


def planned(folder: Path, **changes: object) -> Path:
    content = json.loads((folder / "claim.json").read_bytes())
    return rewritten(folder, {}, plan={**content["plan"], **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"interim_queries": [100], "interim_alpha_shares": [0.98]},
        {"interim_queries": [250], "interim_alpha_shares": [0.9]},
        {"interim_queries": [250, 300], "interim_alpha_shares": [0.2, 0.3]},
        {"interim_queries": [250], "interim_alpha_shares": [0.2], "repeat_share": 0.4},
        {"key_alpha": 1e-8},
    ],
)
def test_the_plan_chooses_nothing_of_the_key_test_but_alpha(folder: Path, changes: dict[str, object]) -> None:
    """The best of many interim analyses would reject sixteen times as often as alpha 0.001 says."""
    with pytest.raises(ClaimError, match="plan: "):
        Claim.load(planned(folder, **changes))
    if "interim_queries" in changes:
        with pytest.raises(independent_verifier.Bad, match="the plan's"):
            independent_verifier.check_key(folder, json.loads((folder / "claim.json").read_bytes()), None)


def test_the_usual_analyses_and_none_are_allowed(folder: Path) -> None:
    usual = Plan().feasible({"public": 300})
    assert usual.interim_queries == (250,)
    chosen = {"interim_queries": list(usual.interim_queries), "interim_alpha_shares": list(usual.interim_alpha_shares)}
    assert Claim.load(planned(folder, **chosen)).plan.interim_queries == (250,)
    assert Claim.load(planned(folder, interim_queries=[], interim_alpha_shares=[])).plan.interim_queries == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"interim_queries": [250.5], "interim_alpha_shares": [0.2]},
        {"interim_queries": [True], "interim_alpha_shares": [0.2]},
        {"interim_queries": 250},
        {"seed": 1.5},
        {"seed": True},
        {"repeat_share": "0.05"},
        {"repeat_share": 1.0},
        {"key_alpha": True},
        {"rule": ["turnmark-1"]},
        {"n_public": 1e3},
    ],
)
def test_a_plan_with_values_of_other_types_is_refused_in_one_line(folder: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ClaimError, match="plan: "):
        Claim.load(planned(folder, **changes))


def test_a_plan_that_is_not_shown_to_be_older_than_the_suspect_is_said_to_be(folder: Path) -> None:
    report = audit(Claim.load(folder), as_suspect(encoder(50)))
    assert report.claim.key is not None
    assert "It is not shown that the claim, with its alpha" in key_text.order(report)
    stamp = TimestampRecord(authority="A", time="2026-05-01T00:00:00+00:00", trusted=True)
    sealed = replace(
        report.findings,
        claim=replace(report.claim, seal=SealRecord(public_key_sha256="a", root="b", timestamps=(stamp,))),
    )
    later = replace(report.options, published="2026-06-01T00:00:00+00:00")
    assert "It is not shown that the claim" not in key_text.order(replace(report, findings=sealed, options=later))


def test_the_earliest_trusted_stamp_counts() -> None:
    stamps = [
        TimestampRecord(authority="A", time=f"2026-0{month}-01T00:00:00+00:00", trusted=trusted)
        for month, trusted in ((3, False), (5, True), (4, True))
    ]
    seal = SealRecord(public_key_sha256="a", root="b", timestamps=tuple(stamps))
    assert stamped_first(seal, "2026-06-01T00:00:00+00:00") == stamps[2].time
    assert stamped_first(seal, "2026-04-01T00:00:00+00:00") is None
    assert stamped_first(seal, None) is stamped_first(None, "2026-06-01T00:00:00+00:00") is None


def with_reference(folder: Path, rows: Tensor, names: tuple[str, ...]) -> Path:
    """Add reference surrogates that have these representations."""
    content = json.loads((folder / "claim.json").read_bytes())
    record = {**content["victim"], "kind": "reference"}
    parts = {f"representations/{n}.safetensors": save({"public": rows}) for n in names}
    return rewritten(folder, parts, references=[{**record, "name": n} for n in names])


def test_one_surrogate_counts_once_and_the_victim_not_at_all(folder: Path) -> None:
    """Under forty names one surrogate took the likelihood ratio from 500 to 9,280."""
    victim = load((folder / "representations/victim.safetensors").read_bytes())["public"]
    other = victim + 0.3 * torch.randn(victim.shape, generator=torch.Generator().manual_seed(0))
    assert len(Claim.load(with_reference(folder, other, ("a",))).references) == 1
    for rows, names, said in (
        (other, ("a", "b"), "gives the responses of a"),
        (victim, ("a",), "gives the responses of the victim"),
        (1.0001 * victim, ("a",), "gives the responses of the victim"),
        (other, tuple(f"r{i}" for i in range(51)), "51 reference surrogates"),
    ):
        with pytest.raises(ClaimError, match=said):
            Claim.load(with_reference(folder, rows, names))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_representations_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    name = "representations/victim.safetensors"
    rows = load((folder / name).read_bytes())["public"].double()
    rows[3, 4] = value
    with pytest.raises(ClaimError, match="not finite"):
        Claim.load(rewritten(folder, {name: save({"public": rows})}))


class LargeColumns(nn.Module):
    """A suspect that answers large batches with another encoder, beside columns that always agree."""

    def __init__(self, columns: float, count: int = 1) -> None:
        super().__init__()
        self.one, self.other, self.columns, self.count = encoder(3), encoder(4), columns, count

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.one if len(x) <= 64 else self.other)(x)
        grey = x.mean((1, 2, 3))[:, None] if self.count > 1 else torch.ones(len(x), 1)
        return torch.cat([out, self.columns * grey.expand(-1, self.count)], 1)


@pytest.mark.parametrize(("columns", "count"), [(0.0, 1), (1e5, 1), (1e6, 400)])
def test_large_columns_do_not_hide_responses_that_differ(
    columns: float, count: int, material: KeyMaterial, pool: Tensor
) -> None:
    report = audit(claimed(encoder(1), material, pool), as_suspect(LargeColumns(columns, count)))
    assert ProblemCode.UNSTABLE in {p.code for p in report.findings.problems}


def test_invented_representations_do_not_pass_for_those_of_a_file() -> None:
    """`--models` compares representations; one large constant column made any two the same."""
    rng = np.random.default_rng(0)
    a, b = (np.c_[rng.standard_normal((200, 16)), np.full(200, 1e6)].astype(np.float32) for _ in "ab")
    assert not allclose_responses(a, b)
    assert allclose_responses(a, a + np.float32(1e-5))
    assert relative_difference(a, a, a) == 0


def test_the_difference_of_responses_by_a_loop() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 20)).astype(np.float32)
    y = (x + 0.01 * rng.standard_normal(x.shape)).astype(np.float32)
    spread = [float(np.std(column.astype(np.float64))) for column in x.T]
    by_image = [np.quantile([abs(float(p) - float(q)) / s for p, q, s in zip(a, b, spread, strict=True)], 0.95)
                for a, b in zip(x, y, strict=True)]  # fmt: skip
    overall = float(np.abs(x - y).max()) / float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))
    assert relative_difference(x, y, x) == pytest.approx(max(*by_image, overall), rel=1e-6)


def test_a_date_in_the_future_is_refused() -> None:
    from ownership.attestation.timestamps import past_date

    assert past_date("2026-05-01").isoformat() == "2026-05-01T00:00:00+00:00"
    with pytest.raises(OwnershipError, match="in the future"):
        past_date("2999-01-01")


def test_a_reference_that_is_built_in_twice_is_refused(material: KeyMaterial, pool: Tensor) -> None:
    twice = [NamedEncoder(member(name, "reference"), encoder(7)) for name in ("a", "b")]
    with pytest.raises(ClaimError, match="gives the responses of a"):
        claimed(encoder(1), material, pool, references=twice)
