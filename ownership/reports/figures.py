"""A test as a figure: the scores of the panel, of the reference surrogates and of the suspect, and the threshold."""

from __future__ import annotations

import io
import re
from html import escape

from ownership.reports.glossary import format_number, format_p
from ownership.verdict.results import KeyTest, TestResult

MEMBER, REFERENCE, SUSPECT, LINE = "#46535f", "#7a4f00", "#a01818", "#1b1f24"
"""Colors. Each group has its own shape, too, so that the figure can be read in black and white."""


def test_figure(result: TestResult, threshold: float) -> str:
    """Return an SVG figure with a title for screen readers: one row of points per stratum, the references, the suspect.

    The area beyond the threshold (the dashed line) is shaded. The same input gives the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows: list[tuple[str, list[float], str, str]] = [
        (f"panel: {name}", list(by_name.values()), "o", MEMBER) for name, by_name in result.members.items()
    ]
    if result.references:
        rows.append(("reference surrogates", list(result.references.values()), "^", REFERENCE))
    rows.append(("suspect", [result.value], "D", SUSPECT))
    with mpl.rc_context({"svg.hashsalt": "turnmark", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.0, 0.62 + 0.23 * len(rows)), layout="constrained")
        figure.patch.set_visible(False)
        canvas = FigureCanvasSVG(figure)
        axes = figure.subplots()
        for y, (_, values, marker, color) in enumerate(rows):
            size = 64 if marker == "D" else 34
            axes.scatter(
                values, [y] * len(values), marker=marker, s=size, facecolor=color, edgecolor="white", linewidth=0.7
            )
        low, high = axes.get_xlim()
        low, high = min(low, threshold - 0.04 * (high - low)), max(high, threshold + 0.04 * (high - low))
        axes.set_xlim(low, high)
        axes.axvspan(
            *((threshold, high) if result.alternative == "greater" else (low, threshold)), color="#f0ece2", zorder=0
        )
        axes.axvline(threshold, color=LINE, linestyle="--", linewidth=1)
        axes.annotate(
            "threshold", (threshold, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", fontsize=8, ha="center", va="bottom", color=LINE,
        )  # fmt: skip
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=9)
        axes.get_yticklabels()[-1].set_fontweight("bold")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=8, color=LINE)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color="#d0d7de", linewidth=0.6)
        axes.set_axisbelow(True)  # over the shade, under the points
        out = io.StringIO()
        canvas.print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None}
        )
    return _in_a_page(out.getvalue(), result.name, in_words(result, threshold))


def key_figure(key: KeyTest) -> str:
    """Return an SVG figure of the key test: the keys drawn anew as a histogram, and the owner's key as a line.

    Heights are logarithmic, so that a single key can be seen among a hundred thousand.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "turnmark", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.0, 1.9), layout="constrained")
        figure.patch.set_visible(False)
        canvas = FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.stairs(key.histogram, key.edges, fill=True, color=MEMBER)
        axes.set_yscale("symlog", linthresh=1)
        axes.axvline(key.statistic, color=SUSPECT, linewidth=1.6)
        axes.annotate(
            "the owner's key", (key.statistic, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", fontsize=8, ha="center", va="bottom", color=SUSPECT,
        )  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("statistic of the key test", fontsize=8)
        axes.set_ylabel("keys drawn anew", fontsize=8)
        axes.tick_params(labelsize=8, color=LINE)
        axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        canvas.print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None}
        )
    words = (
        f"Key test: statistic of the owner's key {format_number(key.statistic)}; {key.exceeding:,} of {key.decoys:,} "
        "keys drawn anew reach it"
    )
    return _in_a_page(out.getvalue(), "key-test", words)


def in_words(result: TestResult, threshold: float) -> str:
    """Return what the figure shows, in words."""
    groups = [(f"panel {name}", by_name.values()) for name, by_name in result.members.items()]
    if result.references:
        groups.append(("reference surrogates", result.references.values()))
    shown = "; ".join(f"{n} {format_number(min(v))} to {format_number(max(v))}" for n, v in groups)
    return (
        f"{result.title}: suspect {format_number(result.value)}, threshold {format_number(threshold)}, p "
        f"{format_p(result.pvalue)}; {shown}"
    )


def _in_a_page(svg: str, name: str, words: str) -> str:
    """Make an SVG fit beside others in one page: unique ids, the typeface of the page, a title for screen readers."""
    prefix = re.sub(r"[^a-z0-9]", "-", name.lower())
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg[svg.index("<svg") :])
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r'font: (\w+ )?(\d+px) [^"]*', r"font: \1\2 inherit", svg)
    head = f'<svg role="img" aria-labelledby="{prefix}-title"'
    title = f'<title id="{prefix}-title">{escape(words)}</title>'
    return re.sub(r"<svg([^>]*)>", lambda m: f"{head}{m[1]}>{title}", svg, count=1)
