"""Summary of an evaluation's rows: rates with intervals, ROC curves, a figure and an HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownership.io.files import write_bytes
from ownership.plan import PRIMARY_TESTS
from ownership.stats import binomial_interval

Row = dict[str, Any]
Scores = NDArray[np.float64]

EVIDENCE = ("combined", *PRIMARY_TESTS, "partial_rsa", "cka", "inference_gmm")
"""Statistics drawn as ROC curves; combined: the smallest Holm-adjusted p-value of the primary tests."""

LINES = tuple((dash, color) for color in ("black", "#999999") for dash in ("-", "--", "-.", ":"))
"""Dash and color of each curve; primary tests against a panel of the victim's architecture are black."""

NOT_COMPUTED = -1.0
"""Score of an audit whose statistic could not be computed: the lowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many audits of a group ended SUPPORTED."""

    name: str
    found: int
    n: int

    @property
    def share(self) -> float:
        """Found / n; nan if n is 0."""
        return self.found / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval (Clopper and Pearson); it assumes independent audits, which those of one claim are not."""
        if not self.n:
            return 0.0, 1.0
        return binomial_interval(self.found, self.n)


def rates(rows: Iterable[Row], by: Callable[[Row], str]) -> list[Rate]:
    """Return the rate of SUPPORTED of each group, in order of first appearance."""
    groups: dict[str, list[bool]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row["verdict"] == "SUPPORTED")
    return [Rate(name=name, found=sum(hits), n=len(hits)) for name, hits in groups.items()]


def bootstrap_over(
    rows: Sequence[Row], cluster: str, *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return a cluster bootstrap interval of the rate of SUPPORTED.

    The unit is the cluster (one claim), because audits of one claim share its victim and its panel. With few clusters,
    or without any SUPPORTED, the interval is too short: give the exact binomial interval beside it.

    Args:
        rows: audits.
        cluster: column that names the cluster.
        draws: bootstrap samples.
        seed: of the draws.
        level: of the interval.
    """
    groups: dict[str, list[bool]] = {}
    for row in rows:
        groups.setdefault(str(row[cluster]), []).append(row["verdict"] == "SUPPORTED")
    hits = np.array([sum(g) for g in groups.values()], dtype=np.float64)
    sizes = np.array([len(g) for g in groups.values()], dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(hits), size=(draws, len(hits)))
    shares = hits[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def scores(rows: Iterable[Row], evidence: str) -> Scores:
    """Return each audit's score by one statistic: minus its p-value; NOT_COMPUTED where there is none."""
    column = "adjusted_pvalue" if evidence == "combined" else f"{evidence}.pvalue"
    return np.array([NOT_COMPUTED if row.get(column) is None else -float(row[column]) for row in rows])


def roc(positives: Scores, negatives: Scores) -> tuple[Scores, Scores]:
    """Return false and true positive rates over all thresholds, both ascending from 0 to 1."""
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([positives, negatives]))[::-1]])
    false = (negatives[None, :] >= thresholds[:, None]).mean(1)
    true = (positives[None, :] >= thresholds[:, None]).mean(1)
    return false, true


def tpr_at_fpr(positives: Scores, negatives: Scores, rate: float) -> float:
    """Return the largest true positive rate at a false positive rate of at most `rate`."""
    false, true = roc(positives, negatives)
    return float(true[false <= rate].max())


def draw_roc(rows: Sequence[Row]) -> bytes:
    """Return a PNG of ROC curves, single statistics and combined, with the false positive rate on a log scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    surrogates = [row for row in rows if row["role"] == "surrogate"]
    independents = [row for row in rows if row["role"] == "independent"]
    figure = Figure(figsize=(6, 4.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    floor = 0.5 / max(1, len(independents))
    for (dash, color), name in zip(LINES, EVIDENCE, strict=False):
        if not (scores(rows, name) > NOT_COMPUTED).any():
            continue
        false, true = roc(scores(surrogates, name), scores(independents, name))
        at = tpr_at_fpr(scores(surrogates, name), scores(independents, name), 0.01)
        label = f"{name.replace('_', ' ')}: {at:.2f} at 1 %"
        axes.step(np.maximum(false, floor), true, where="post", linestyle=dash, color=color, label=label)
    axes.set(xscale="log", xlabel="false positive rate", ylabel="true positive rate", ylim=(0, 1.02), xlim=(floor, 1))
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    axes.grid(color="#dddddd", linewidth=0.6)
    out = io.BytesIO()
    canvas.print_png(out)  # type: ignore[no-untyped-call]
    return out.getvalue()


def write_summary(rows: Sequence[Row], out: Path | str, title: str) -> None:
    """Write `roc.png` and `summary.html` beside the table.

    Args:
        rows: of `evaluate`.
        out: folder.
        title: what was evaluated.
    """
    out = Path(out)
    from jinja2 import Environment, PackageLoader, StrictUndefined

    surrogates = [row for row in rows if row["role"] == "surrogate"]
    independents = [row for row in rows if row["role"] == "independent"]
    figure = draw_roc(rows) if surrogates and independents else None
    if figure is not None:
        write_bytes(out / "roc.png", figure)
    environment = Environment(
        loader=PackageLoader("attacks_for_eval"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("evaluation.html.j2").render(
        title=title,
        rows=rows,
        figure=None if figure is None else base64.b64encode(figure).decode(),
        tables=[
            ("False positives, by kind of independent encoder", rates(independents, lambda r: str(r["kind"]))),
            ("Detected surrogates, by kind", rates(surrogates, lambda r: str(r["kind"]))),
            ("Detected surrogates, by loss", rates(surrogates, lambda r: str(r["loss"]))),
            ("Detected surrogates, by queries", rates(surrogates, lambda r: f"{r['images']:,}")),
            (
                "Detected surrogates, by output transform",
                rates(surrogates, lambda r: str(r["output_transform"] or "none")),
            ),
        ],
        whole=[rates(independents, lambda _: "independent encoders"), rates(surrogates, lambda _: "surrogates")],
    )
    write_bytes(out / "summary.html", page.encode())
