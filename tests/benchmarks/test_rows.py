"""The rule gives the committed verdict of every benchmark row that holds the numbers for it."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from scipy import stats
from support.reports import report

from benchmarks.common.rows import Row, RowStore
from benchmarks.verdicts.groups import FULL_SIZE, panel_of
from benchmarks.verdicts.tables import ROWS
from ownership.evidence.statistics import STATISTICS
from ownership.plan import PRIMARY_TESTS, PRIMARY_TESTS_SMALL_OR_PUBLIC, Plan
from ownership.stats import holm
from ownership.verdict.results import TestResult


@dataclass(frozen=True, kw_only=True)
class StoredTest(TestResult):
    """A test whose results are read from a row, not computed from the members' scores, which rows do not hold."""

    __test__ = False

    stored_pvalue: float
    stored_exceeds: bool
    stored_relative_similarity: float | None

    @property
    def pvalue(self) -> float:
        return self.stored_pvalue

    @property
    def exceeds_all_controls(self) -> bool:
        return self.stored_exceeds

    @property
    def relative_similarity(self) -> float | None:
        return self.stored_relative_similarity


def stored_test(name: str, pvalue: float, exceeds: bool, strata: Sequence[str], similarity: float | None) -> StoredTest:
    statistic = STATISTICS[name]
    return StoredTest(
        name=name,
        family=statistic.family,
        title=statistic.title,
        null_hypothesis=statistic.null_hypothesis,
        alternative=statistic.alternative,
        scale=statistic.scale,
        value=0.0,
        missing_strata=tuple(s for s in statistic.required if s not in strata),
        rank_pvalue=1.0,
        members={stratum: {} for stratum in strata},
        references={},
        image_level=None,
        stored_pvalue=pvalue,
        stored_exceeds=exceeds,
        stored_relative_similarity=similarity,
    )


def primary_of(row: Row) -> tuple[str, ...]:
    return PRIMARY_TESTS if panel_of(row) == FULL_SIZE else PRIMARY_TESTS_SMALL_OR_PUBLIC


def primary_tests(row: Row) -> list[StoredTest]:
    strata = row.get("strata", ("small", "public"))
    return [
        stored_test(
            name, row[f"{name}.pvalue"], row[f"{name}.exceeds_all_controls"], strata, row["relative_similarity"]
        )
        for name in STATISTICS
        if name in primary_of(row) and row.get(f"{name}.pvalue") is not None
    ]


def verdict(tests: Sequence[TestResult], primary: Sequence[str] = PRIMARY_TESTS) -> str:
    """Apply the rule to the final analysis; rows hold neither interim analyses nor reference surrogates."""
    return report(*tests, plan=Plan(primary=tuple(primary))).verdict.value


def test_verdicts_follow_from_their_rows() -> None:
    rows = ROWS.load()
    assert len(rows) == 1467
    for row in rows:
        tests = primary_tests(row)
        assert verdict(tests, primary_of(row)) == row["verdict"], row["key"]
        assert min(holm([t.pvalue for t in tests])) == row["adjusted_pvalue"], row["key"]
        assert (row["decided_after"] is not None) == (row["verdict"] == "SUPPORTED")


def test_verdicts_of_the_main_job_follow_from_their_rows() -> None:
    """Rows hold no `exceeds_all_controls`; with five members a stratum, a test that rejects implies it.

    A member lies at most (n - 1) / sqrt(n) standard deviations from the mean of n; to reject takes more.
    """
    n, alpha = 5, Plan().final_alpha
    assert stats.t.isf(alpha, n - 1) * ((n + 1) / n) ** 0.5 > (n - 1) / n**0.5
    rows = RowStore("main_job").load()
    assert len(rows) == 98
    for row in rows:
        results: Mapping[str, Mapping[str, float]] = row["tests"]
        tests = [
            stored_test(name, results[name]["pvalue"], True, ("plain", "watermarked"), None)
            for name in STATISTICS
            if name in PRIMARY_TESTS and name in results
        ]
        assert verdict(tests) == row["verdict"], (row["suspect"], row["seed"])
        assert row["as_expected"] == ((row["role"] == "surrogate") == (row["verdict"] == "SUPPORTED"))


@pytest.mark.parametrize("question", ["retrofit", "tolerance"])
def test_rows_without_the_numbers_say_so(question: str) -> None:
    """These rows hold a verdict, but not whether the suspect exceeds all controls: the rule cannot be applied."""
    for row in RowStore(question).load():
        assert not any("exceeds" in name for name in row)


@pytest.mark.parametrize("question", ["verdicts", "main_job"])
def test_rows_are_written_in_one_way(question: str, tmp_path: Path) -> None:
    """Saving rows gives the same text, so a new measurement changes its own lines only; compressed or not."""
    committed = RowStore(question, compressed=question == "verdicts")
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        copy = RowStore(question)
        copy.path = tmp_path / name
        copy.save(committed.load())
        assert copy.load() == committed.load()
        texts = [
            gzip.decompress(b) if b[:2] == b"\x1f\x8b" else b for b in (p.path.read_bytes() for p in (copy, committed))
        ]
        assert texts[0] == texts[1]


def test_rows_are_appended_and_replaced(tmp_path: Path) -> None:
    store = RowStore("fuzz")
    store.path = tmp_path / "rows.jsonl"
    assert store.load() == []
    store.append({"seed": 0, "x": 1})
    store.append({"seed": 1, "x": 2})
    store.replace([{"seed": 0, "x": 3}], lambda row: row["seed"])
    assert store.load() == [{"seed": 1, "x": 2}, {"seed": 0, "x": 3}]
