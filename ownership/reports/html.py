"""The report as one self-contained HTML page: for a lawyer to read and an expert to check."""

from __future__ import annotations

import json
import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownership.claims.seal import seal_lines
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import clear_leftovers, write_bytes, write_together
from ownership.plan import STRATA
from ownership.reports.figures import picture
from ownership.reports.glossary import EXPLAINED, FAMILIES, GLOSSARY, PLAN_EXPLAINED, format_number
from ownership.reports.report import Report
from ownership.stats import format_p
from ownership.verdict.rule import Verdict
from ownership.verdict.strength import ENFSI, LIMITS, NO_SUPPORT

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
"""Anchor and title of each section, in the order of the page; its texts refer to them by number."""


def verdict_sentence(report: Report) -> str:
    """Returns the verdict as one plain sentence with its error rate."""
    alpha = f"{100 * report.error_rate:g} %"
    if report.verdict is Verdict.SUPPORTED:
        best = min(report.adjusted_pvalues.values())
        return (
            "The evidence supports the claim that this encoder was copied from the victim: the rule fixed in the claim "
            f"calls an independent encoder of the panel's kinds a copy in at most {alpha} of audits, if its "
            f"assumptions hold, and this one stands out at p {format_p(best)}."
        )
    if report.verdict is Verdict.NOT_SUPPORTED:
        return (
            "No evidence was found that this encoder was copied from the victim: it does not stand out from "
            f"independent encoders at the {alpha} error rate fixed in the claim. This is not proof of innocence."
        )
    return "The audit is inconclusive: " + "; ".join(report.reasons) + ". Nothing follows for or against a copy."


def save_report(report: Report, folder: Path) -> None:
    """Writes `report.json` and `report.html`: a page is never beside another report's numbers, however this ends."""
    for name in ("report.json", "report.html"):
        clear_leftovers(folder / name)
    page = render_html(report).encode()
    write_together({folder / "report.json": canonical_json(report.to_dict()), folder / "report.html": page})


def write_html(report: Report, path: Path) -> None:
    """Writes the page, whole or not at all."""
    write_bytes(path, render_html(report).encode())


def render_html(report: Report, custody: Custody | None = None) -> str:
    """Returns the page; no scripts, no outside resources, every foreign string escaped.

    Args:
        report: the numbers.
        custody: of a signed report, shown with the key it is signed with.
    """
    report = Report.from_dict(json.loads(canonical_json(report.to_dict())))  # names in a file's order, not in memory's
    content = report.to_dict()
    families: list[dict[str, Any]] = []
    for family, title in FAMILIES.items():
        rows = [
            {
                "result": r,
                "numbers": n,
                "explained": EXPLAINED.get(r.name, ""),  # a stored report may hold a statistic of another version
                "picture": picture(r, n["threshold"]),
            }
            for r, n in zip(report.results, content["results"], strict=True)
            if r.family == family
        ]
        if rows:
            families.append({"title": title, "rows": rows})
    counts = {kind: sum(m["kind"] == kind for m in report.claim["panel"]) for kind in STRATA}
    return template("report.html.j2").render(
        report=report,
        custody=custody,
        renderer=renderer(),
        content=content,
        sections=SECTIONS,
        families=families,
        sentence=verdict_sentence(report),
        strength=report.strength if "strength" in content else None,
        scale=ENFSI,
        no_support=NO_SUPPORT,
        limits=LIMITS,
        kinds=[f"{count} {kind}" for kind, count in counts.items() if count],
        plan_explained=PLAN_EXPLAINED,
        glossary=GLOSSARY,
        sealed=seal_lines(report.claim.get("seal")),
        format_p=format_p,
        number=format_number,
        percent=f"{100 * report.error_rate:g} %",
        share=report.share,
    )


@lru_cache(maxsize=1)
def renderer() -> str:
    """Returns what a page says it was rendered by: the same renderer makes the same bytes of the same numbers."""
    here = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in (*sorted(here.glob("*.py")), *sorted(here.glob("templates/*"))))
    parts = (f"turnmark {version('turnmark')} build {sha256(sources)[:12]}", f"matplotlib {version('matplotlib')}")
    return ", ".join((*parts, f"jinja2 {version('jinja2')}", platform.machine()))


@lru_cache(maxsize=2)
def template(name: str) -> Template:
    """Returns a page's template; whatever is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ownership.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
