"""The report as one self-contained HTML page: for a lawyer to read and an expert to check."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownership.errors import ReportError
from ownership.files import canonical_json, parse_json, write_bytes
from ownership.picture import picture
from ownership.plan import STRATA
from ownership.report import Report
from ownership.seal import seal_lines
from ownership.strength import ENFSI, LIMITS, NO_SUPPORT
from ownership.verdict import Verdict, format_p
from ownership.wording import EXPLAINED, FAMILIES, GLOSSARY, PLAN_EXPLAINED, format_number

if TYPE_CHECKING:
    from jinja2 import Template

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


def write_html(report: Report, path: Path) -> None:
    """Writes the page, whole or not at all."""
    write_bytes(path, render_html(report).encode())


def render_html(report: Report) -> str:
    """Returns the page; no scripts, no outside resources, every foreign string escaped."""
    # as it is read from report.json: its fields have an order there, so that a page depends on nothing but that file
    report = Report.from_dict(parse_json(canonical_json(report.to_dict()), ReportError, "report"))
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
    return _template().render(
        report=report,
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
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ownership"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
