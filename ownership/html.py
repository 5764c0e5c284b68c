"""The report as one self-contained HTML page: for a lawyer to read and an expert to check."""

from __future__ import annotations

import io
import json
import math
import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownership.files import canonical_json, clear_leftovers, sha256, write_bytes, write_together
from ownership.plan import REQUIRED_STRATA
from ownership.report import Report
from ownership.results import TestResult
from ownership.seal import seal_lines
from ownership.verdict import Verdict, format_p

if TYPE_CHECKING:
    from jinja2 import Template

    from ownership.custody import Custody

FAMILIES = {
    "distance": "Representation distance",
    "watermark": "Watermark",
    "inference": "Dataset inference",
}

EXPLAINED = {
    "partial_rsa": "Does the suspect share the pattern of similarities between images that is peculiar to the victim, "
    "beyond what independent encoders share? 0 is no relation, 1 a copy. A change of basis, scale or dimension of "
    "the output does not affect it.",
    "partial_rsa_relative": "The suspect is compared in the same way with every panel member, too: by how many "
    "standard deviations does its likeness to the victim exceed its likeness to them? An encoder that resembles "
    "everybody, or that copies badly, is so measured by its own yardstick.",
    "partial_rsa_turned": "The same between the victim's answers to upright images and the suspect's mean answers to "
    "turned copies of them. A thief who trains a surrogate to answer alike however an image is turned gives it away.",
    "watermark_success": "The owner trained the victim so that a secret predictor can tell, from a representation, "
    "into which secret part of the circle an image was rotated. This is how often that predictor is right on the "
    "suspect. Guessing gives 50 %.",
    "watermark_aligned": "The same after a linear map from the suspect's representations to the victim's. Strangers "
    "with any sense of orientation score high here too; only the comparison with the panel means anything.",
    "cka": "A standard similarity of representations, 0 to 1. Independent encoders of one kind of images are alike "
    "too, which is why it only informs.",
    "l2_distance": "Mean distance between the two representations of an image (the paper's Table 18). Any "
    "permutation of the output defeats it.",
    "inference_gmm": "Whether the victim's private images look more likely than public ones to a mixture model of the "
    "suspect's representations of other private images, in standard deviations.",
    "inference_loss": "Whether two views of a private image lie closer together than those of a public image, through "
    "the victim's projection head (the paper, section 5.4), in standard deviations.",
    "inference_augmentation": "Whether a private image moves less under augmentation than a public one (the paper, "
    "Table 19), in standard deviations.",
}


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


def innocent_explanations(report: Report) -> list[tuple[str, str]]:
    """Returns the innocent explanations considered, each with what the panel says about it."""
    panel = report.claim["panel"]
    on_private = sum(m["trained_on_private"] is True for m in panel)
    peers = any(m["kind"] in REQUIRED_STRATA for m in panel)
    rows = []
    for kind, text in (
        ("plain", "An ordinary encoder, trained independently"),
        ("marked", "An encoder watermarked by somebody else"),
        ("ancestor", "A sibling: grown from the same public checkpoint as the victim"),
        ("invariant", "An encoder trained to answer alike however an image is turned"),
        ("small", "An encoder of less capacity and training than the victim"),
        ("public", "An encoder published by others"),
    ):
        count = sum(m["kind"] == kind for m in panel)
        if count:
            rows.append((text, f"represented by {count} panel members"))
        elif kind in REQUIRED_STRATA:
            more = "two tests must agree" if peers else "the suspect must come close to the owner's own copies"
            rows.append((text, f"NOT represented in the panel: not excluded; {more}"))
        elif kind == "invariant":
            rows.append((text, "not represented in the panel: the test on turned images cannot decide alone"))
        elif kind == "ancestor":
            rows.append((text, "not represented in the panel: not excluded if the victim has a public ancestor"))
    rows.append(
        (
            "An independent encoder trained on the same images as the victim",
            f"represented by {on_private} panel members"
            if on_private
            else "not represented in the panel: not excluded",
        )
    )
    return rows


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
    return template("report.html.j2").render(
        report=report,
        custody=custody,
        renderer=renderer(),
        content=content,
        families=families,
        sentence=verdict_sentence(report),
        explanations=innocent_explanations(report),
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


def format_number(x: float | None) -> str:
    """Returns a number with three significant digits, or a dash.

    >>> format_number(0.123456), format_number(12345.6), format_number(None)
    ('0.123', '12346', '–')
    """
    if x is None or not math.isfinite(x):
        return "–"
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.3g}"


@lru_cache(maxsize=2)
def template(name: str) -> Template:
    """Returns a page's template; whatever is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ownership"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def picture(result: TestResult, threshold: float) -> str:
    """Returns an SVG: panel members as points, a row a stratum, references, the suspect as a mark, the threshold.

    Shapes differ as well as colours, so that it reads in black and white.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows: list[tuple[str, list[float], str, str]] = [
        (f"panel: {name}", list(by_name.values()), "o", "#4a5a6a") for name, by_name in result.members.items()
    ]
    if result.references:
        rows.append(("reference surrogates", list(result.references.values()), "^", "#8a5a00"))
    rows.append(("suspect", [result.value], "D", "#a01818"))
    with mpl.rc_context({"svg.hashsalt": "turnmark", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.6, 0.75 + 0.28 * len(rows)), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.subplots()
        for y, (_, values, marker, colour) in enumerate(rows):
            size = 60 if marker == "D" else 36
            axes.scatter(values, [y] * len(values), marker=marker, s=size, facecolor=colour, edgecolor="white")
        axes.axvline(threshold, color="#222222", linestyle="--", linewidth=1)
        axes.annotate(
            "threshold",
            (threshold, -0.62),
            fontsize=8,
            ha="center",
            va="bottom",
            annotation_clip=False,
            color="#222222",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.7)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        out = io.StringIO()
        canvas.print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None}
        )
    svg = out.getvalue()
    return svg[svg.index("<svg") :]
