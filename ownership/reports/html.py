"""The HTML report: one self-contained page, for a lawyer to read and an expert to check."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownership.attestation import statement
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import clear_leftovers, write_bytes, write_together
from ownership.plan import STRATA
from ownership.reports import alternatives, key_text, panel_text, sentences, strength_text, twins_text
from ownership.reports.claim_text import seal_lines
from ownership.reports.figures import key_figure, test_figure
from ownership.reports.glossary import (
    EXPLAINED,
    FAMILIES,
    GLOSSARY,
    LIMITS,
    PLAN_EXPLAINED,
    SUPPORT_LEVELS,
    format_exact_p,
    format_number,
    format_p,
)
from ownership.reports.key_text import key_result, map_scores, order
from ownership.reports.preparation_text import preparation
from ownership.reports.report import Report
from ownership.verdict.results import TestResult
from ownership.verdict.strength import SCALE

if TYPE_CHECKING:
    from jinja2 import Template

    from ownership.reports.custody import Custody

SECTIONS = (
    ("verdict", "The verdict"),
    ("strength", "How strong it is"),
    ("compared", "What was compared"),
    ("evidence", "The evidence"),
    ("explanations", "Alternative explanations considered"),
    ("untested", "What was not tested"),
    ("check", "How to check and repeat this"),
    ("record", "Parameters, panel, versions"),
    ("glossary", "Glossary"),
)
"""Anchor and title of each section, in the order of the page; the template refers to them by number."""


def save_report(report: Report, folder: Path | str) -> None:
    """Write `report.json` and `report.html`. No page ever lies beside another report's numbers, even after a crash."""
    folder = Path(folder)
    for name in ("report.json", "report.html"):
        clear_leftovers(folder / name)
    page = render_html(report).encode()
    write_together({folder / "report.json": canonical_json(report.to_dict()), folder / "report.html": page})


def write_html(report: Report, path: Path | str) -> None:
    """Write the HTML report, whole or not at all."""
    path = Path(path)
    write_bytes(path, render_html(report).encode())


def render_html(report: Report, custody: Custody | None = None) -> str:
    """Return the HTML report: no scripts, no outside resources, every foreign string escaped.

    Args:
        report: The numbers.
        custody: Of a signed report; shown with the key that signed it.
    """
    report = Report.from_dict(json.loads(canonical_json(report.to_dict())))  # names in a file's order, not in memory's
    content, findings = report.to_dict(), report.findings
    counts = {kind: sum(m.kind == kind for m in findings.claim.panel) for kind in STRATA}
    return template("report.html.j2").render(
        report=report,
        findings=findings,
        claim=findings.claim,
        suspect=findings.suspect,
        preparation=preparation(findings.suspect),
        custody=custody,
        renderer=renderer(),
        content=content,
        sections=SECTIONS,
        key_summary=key_text.key_summary(report),
        key_figure="" if findings.key is None else key_figure(findings.key),
        key_result="" if findings.key is None else key_result(findings.key, rejects=content["key"]["rejects"]),
        map_scores="" if findings.key is None else map_scores(findings.key),
        key_percent=sentences.percent(findings.key_error_rate),
        order=order(report),
        twins_summary=twins_text.twins_summary(report),
        twins_result=twins_text.twins_result(findings),
        twins_order=twins_text.twins_order(report),
        twins_percent=sentences.percent(findings.plan.twins_alpha),
        exact_p=format_exact_p,
        families=_families(findings.results, content["results"]),
        say=sentences,
        reasons=sentences.reasons(report),
        agreements="" if findings.panel_strength is None else panel_text.agreements(findings.panel_strength),
        probe_notes=sentences.probe_notes(findings.probe_quality),
        alternatives=alternatives,
        strength=report.strength,
        strength_sentence=strength_text.strength(report.strength, report.verdict, panel=bool(report.claim.panel)),
        strength_arithmetic=strength_text.strength_arithmetic(report.strength),
        scale=SCALE,
        support_levels=SUPPORT_LEVELS,
        limits=LIMITS,
        kinds=[f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items() if count],
        plan_explained=PLAN_EXPLAINED,
        glossary=GLOSSARY,
        sealed=seal_lines(findings.claim.seal),
        format_p=format_p,
        number=format_number,
        percent=sentences.percent(findings.panel_error_rate),
        share=findings.share,
    )


def _families(results: Sequence[TestResult], numbers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tests by family, each with its figure."""
    rows = [
        {
            "result": r,
            "numbers": n,
            "explained": EXPLAINED.get(r.name, ""),  # a stored report may hold a statistic of another version
            "figure": test_figure(r, n["threshold"]),
        }
        for r, n in zip(results, numbers, strict=True)
    ]
    found = {family: [row for r, row in zip(results, rows, strict=True) if r.family == family] for family in FAMILIES}
    return [{"title": FAMILIES[family], "rows": rows} for family, rows in found.items() if rows]


@lru_cache(maxsize=1)
def renderer() -> str:
    """Return the name of what draws a page: equal renderers make the same bytes from the same numbers.

    It is a digest of this package and of the one module outside it whose words are on a page: those of a timestamp.
    """
    here = Path(__file__).parent
    files = (*sorted(here.glob("*.py")), *sorted(here.glob("templates/*")), Path(statement.__file__))
    sources = b"".join(path.read_bytes() for path in files)
    parts = (f"turnmark {version('turnmark')} build {sha256(sources)[:12]}", f"matplotlib {version('matplotlib')}")
    return ", ".join((*parts, f"jinja2 {version('jinja2')}", platform.machine()))


@lru_cache(maxsize=2)
def template(name: str) -> Template:
    """Return a page's template; everything that is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ownership.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
