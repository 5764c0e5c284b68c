"""The page as a document: order, contrast, headings, tables, pictures, print."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from support.encoders import as_suspect, encoder
from support.reports import changed

import ownership
from ownership import audit
from ownership.claims.claim import Claim
from ownership.io.records import to_json
from ownership.plan import Plan
from ownership.reports import strength_text
from ownership.reports.figures import LINE, MEMBER, REFERENCE, SUSPECT
from ownership.reports.glossary import EXPLAINED, GLOSSARY, PLAN_EXPLAINED
from ownership.reports.html import SECTIONS, render_html
from ownership.reports.report import Report
from ownership.verdict.records import AuditOptions

CSS = (Path(ownership.__file__).parent / "reports/templates/report.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found(claim: Claim) -> Report:
    made = audit(claim, as_suspect(encoder(77), "x.onnx", digest="ab" * 32), AuditOptions(paper_tests=True))
    return changed(made, suspect=replace(made.suspect, files={"x.onnx": "ab" * 32}, sandbox={"landlock": "on"}))


@pytest.fixture(scope="module")
def page(found: Report) -> str:
    return render_html(found)


class _Tags(HTMLParser):
    """The start tags of a page, in order, and what text follows each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags:
            tag, attrs, text = self.tags[-1]
            self.tags[-1] = (tag, attrs, text + data)


# contrast


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    lighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def colours() -> dict[str, tuple[str, str]]:
    """Rule of the stylesheet that sets either -> colour of its text, colour of its ground."""
    named = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", CSS))

    def of(name: str, body: str, default: str) -> str:
        set_to = re.search(rf"(?<![\w-]){name}: ?(?:var\(--([\w-]+)\)|(#[0-9a-f]{{6}}))", body)
        return default if set_to is None else named.get(set_to[1], set_to[2])

    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", CSS)
    return {
        selector.strip(): (of("color", body, named["ink"]), of("background", body, named["paper"]))
        for selector, body in rules
        if re.search(r"(?<![\w-])(color|background):", body)
    }


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_has_the_contrast_of_wcag_aa() -> None:
    pairs = colours()
    assert len(pairs) >= 9
    assert pairs[".badge.primary"] == ("#ffffff", "#1b1f24")
    for rule, (text, ground) in pairs.items():
        assert contrast(text, ground) >= 4.5, rule


def test_what_is_drawn_has_the_contrast_of_wcag_aa() -> None:
    """Marks and borders of meaning: 3 to 1 on paper, and on the shaded ground of a picture."""
    borders = [c for name, c in re.findall(r"--([\w-]+): (#[0-9a-f]{6})", CSS) if name.endswith(("supported", "sive"))]
    assert len(borders) == 3
    for colour in (*borders, MEMBER, REFERENCE, SUSPECT, LINE):
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, "#f0ece2") >= 3


# structure


def test_the_order_is_that_of_a_report(page: str) -> None:
    at = [page.index(f'<h2 id="{anchor}">{i + 1}. {title}') for i, (anchor, title) in enumerate(SECTIONS)]
    assert at == sorted(at)
    assert page.index('class="verdict') < at[1]
    for anchor, _ in SECTIONS:
        assert f'href="#{anchor}"' in page


def test_headings_have_no_gaps(page: str) -> None:
    levels = [int(tag[1]) for tag, *_ in _Tags(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_tables_say_what_their_cells_are_of(page: str) -> None:
    tables = re.findall(r"<table.*?</table>", page, flags=re.S)
    assert len(tables) > 8
    for table in tables:
        assert "<caption>" in table or 'class="meta' in table
        cells = [(tag, attrs) for tag, attrs, _ in _Tags(table).tags if tag == "th"]
        assert cells
        assert all(attrs.get("scope") in ("col", "row") for _, attrs in cells)


def test_every_picture_has_a_title_of_its_own(page: str, found: Report) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(pictures) == len(found.results)
    by_title = {r.title: r for r in found.results}
    for svg in pictures:
        tags = _Tags(svg).tags
        (_, attrs, _), (title, title_attrs, text) = tags[0], tags[1]
        assert (attrs["role"], title) == ("img", "title")
        assert attrs["aria-labelledby"] == title_attrs["id"]
        assert by_title.pop(text.split(": suspect")[0])
        assert "threshold" in text
        assert "reference surrogates" in text
    ids = [attrs["id"] for _, attrs, _ in _Tags(page).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="|url\()#([\w-]+)', page)
    assert set(used) <= set(ids)


def test_the_page_needs_nothing_else(page: str) -> None:
    assert '<html lang="en">' in page
    for outside in ("<script", "<link", "<iframe", "@import", "http://www.w3.org/1999/xhtml", "src="):
        assert outside not in page
    assert not re.search(r"url\((?!#)", page)
    assert not re.search(r"\son\w+=", page)


def test_the_page_of_a_stored_report_is_that_of_the_audit(page: str, found: Report, tmp_path: Path) -> None:
    found.save(tmp_path / "report.json")
    assert render_html(Report.load(tmp_path / "report.json")) == page


def test_print_rules() -> None:
    assert re.search(r"@page \{ margin: [^;]+;", CSS)
    assert "counter(page)" in CSS
    assert "size:" not in CSS.split("@page")[1].split("@media")[0]  # A4 and Letter alike
    printed = CSS.split("@media print")[1]
    for rule in (r"tr, figure,[^{]*\{ break-inside: avoid", r"h2, h3, h4[^{]*\{ break-after: avoid"):
        assert re.search(rule, printed)


def test_parameters_versions_layers_and_words_are_all_there(page: str, found: Report) -> None:
    text = " ".join(t for _, _, t in _Tags(re.sub(r"<svg.*?</svg>", "", page, flags=re.S)).tags)
    for name in found.plan.to_dict():
        assert PLAN_EXPLAINED[name] in text
    assert set(PLAN_EXPLAINED) == set(Plan(rotated_directions=64).to_dict())  # left out where it is `rsa_directions`
    assert set(EXPLAINED) >= {r.name for r in found.results}
    for version in found.versions.values():
        assert version in text
    for term in GLOSSARY:
        assert term in text
    said = text.lower()
    for expected in ("landlock", "prosecutor's fallacy", "moderately strong support", "normal tail", "chance"):
        assert expected in said
    assert all(m.sha256 in text for m in found.claim.panel)


def test_the_strength_on_the_page_is_that_of_the_json(page: str, found: Report) -> None:
    stored = json.loads(json.dumps(found.to_dict()))["strength"]
    assert stored == to_json(found.strength)
    said = strength_text.strength(found.strength, found.verdict, panel=bool(found.claim.panel))
    assert said.replace("'", "&#39;") in page
    assert f"{stored['references']} reference surrogates get this verdict" in page
    assert f"at most {stored['probability']:.3g}" in page


def test_an_audit_that_tested_nothing_has_a_page(claim: Claim) -> None:
    import torch

    nothing = audit(claim, as_suspect(lambda x: torch.zeros(len(x), 4), "n"))
    page = render_html(nothing)
    assert "No test was made" in page
    assert "No strength is stated" in page
    levels = [int(tag[1]) for tag, *_ in _Tags(page).tags if re.fullmatch("h[1-6]", tag)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
