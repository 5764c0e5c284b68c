"""Batches of suspects: Holm over them, how many a panel carries, a report for each, resumed, one bad among good."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import Run, error_line, turnmark
from support.encoders import Noisy, as_suspect, encoder
from support.job import Job
from support.reports import BAD, changed, simulated
from support.sampling import examples, number

from ownership import audit
from ownership.auditing.batch import AuditOutcome, audit_batch, folders, summarize
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.errors import ClaimIntegrityError, ReportError, SuspectError
from ownership.reports.batch import WarningCode, warning_sentence
from ownership.reports.report import Report
from ownership.stats import holm
from ownership.verdict.multiplicity import capacity, smallest_level, suspect_pvalue
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Verdict, decide, supports


def pvalue_of(report: Report) -> float | None:
    return suspect_pvalue(report.findings, report.decision)


@pytest.fixture(scope="session")
def reports(claim: Claim, victim: Encoder) -> dict[str, Report]:
    """Copies of the victim from near to far, and independent encoders."""
    models = {
        f"copy_{i}": Noisy(victim, 20 + i, a) for i, a in enumerate((0.002, 0.05, 0.2, 0.6, 0.9, 1.2, 1.6, 2.2, 3.0))
    }
    models |= {f"independent_{i}": encoder(60 + i) for i in range(3)}
    return {name: audit(claim, as_suspect(model, name)) for name, model in models.items()}


def test_the_pvalue_is_where_the_verdict_turns(reports: dict[str, Report]) -> None:
    """p <= alpha if and only if the rule says SUPPORTED at alpha: found by bisection, not by the formula."""
    for name, report in reports.items():
        p = pvalue_of(report)
        assert p is not None, name
        low, high = 1e-12, 0.05
        at = {
            a: changed(report, plan=replace(report.plan, alpha=a), interim_analyses=_looks(report, a))
            for a in (low, high)
        }
        if at[high].verdict is not Verdict.SUPPORTED:
            assert p > high
            continue
        for _ in range(60):
            middle = (low * high) ** 0.5
            again = changed(report, plan=replace(report.plan, alpha=middle), interim_analyses=_looks(report, middle))
            low, high = (low, middle) if again.verdict is Verdict.SUPPORTED else (middle, high)
        assert p == pytest.approx(high, rel=1e-6) or p < 1e-12
    assert pvalue_of(reports["copy_0"]) < 0.001  # type: ignore[operator]


def _looks(report: Report, alpha: float) -> tuple:  # type: ignore[type-arg]
    shares = dict(zip(report.plan.interim_queries, report.plan.interim_alpha_shares, strict=True))
    return tuple(replace(x, alpha=alpha * shares[x.queries]) for x in report.findings.interim_analyses)


def test_tried_preprocessings_cost(reports: dict[str, Report]) -> None:
    report = reports["copy_2"]
    tried = changed(report, suspect=replace(report.suspect, preprocessings_tried=("none", "half")))
    once, twice = pvalue_of(report), pvalue_of(tried)
    assert once is not None
    assert twice == pytest.approx(min(1.0, 2 * once))


def test_an_early_end_is_judged_by_that_looks_share(claim: Claim, victim: Encoder) -> None:
    early = audit(claim, as_suspect(victim), AuditOptions(stop_early=True))
    (interim,) = early.findings.interim_analyses
    share = early.plan.interim_alpha_shares[0]
    assert pvalue_of(early) == pytest.approx(smallest_level(interim.results, ()) / share)


def test_nothing_tested_has_no_pvalue_and_counts_in_the_correction(reports: dict[str, Report]) -> None:
    broken = changed(reports["copy_0"], problems=(BAD,))
    assert pvalue_of(broken) is None
    copy = reports["copy_0"]
    several = summarize(
        copy.claim.sha256,
        0.01,
        [
            AuditOutcome(name="a", folder="a", report=copy),
            AuditOutcome(name="b", folder="b", report=broken),
            AuditOutcome(name="c", refused="no encoder"),
        ],
    )
    a, b, c = several.suspects
    assert (a.supported, b.supported, c.supported) == (True, False, False)
    assert a.adjusted_pvalue == pytest.approx(3 * a.pvalue)  # type: ignore[operator]
    assert (b.verdict, b.pvalue, c.verdict) == (Verdict.INCONCLUSIVE, None, None)
    assert any("1 of 3 suspects could not be audited" in warning_sentence(w) for w in several.warnings)


@examples(60)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=12))
def test_holm_over_suspects_is_the_textbooks_step_down(values: list[float]) -> None:
    """Naive oracle: sort, compare the i-th smallest with alpha / (n - i), stop at the first that fails."""
    alpha, rejected = 0.01, set()
    for i, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[k] > alpha / (len(values) - i):
            break
        rejected.add(k)
    assert {k for k, q in enumerate(holm(values)) if q <= alpha} == rejected


@pytest.mark.sampled
@pytest.mark.parametrize("n", [5, 20])
def test_the_chance_of_any_false_verdict_among_n_independent_encoders(n: int) -> None:
    """H0 of each: one more model of the marked stratum. Unit: a model. All share one panel, as in an audit of several.

    The probability of any false positive among n must not exceed alpha; without the correction it does.
    """
    rng, runs, alpha, hits, naive = np.random.default_rng(n), number(1500, 600), 0.05, 0, 0
    for _ in range(runs):
        panel = {"plain": rng.normal(size=6), "watermarked": rng.normal(size=6)}
        tests = [(simulated("watermark_probability", float(x), panel),) for x in rng.normal(size=n)]
        levels = [smallest_level(t, ()) for t in tests]
        hits += any(q <= alpha for q in holm([min(1.0, x) for x in levels]))
        naive += any(supports(t, alpha, ()) for t in tests)
    assert hits / runs <= alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5
    if n == 20:
        assert naive / runs > 1.5 * alpha


def test_many_suspects_are_more_than_a_small_panel_carries(reports: dict[str, Report]) -> None:
    weak = reports["copy_0"]
    p = pvalue_of(weak)
    assert p is not None
    carries = capacity(weak.findings, 0.01)
    assert carries is not None
    assert carries >= 1
    # the claim's reference is as near as this copy, so the number follows from a p-value of that size
    placed = weak.findings.placing_reference("reference_mse")
    reference = suspect_pvalue(placed, decide(placed))
    assert reference is not None
    assert carries == int(0.01 / reference)
    few = summarize(weak.claim.sha256, 0.01, [AuditOutcome(name="a", folder="a", report=weak)])
    many = summarize(
        weak.claim.sha256,
        0.01,
        [
            AuditOutcome(name="a", folder="a", report=weak),
            *(AuditOutcome(name=f"x{i}", refused="no") for i in range(10)),
        ],
    )
    assert few.warnings == ()
    assert few.max_reliable_suspects == 10
    assert [w.code for w in many.warnings] == [WarningCode.UNRELIABLE_PVALUES, WarningCode.REFUSED_SUSPECTS]
    assert "p < 0.00091" in warning_sentence(many.warnings[0])
    assert "reliable for up to 10 suspects" in warning_sentence(many.warnings[0])
    shrunk = replace(many, capacity=3)
    assert shrunk.warnings[0].data == {"suspects": 11, "capacity": 3}
    assert "11 suspects exceed the capacity of this panel: among more than 3" in warning_sentence(shrunk.warnings[0])
    assert replace(many, capacity=None).warnings[0].code is WarningCode.CAPACITY_UNKNOWN


def test_supported_alone_but_not_among_many(reports: dict[str, Report]) -> None:
    """The page overrules the report of one, and says so."""
    found = [(n, r, p) for n, r in reports.items() if (p := pvalue_of(r)) is not None and 1e-5 < p <= 0.01]
    assert found, {n: pvalue_of(r) for n, r in reports.items()}
    name, report, p = max(found, key=lambda x: x[2])
    others = int(0.01 / p) + 1
    several = summarize(
        report.claim.sha256,
        0.01,
        [
            AuditOutcome(name=name, folder="a", report=report),
            *(AuditOutcome(name=f"x{i}", refused="no") for i in range(others)),
        ],
    )
    assert report.verdict is Verdict.SUPPORTED
    assert not several.suspects[0].supported
    assert several.exit_code == 2
    assert several.warnings[-1].data == {"name": name, "suspects": 1 + others}
    assert f"SUPPORTED for {name} alone, but not among" in warning_sentence(several.warnings[-1])


def test_reports_of_another_claim_are_refused(reports: dict[str, Report]) -> None:
    with pytest.raises(ReportError, match="another claim"):
        summarize("0" * 64, 0.01, [AuditOutcome(name="a", folder="a", report=reports["copy_0"])])


def test_one_bad_suspect_does_not_stop_the_others_but_a_broken_claim_does(reports: dict[str, Report]) -> None:
    def one(name: str) -> AuditOutcome:
        if name == "bad":
            raise SuspectError("unknown format", "send ONNX")
        return AuditOutcome(name=name, folder=name, report=reports[name])

    found = audit_batch(["independent_0", "bad", "copy_0"], one)
    assert [a.name for a in found] == ["independent_0", "bad", "copy_0"]
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


@dataclass(frozen=True)
class Batch:
    """A batch that was audited once: two models, and three suspects that cannot be audited."""

    folder: Path
    command: tuple[object, ...]
    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "all/summary.json").read_text())
        return found

    def reports(self, folder: Path) -> list[Path]:
        """Return the reports of the two models in a copy of the batch."""
        return [folder / "all" / row["folder"] / "report.json" for row in self.summary["suspects"][:2]]


@pytest.fixture(scope="module")
def batch(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("batch")
    (folder / "notes.onnx").write_bytes(b"not a model <b>")
    suspects = [job.folder / f"suspects/{n}.onnx" for n in ("surrogate_mse", "independent_foreign_key")]
    (folder / "photo.png").write_bytes(b"\x89PNG")
    unfit = [folder / name for name in ("notes.onnx", "gone.onnx", "photo.png")]
    command = ("audit", *suspects, *unfit, "--claim", job.folder / "claim", "--out", "all")
    return Batch(folder, command, *turnmark(folder, *command, "--jobs", 2))


def where(name: str) -> AuditOutcome:
    """An audit: the folder in which it runs."""
    return AuditOutcome(name=name, refused=Path.cwd().name)


@pytest.mark.heavy  # starts processes
def test_audits_in_kept_processes_run_in_the_folder_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib keeps its processes: once reports of a relative --out were written where an earlier call had been."""
    for folder in (tmp_path / "earlier", tmp_path / "now"):
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert {o.refused for o in audit_batch(["a", "b", "c"], where, jobs=2)} == {folder.name}


@pytest.fixture
def copied(batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The reports of a copy of the batch, in the folder where commands run."""
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "")
    shutil.copytree(batch.folder / "all", tmp_path / "all")
    return batch.reports(tmp_path)


def test_the_command(batch: Batch) -> None:
    assert batch.code == 0, batch.err
    rows = batch.summary["suspects"]
    assert [r["supported"] for r in rows] == [True, False, False, False, False]
    for row, why in zip(rows[2:], ("unknown format", "does not exist", "is a picture, not an encoder"), strict=True):
        assert why in row["refused"]
        assert row["verdict"] is None
    notes = [line for line in batch.err.splitlines() if line.startswith("note:")]
    assert ["gone.onnx" in notes[0], "photo.png" in notes[1], len(notes)] == [True, True, 2]  # before any audit
    page = (batch.folder / "all/summary.html").read_text()
    for row in rows[:2]:
        assert (batch.folder / "all" / row["folder"] / "report.json").is_file()
        assert f'href="{row["folder"]}/report.html"' in page
    assert "<script" not in page
    assert [r["name"] for r in rows][2:] == ["notes.onnx", "gone.onnx", "photo.png"]
    assert str(batch.folder) not in page + json.dumps(batch.summary)
    assert "refused: gone.onnx: gone.onnx does not exist" in batch.out
    assert "3 of 5 suspects could not be audited" in batch.out
    assert "summary: all/summary.html" in batch.out


def test_the_command_again_audits_only_what_is_missing(run: Run, batch: Batch, copied: list[Path]) -> None:
    first, second = copied
    before, stored = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    code, out, _ = run(*batch.command, "--json")
    assert code == 0
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == stored
    assert json.loads(out) == batch.summary


def test_a_signed_report_of_something_else_is_never_written_over(run: Run, batch: Batch, copied: list[Path]) -> None:
    """That suspect is refused, the others are audited."""
    first, second = copied
    stored = second.read_bytes()
    first.write_bytes(stored)
    (first.parent / "report.html").write_bytes((second.parent / "report.html").read_bytes())
    run("keygen", "auditor.key")
    run("report", "sign", first.parent, "--signing-key", "auditor.key")
    code, out, _ = run(*batch.command, "--json")
    assert code == 2
    assert "holds a signed report" in json.loads(out)["suspects"][0]["refused"]
    assert first.read_bytes() == stored


def test_a_report_of_something_else_is_not_taken_for_it(run: Run, batch: Batch, copied: list[Path]) -> None:
    first, second = copied
    first.write_bytes(second.read_bytes())
    run(*batch.command)
    assert json.loads(first.read_bytes())["suspect"]["name"] == "surrogate_mse.onnx"


def test_what_the_command_refuses(run: Run, job: Job, tmp_path: Path) -> None:
    suspect = job.folder / "suspects/surrogate_mse.onnx"
    for options in ((suspect, "--stop-early"), (suspect,)):
        code, _, err = run("audit", suspect, *options, "--claim", job.folder / "claim")
        assert code == 2
        assert err.lower().count("error:") == 1
    code, _, err = run("audit", "gone.onnx", "lost.onnx", "--claim", job.folder / "claim", "--out", "none")
    assert code == 2
    assert "gone.onnx does not exist" in error_line(err)
    assert not (tmp_path / "none").exists()
    (tmp_path / "a.onnx").write_bytes(b"x")
    (tmp_path / "b.onnx").write_bytes(b"y")
    code, _, _ = run("audit", "a.onnx", "b.onnx", "--claim", job.folder / "claim")
    assert code == 2
