"""Representations that a third party recorded, and the audit that follows."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from support.encoders import Noisy, encoder
from support.recorded import Rows, embedded, npy

from ownership import audit
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.errors import SuspectError
from ownership.evidence.querying import ProblemCode, n_repeats
from ownership.plan import Plan
from ownership.reports.report import Report
from ownership.suspects.recorded.recorded import load_recorded
from ownership.verdict.rule import Verdict


@pytest.mark.parametrize("form", ["npy", "float64", "fortran", "safetensors", "named", "parquet", "columns"])
def test_recorded_is_the_encoder_itself(
    form: str, claim: Claim, near: Noisy, direct: Report, probes: Path, tmp_path: Path
) -> None:
    """The same statistics, p-values and verdict, whatever the form of the file."""
    rows = embedded(probes, near)
    if form == "npy":
        data = npy(rows)
    elif form == "float64":
        data = npy(rows.astype("<f8"))
    elif form == "fortran":
        data = npy(np.asfortranarray(rows))
    elif form == "safetensors":
        data = save({"x": torch.from_numpy(rows)})
    elif form == "named":
        data = save({"representations": torch.from_numpy(rows), "extra": torch.zeros(2)})
    else:
        data = parquet(rows, lists=form == "parquet")
    (tmp_path / "rows").write_bytes(data)
    recorded = load_recorded(tmp_path / "rows", probes)
    report = audit(claim, recorded)
    assert report.verdict is direct.verdict is Verdict.SUPPORTED
    assert (report.findings.queries, report.findings.problems) == (direct.findings.queries, ())
    for x, y in zip(report.results, direct.results, strict=True):
        assert x.name == y.name
        assert x.value == pytest.approx(y.value, rel=1e-3, abs=1e-4)  # other batches, other last digits
        assert x.pvalue == pytest.approx(y.pvalue, rel=1e-2, abs=1e-4)
    assert report.suspect.format == "recorded"
    assert len(report.suspect.probes_sha256 or "") == len(report.suspect.sha256) == 64
    if form == "npy":
        again = audit(claim, load_recorded(tmp_path / "rows", probes))
        assert again.to_dict() == report.to_dict() == audit(claim, recorded).to_dict()


def parquet(rows: Rows, *, lists: bool) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    columns = {"embedding": pa.array(list(rows))} if lists else {f"d{i}": column for i, column in enumerate(rows.T)}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_a_recorded_independent_encoder_is_not_suspected(claim: Claim, probes: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(npy(embedded(probes, encoder(77))))
    assert audit(claim, load_recorded(tmp_path / "rows.npy", probes)).verdict is Verdict.NOT_SUPPORTED


def test_class_scores_can_be_recorded_too(claim: Claim, probes: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(npy(embedded(probes, encoder(77))))
    suspect = load_recorded(tmp_path / "rows.npy", probes, output_kind="logits")
    assert audit(claim, suspect).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(SuspectError, match="unknown kind of output"):
        load_recorded(tmp_path / "rows.npy", probes, output_kind="guesses")


def _shaken(rows: Rows) -> Rows:
    return rows + np.random.default_rng(0).normal(0, 0.05, rows.shape).astype(np.float32)


def _drifting(rows: Rows) -> Rows:
    return rows * np.linspace(1, 1.1, len(rows), dtype=np.float32)[:, None]


def _with_nan(rows: Rows) -> Rows:
    rows = rows.copy()
    rows[::20, 3] = np.nan  # decoys are not looked at
    return rows


UNTESTABLE: dict[str, tuple[Callable[[Rows], NDArray[np.floating]], ProblemCode]] = {
    "random": (_shaken, ProblemCode.UNSTABLE),
    "stateful": (_drifting, ProblemCode.UNSTABLE),
    "nan": (_with_nan, ProblemCode.NOT_FINITE),
    "too large for float16": (lambda r: np.where(r > 0, np.inf, r).astype(np.float16), ProblemCode.NOT_FINITE),
    "too large for float32": (lambda r: r.astype(np.float64) * 1e300, ProblemCode.NOT_FINITE),
    "constant": (lambda r: np.ones_like(r), ProblemCode.CONSTANT),
    "zero": (lambda r: np.zeros_like(r), ProblemCode.CONSTANT),
    "collapsed": (lambda r: r[:, :1] * np.ones((1, 64), np.float32), ProblemCode.COLLAPSED),
}


@pytest.mark.parametrize("name", sorted(UNTESTABLE))
def test_answers_that_cannot_be_tested_end_inconclusive(
    name: str, claim: Claim, victim: Encoder, probes: Path, tmp_path: Path
) -> None:
    change, code = UNTESTABLE[name]
    (tmp_path / "rows.npy").write_bytes(npy(change(embedded(probes, victim))))
    report = audit(claim, load_recorded(tmp_path / "rows.npy", probes))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert code in {p.code for p in report.findings.problems}


def test_rows_in_another_order_are_no_copy(claim: Claim, victim: Encoder, probes: Path, tmp_path: Path) -> None:
    """Permuted rows answer pictures with the answers to others; what is there twice gives it away."""
    rows = np.random.default_rng(1).permutation(embedded(probes, victim))
    (tmp_path / "rows.npy").write_bytes(npy(rows))
    report = audit(claim, load_recorded(tmp_path / "rows.npy", probes))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert ProblemCode.UNSTABLE in {p.code for p in report.findings.problems}


def test_another_claims_probes_are_said(claim: Claim, victim: Encoder, probes: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(npy(embedded(probes, victim)))
    other = {name: images.flip(-1).contiguous() for name, images in claim.probes.items()}
    with pytest.raises(SuspectError, match="belong to another claim"):
        audit(replace(claim, probes=other), load_recorded(tmp_path / "rows.npy", probes))


def test_the_plan_says_what_is_asked_twice() -> None:
    assert n_repeats(1000, Plan()) == 50
