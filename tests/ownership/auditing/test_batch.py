"""BatchSummary suspects: Holm over them, how many a panel carries, a report for each, resumed; one bad one does no harm."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Job, Noisy, Run, encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_interim_analyses import _result, _suspect

from ownership import audit
from ownership.auditing.batch import AuditOutcome, _level, audit_batch, carried, folders, summarise, suspect_pvalue
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.errors import ClaimIntegrityError, ReportError, SuspectError
from ownership.reports.report import Report
from ownership.stats import holm
from ownership.verdict.rule import Verdict, supports
from ownership.verdict.strength import placing_reference


@pytest.fixture(scope="session")
def reports(claim: Claim, victim: Encoder) -> dict[str, Report]:
    """Copies of the victim from near to far, and independent encoders."""
    models = {
        f"copy_{i}": Noisy(victim, 20 + i, a) for i, a in enumerate((0.002, 0.05, 0.2, 0.6, 0.9, 1.2, 1.6, 2.2, 3.0))
    }
    models |= {f"stranger_{i}": encoder(60 + i) for i in range(3)}
    return {name: audit(claim, _suspect(model, name)) for name, model in models.items()}


def test_the_pvalue_is_where_the_verdict_turns(reports: dict[str, Report]) -> None:
    """p <= alpha if and only if the rule says SUPPORTED at alpha: found by bisection, not by the formula."""
    for name, report in reports.items():
        p = suspect_pvalue(report)
        assert p is not None, name
        low, high = 1e-12, 0.05
        at = {
            a: replace(report, plan=replace(report.plan, alpha=a), interim_analyses=_looks(report, a))
            for a in (low, high)
        }
        if at[high].verdict is not Verdict.SUPPORTED:
            assert p > high
            continue
        for _ in range(60):
            middle = (low * high) ** 0.5
            again = replace(report, plan=replace(report.plan, alpha=middle), interim_analyses=_looks(report, middle))
            low, high = (low, middle) if again.verdict is Verdict.SUPPORTED else (middle, high)
        assert p == pytest.approx(high, rel=1e-6) or p < 1e-12
    assert suspect_pvalue(reports["copy_0"]) < 0.001  # type: ignore[operator]


def _looks(report: Report, alpha: float) -> tuple:  # type: ignore[type-arg]
    shares = dict(zip(report.plan.interim_queries, report.plan.interim_alpha_shares, strict=True))
    return tuple(replace(x, alpha=alpha * shares[x.queries]) for x in report.interim_analyses)


def test_tried_preprocessings_cost(reports: dict[str, Report]) -> None:
    report = reports["copy_2"]
    tried = replace(report, suspect={**report.suspect, "preprocess_tried": ["none", "half"]})
    once, twice = suspect_pvalue(report), suspect_pvalue(tried)
    assert once is not None
    assert twice == pytest.approx(min(1.0, 2 * once))


def test_an_early_end_is_judged_by_that_looks_share(claim: Claim, victim: Encoder) -> None:
    early = audit(claim, _suspect(victim), stop_early=True)
    (interim,) = early.interim_analyses
    share = early.plan.interim_alpha_shares[0]
    assert suspect_pvalue(early) == pytest.approx(_level(interim.results) / share)


def test_nothing_tested_has_no_pvalue_and_counts_in_the_correction(reports: dict[str, Report]) -> None:
    broken = replace(reports["copy_0"], problems=("the answers are not finite",))
    assert suspect_pvalue(broken) is None
    copy = reports["copy_0"]
    several = summarise(
        copy.claim["sha256"],
        0.01,
        [
            AuditOutcome(name="a", folder="a", report=copy),
            AuditOutcome(name="b", folder="b", report=broken),
            AuditOutcome(name="c", refused="no encoder"),
        ],
    )
    a, b, c = several.rows
    assert (a.supported, b.supported, c.supported) == (True, False, False)
    assert a.adjusted_pvalue == pytest.approx(3 * a.pvalue)  # type: ignore[operator]
    assert (b.verdict, b.pvalue, c.verdict) == ("INCONCLUSIVE", None, None)
    assert any("1 of 3 suspects could not be audited" in w for w in several.warnings)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=12))
def test_holm_over_suspects_is_the_textbooks_step_down(values: list[float]) -> None:
    """Naive oracle: sort, compare the i-th smallest with alpha / (n - i), stop at the first that fails."""
    alpha, rejected = 0.01, set()
    for i, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[k] > alpha / (len(values) - i):
            break
        rejected.add(k)
    assert {k for k, q in enumerate(holm(values)) if q <= alpha} == rejected


@pytest.mark.parametrize("n", [5, 20])
def test_the_chance_of_any_false_verdict_among_n_innocents(n: int) -> None:
    """H0 of each: one more model of the marked stratum. Unit: a model. All share one panel, as in an audit of several.

    The chance that any of n innocents is called a copy must not exceed alpha; without the correction it does.
    """
    rng, runs, alpha, hits, naive = np.random.default_rng(n), 1500, 0.05, 0, 0
    for _ in range(runs):
        panel = {"plain": rng.normal(size=6), "watermarked": rng.normal(size=6)}
        tests = [(_result("watermark_probability", float(x), panel),) for x in rng.normal(size=n)]
        levels = [_level(t) for t in tests]
        hits += any(q <= alpha for q in holm([min(1.0, x) for x in levels]))
        naive += any(supports(t, alpha) for t in tests)
    assert hits / runs <= alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5
    if n == 20:
        assert naive / runs > 1.5 * alpha


def test_many_suspects_are_more_than_a_small_panel_carries(reports: dict[str, Report]) -> None:
    weak = reports["copy_0"]
    p = suspect_pvalue(weak)
    assert p is not None
    carries = carried(weak, 0.01)
    assert carries is not None
    assert carries >= 1
    # the claim's reference is as near as this copy, so the number follows from a p-value of that size
    reference = suspect_pvalue(placing_reference(weak, "reference_mse"))
    assert reference is not None
    assert carries == int(0.01 / reference)
    few = summarise(weak.claim["sha256"], 0.01, [AuditOutcome(name="a", folder="a", report=weak)])
    many = summarise(
        weak.claim["sha256"],
        0.01,
        [
            AuditOutcome(name="a", folder="a", report=weak),
            *(AuditOutcome(name=f"x{i}", refused="no") for i in range(10)),
        ],
    )
    assert few.warnings == ()
    assert few.sound == 10
    assert any("p < 0.00091" in w and "up to 10 suspects are sound" in w for w in many.warnings)
    shrunk = replace(many, carries=3)
    assert any("11 suspects are more than this panel can carry: among more than 3" in w for w in shrunk.warnings)
    assert any("not known" in w for w in replace(many, carries=None).warnings)


def test_supported_alone_but_not_among_many(reports: dict[str, Report]) -> None:
    """The page overrules the report of one, and says so."""
    found = [(n, r, p) for n, r in reports.items() if (p := suspect_pvalue(r)) is not None and 1e-5 < p <= 0.01]
    assert found, {n: suspect_pvalue(r) for n, r in reports.items()}
    name, report, p = max(found, key=lambda x: x[2])
    others = int(0.01 / p) + 1
    several = summarise(
        report.claim["sha256"],
        0.01,
        [
            AuditOutcome(name=name, folder="a", report=report),
            *(AuditOutcome(name=f"x{i}", refused="no") for i in range(others)),
        ],
    )
    assert report.verdict is Verdict.SUPPORTED
    assert not several.rows[0].supported
    assert several.exit_code == 2
    assert any(f"{name} alone is SUPPORTED, among {1 + others} suspects it is not" in w for w in several.warnings)


def test_reports_of_another_claim_are_refused(reports: dict[str, Report]) -> None:
    with pytest.raises(ReportError, match="another claim"):
        summarise("0" * 64, 0.01, [AuditOutcome(name="a", folder="a", report=reports["copy_0"])])


def test_one_bad_suspect_does_not_stop_the_others_but_a_broken_claim_does(reports: dict[str, Report]) -> None:
    def one(name: str) -> AuditOutcome:
        if name == "bad":
            raise SuspectError("unknown format", "send ONNX")
        return AuditOutcome(name=name, folder=name, report=reports[name])

    found = audit_batch(["stranger_0", "bad", "copy_0"], one)
    assert [a.name for a in found] == ["stranger_0", "bad", "copy_0"]
    assert [a.refused for a in found] == [None, "unknown format (send ONNX)", None]

    def broken(_name: str) -> AuditOutcome:
        raise ClaimIntegrityError("changed", "get the original")

    with pytest.raises(ClaimIntegrityError):
        audit_batch(["a"], broken)
    sent = pickle.loads(pickle.dumps(ClaimIntegrityError("changed", "get the original")))  # from another process
    assert (sent.message, sent.hint) == ("changed", "get the original")


def test_folders_of_one_name_are_numbered() -> None:
    assert list(folders(["a/x.onnx", "b/x.onnx", "c.onnx"], lambda s: Path(s).stem)) == [
        ("a/x.onnx", "x"),
        ("b/x.onnx", "x-2"),
        ("c.onnx", "c"),
    ]
    assert len({f for _, f in folders(["x-2", "a/x", "b/x"], lambda s: Path(s).name)}) == 3


def test_the_command(run: Run, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "")
    (tmp_path / "notes.onnx").write_bytes(b"not a model <b>")
    suspects = [job.folder / f"suspects/{n}.onnx" for n in ("surrogate_mse", "independent_foreign_key")]
    command = ("audit", *suspects, tmp_path / "notes.onnx", "--claim", job.folder / "claim", "--out", "all")
    code, out, err = run(*command, "--jobs", 2)
    assert code == 0, err
    summary = json.loads((tmp_path / "all/summary.json").read_text())
    assert [r["supported"] for r in summary["suspects"]] == [True, False, False]
    assert "unknown format" in summary["suspects"][2]["refused"] or "damaged" in summary["suspects"][2]["refused"]
    page = (tmp_path / "all/summary.html").read_text()
    for row in summary["suspects"][:2]:
        assert (tmp_path / "all" / row["folder"] / "report.json").is_file()
        assert f'href="{row["folder"]}/report.html"' in page
    assert "<script" not in page
    assert "1 of 3 suspects could not be audited" in out
    assert "summary: all/summary.html" in out
    # again: nothing is audited twice, and what is missing is made up for
    first, second = (tmp_path / "all" / r["folder"] / "report.json" for r in summary["suspects"][:2])
    before, stored = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    code, out, _ = run(*command, "--json")
    assert code == 0
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == stored
    assert json.loads(out) == summary
    # a signed report of something else is never written over: that suspect is refused, the others are audited
    run("keygen", "auditor.key")
    kept = first.read_bytes()
    first.write_bytes(stored)
    (first.parent / "report.html").write_bytes((second.parent / "report.html").read_bytes())
    run("report", "sign", first.parent, "--signing-key", "auditor.key")
    code, out, _ = run(*command, "--json")
    assert code == 2
    assert "holds a signed report" in json.loads(out)["suspects"][0]["refused"]
    assert first.read_bytes() == stored
    shutil.rmtree(first.parent / "seal")
    first.write_bytes(kept)
    # a report of something else in its place is not taken for it
    first.write_bytes(stored)
    run(*command)
    assert json.loads(first.read_bytes())["suspect"]["name"] == "surrogate_mse.onnx"


def test_what_the_command_refuses(run: Run, job: Job, tmp_path: Path) -> None:
    suspect = job.folder / "suspects/surrogate_mse.onnx"
    for options in ((suspect, "--stop-early"), (suspect,)):
        code, _, err = run("audit", suspect, *options, "--claim", job.folder / "claim")
        assert code == 2
        assert err.count("error:") == 1
    (tmp_path / "a.onnx").write_bytes(b"x")
    (tmp_path / "b.onnx").write_bytes(b"y")
    code, _, _ = run("audit", "a.onnx", "b.onnx", "--claim", job.folder / "claim")
    assert code == 2
