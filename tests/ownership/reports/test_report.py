"""The verdict follows from the numbers; JSON and HTML hold them; a forged verdict is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.encoders import as_suspect, encoder
from support.reports import BAD, FAR, LOW, NEAR, against_small, changed, report, result

from ownership import audit
from ownership.claims.claim import Claim
from ownership.errors import ReportError
from ownership.plan import Plan
from ownership.reports import sentences
from ownership.reports.glossary import format_number, format_p
from ownership.reports.html import render_html, write_html
from ownership.reports.report import Report
from ownership.verdict.indiscriminate import too_many_positives
from ownership.verdict.results import Skip, SkipCode
from ownership.verdict.rule import ReasonCode, Verdict


@pytest.mark.parametrize(
    ("rsa", "watermark", "watermarked", "expected"),
    [
        (FAR, FAR, LOW, Verdict.SUPPORTED),
        (FAR, NEAR, LOW, Verdict.SUPPORTED),
        (NEAR, FAR, LOW, Verdict.SUPPORTED),
        (NEAR, NEAR, LOW, Verdict.NOT_SUPPORTED),
        (FAR, FAR, None, Verdict.SUPPORTED),
        (FAR, NEAR, None, Verdict.NOT_SUPPORTED),
        (-FAR, -FAR, LOW, Verdict.NOT_SUPPORTED),
    ],
)
def test_rule_4(rsa: float, watermark: float, watermarked: list[float] | None, expected: Verdict) -> None:
    r = report(
        result("partial_rsa_relative", rsa, LOW, watermarked),
        result("watermark_probability", watermark, LOW, watermarked),
    )
    assert r.verdict is expected


def test_a_test_with_every_stratum_counts_beside_one_that_lacks_some() -> None:
    """Members of another dimension have no watermark score: that test lacks a stratum, partial RSA does not."""
    full, lacking = result("partial_rsa_relative", FAR, LOW, LOW), result("watermark_probability", FAR, LOW, None)
    assert report(full, replace(lacking, value=NEAR)).verdict is Verdict.SUPPORTED
    assert report(replace(full, value=NEAR), lacking).verdict is Verdict.NOT_SUPPORTED


BY_CLOSENESS = Plan(
    interim_queries=(), interim_alpha_shares=(), primary=("partial_rsa", "partial_rsa_rotated", "watermark_success")
)
"""As claims of before docs/adr/0010 have it; today's name partial RSA alone."""


@pytest.mark.parametrize(
    ("value", "relative_similarity", "expected"),
    [
        (0.15, 0.0, Verdict.NOT_SUPPORTED),
        (1.65, 0.5, Verdict.NOT_SUPPORTED),  # exceeds all controls, as any encoder of that size could
        (1.92, 0.59, Verdict.NOT_SUPPORTED),
        (1.98, 0.61, Verdict.SUPPORTED),
        (3.15, 1.0, Verdict.SUPPORTED),
    ],
)
def test_small_and_public_members_ask_for_closeness(
    value: float, relative_similarity: float, expected: Verdict
) -> None:
    r = report(against_small("partial_rsa", value), plan=BY_CLOSENESS)
    assert r.results[0].relative_similarity == pytest.approx(relative_similarity)
    assert r.to_dict()["relative_similarity"] == r.results[0].relative_similarity
    assert r.verdict is expected
    assert ReasonCode.NO_FULL_SIZE_CONTROLS in {reason.code for reason in r.reasons}
    assert any("relative similarity" in reason for reason in sentences.reasons(r))
    assert Report.from_dict(json.loads(json.dumps(r.to_dict()))) == r


def test_closeness_is_partial_rsas_alone_and_needs_references() -> None:
    """Two families do not help: against such a panel independent encoders may exceed all controls in both."""
    far = against_small("partial_rsa_rotated", 9.0), against_small("watermark_success", 9.0)
    assert report(*far, against_small("partial_rsa", 1.0), plan=BY_CLOSENESS).verdict is Verdict.NOT_SUPPORTED
    assert report(*far, plan=BY_CLOSENESS).verdict is Verdict.INCONCLUSIVE
    for references in ((), (0.1,)):
        without = report(against_small("partial_rsa", 9.0, references), plan=BY_CLOSENESS)
        assert without.results[0].relative_similarity is None
        assert without.verdict is Verdict.INCONCLUSIVE
    # the nearer stratum of "less" is the lower one, of mean -1
    less = replace(against_small("partial_rsa", -2.25, (-3.5,)), alternative="less")
    assert less.relative_similarity == pytest.approx(0.5)


def test_closeness_is_measured_from_small_and_public_members() -> None:
    """Siblings of the victim are closer to it; they have their own stratum and do not move the bar."""
    test = against_small("partial_rsa", 2.1)
    from_checkpoint = replace(test, members={**test.members, "sibling": {f"k{i}": x + 1 for i, x in enumerate(LOW)}})
    assert from_checkpoint.relative_similarity == test.relative_similarity
    assert report(from_checkpoint, plan=BY_CLOSENESS).verdict is Verdict.SUPPORTED
    assert report(
        replace(from_checkpoint, members={**from_checkpoint.members, "sibling": {"a": 1.0, "b": 2.0}}),
        plan=BY_CLOSENESS,
    ).verdict is not (Verdict.SUPPORTED)
    assert result("partial_rsa", FAR, LOW, LOW).relative_similarity is None


def test_the_largest_p_over_strata_counts() -> None:
    high = [3.0, 4.0, 5.0, 3.5, 4.5]
    r = report(result("partial_rsa_relative", FAR, LOW, high))
    assert r.results[0].decisive_stratum == "watermarked"
    assert r.verdict is Verdict.NOT_SUPPORTED


def test_a_rejection_below_one_member_does_not_support() -> None:
    crowd = [*LOW * 6, FAR + 0.1]
    r = report(result("partial_rsa_relative", FAR, crowd, crowd))
    assert r.adjusted_pvalues["partial_rsa_relative"] < 0.01
    assert not r.results[0].exceeds_all_controls
    assert r.verdict is Verdict.NOT_SUPPORTED


def test_holm_over_those_that_ran() -> None:
    """p about 0.008 rejects alone, not beside a second test."""
    value = 0.15 + 0.1118 * (6 / 5) ** 0.5 * 3.9  # t close to 3.9, df 4: p about 0.0088
    one = result("partial_rsa_relative", value, LOW, LOW)
    assert 0.005 < one.pvalue < 0.01
    assert report(one).verdict is Verdict.SUPPORTED
    assert report(one, result("watermark_probability", NEAR, LOW, LOW)).verdict is Verdict.NOT_SUPPORTED


def test_no_test_is_never_positive() -> None:
    r = report(skipped={"partial_rsa_relative": Skip(code=SkipCode.NOT_APPLICABLE, detail="why")})
    assert r.verdict is Verdict.INCONCLUSIVE
    assert r.reasons[0].code is ReasonCode.NO_PRIMARY_TEST
    assert "why" in sentences.reasons(r)[0]
    assert report(result("cka", FAR, LOW, LOW)).verdict is Verdict.INCONCLUSIVE  # shown-only tests do not decide
    assert report(result("partial_rsa_relative", FAR, LOW, LOW), problems=(BAD,)).verdict is Verdict.INCONCLUSIVE


def test_a_powerless_claim() -> None:
    near = result("partial_rsa_relative", NEAR, LOW, LOW, references=(0.2, 0.3))
    assert report(near).verdict is Verdict.INCONCLUSIVE
    assert report(result("partial_rsa_relative", FAR, LOW, LOW, references=(0.2,))).verdict is Verdict.SUPPORTED


def test_threshold_is_where_the_rejection_begins() -> None:
    edge = result("partial_rsa_relative", FAR, LOW, LOW).threshold(0.01)
    below, above = (result("partial_rsa_relative", edge + d, LOW, LOW) for d in (-1e-6, 1e-6))
    assert report(below).verdict is Verdict.NOT_SUPPORTED
    assert report(above).verdict is Verdict.SUPPORTED


@pytest.fixture
def real(claim: Claim) -> Report:
    found = as_suspect(encoder(77), "<b>x</b>.onnx", digest="ab" * 32)
    return audit(claim, found)


def test_round_trip(real: Report, tmp_path: Path) -> None:
    real.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == real
    stored = json.loads((tmp_path / "report.json").read_bytes())
    assert stored["schema_version"] == 1
    shuffled = json.loads((tmp_path / "report.json").read_bytes(), object_pairs_hook=lambda p: dict(reversed(p)))
    assert Report.from_dict(shuffled).to_dict() == real.to_dict()
    assert stored["verdict"] == real.verdict.value


def test_a_report_with_a_statistic_of_another_version_is_shown(real: Report) -> None:
    other = changed(real, results=(*real.results, replace(real.results[-1], name="partial_rsa_standardised")))
    again = Report.from_dict(json.loads(json.dumps(other.to_dict())))
    assert again == other
    title = real.results[-1].title
    assert render_html(again).count(title) > render_html(real).count(title) > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(verdict="SUPPORTED"),
        lambda d: d["results"][0].update(value=0.99),
        lambda d: d["results"][0].update(pvalue=0.5),
        lambda d: d["plan"].update(alpha=0.05),
        lambda d: d.update(schema_version=7),
        lambda d: d.pop("results"),
        lambda d: d["results"][0].pop("strata"),
        lambda d: d["results"][0].update(scale="made up"),
    ],
)
def test_a_forged_report_is_refused(real: Report, change: Any) -> None:
    d = json.loads(json.dumps(real.to_dict()))
    change(d)
    with pytest.raises(ReportError):
        Report.from_dict(d)


def test_other_last_digits_are_read(real: Report) -> None:
    """Another version of SciPy may give another last digit of what follows from the values; nothing else may differ."""
    d = json.loads(json.dumps(real.to_dict()))
    test = d["results"][0]
    for nudge, good in ((1e-13, True), (1e-6, False)):
        changed = {
            **test,
            "threshold": test["threshold"] * (1 + nudge),
            "effect_size": test["effect_size"] * (1 + nudge),
        }
        assert changed != test
        stored = {**d, "results": [changed, *d["results"][1:]]}
        if good:
            assert Report.from_dict(stored) == real
        else:
            with pytest.raises(ReportError, match="does not follow"):
                Report.from_dict(stored)


class _Page(HTMLParser):
    VOID = ("meta", "br", "link", "path", "use", "rect", "image")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.outside.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_self_contained_escaped_and_complete(real: Report, tmp_path: Path) -> None:
    write_html(real, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(html)
    assert not page.open
    assert not page.outside
    assert "<script" not in html
    assert "<b>x</b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    text = " ".join(page.text)
    for expected in (
        "NOT SUPPORTED", "does not prove that the encoder is independent", real.claim.sha256 or "not saved", "ab" * 32,
        "turnmark report reproduce REPORT", "image-level", "Repeat the audit", "torch", f"seed {real.plan.seed}",
    ):  # fmt: skip
        assert expected in text
    assert html.count("<svg") == len(real.results)
    assert render_html(real) == html  # deterministic, pictures too


def test_every_number_of_the_page_is_in_the_json(real: Report) -> None:
    """Numbers printed in the tables are roundings of numbers in report.json."""
    page = _Page()
    html = render_html(real)
    page.feed(re.sub(r"<svg.*?</svg>", "", html, flags=re.S))
    known: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, list):
            for v in value:
                walk(v)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            known.update({format_number(float(value)), format_p(float(value)), str(value)})

    walk(real.to_dict())
    cells = re.findall(r'<td class="n">(.*?)</td>', html)
    assert len(cells) > 100
    for cell in cells:
        for number in re.findall(r"-?\d*\.?\d+(?:e-?\d+)?", cell):
            assert number in known or f"< {number}" in known, cell


def test_p_is_never_printed_below_a_thousandth() -> None:
    assert format_p(1e-12) == "< 0.001"
    assert format_p(1.0) == "1.00"
    assert format_p(0.0999) == "0.100"


@pytest.mark.parametrize(("hits", "n", "too_many"), [(0, 20, False), (1, 20, False), (2, 20, True), (1, 5, True)])
def test_too_many_positives_by_summing_the_binomial(hits: int, n: int, too_many: bool) -> None:
    tail = sum(math.comb(n, k) * 0.01**k * 0.99 ** (n - k) for k in range(hits, n + 1))
    assert too_many_positives(hits, n, 0.01) is too_many is (tail < 0.05)
