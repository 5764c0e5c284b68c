"""What the rows of an evaluation say: rates with intervals, ROC curves, a picture and a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ownership.io.files import write_bytes
from ownership.plan import PRIMARY_TESTS

Row = dict[str, Any]

EVIDENCE = ("combined", *PRIMARY_TESTS, "partial_rsa", "cka", "inference_gmm")
"""Drawn as ROC curves: the smallest Holm-adjusted p of the deciding tests, and single statistics."""

LINES = tuple((dash, colour) for colour in ("black", "#999999") for dash in ("-", "--", "-.", ":"))
"""Dash and colour of each; those that decide against a panel of the victim's like are black."""

UNKNOWN = -1.0
"""How guilty an audit looks by evidence that could not be computed: as little as can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many of some audits ended SUPPORTED."""

    name: str
    found: int
    n: int

    @property
    def share(self) -> float:
        """Found / n; nan of nothing."""
        return self.found / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval (Clopper and Pearson); it takes audits as independent, which those of one claim are not."""
        if not self.n:
            return 0.0, 1.0
        interval = stats.binomtest(self.found, self.n).proportion_ci(method="exact")
        return float(interval.low), float(interval.high)


def rates(rows: Iterable[Row], by: Callable[[Row], str]) -> list[Rate]:
    """Returns the rate of SUPPORTED of each group, in order of first appearance."""
    groups: dict[str, list[bool]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row["verdict"] == "SUPPORTED")
    return [Rate(name=name, found=sum(hits), n=len(hits)) for name, hits in groups.items()]


def bootstrap_over(
    rows: Sequence[Row], cluster: str, *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Returns an interval of the rate of SUPPORTED that draws whole clusters anew.

    Unit: the cluster (one claim): audits of one claim share its victim and its panel. With few clusters, and with no
    hit at all, the interval is too short; the exact binomial bound beside it says what no hit can mean.

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


def scores(rows: Iterable[Row], evidence: str) -> NDArray[np.float64]:
    """Returns how guilty each audit looks by one evidence: minus its p-value; UNKNOWN where there is none."""
    column = "adjusted_pvalue" if evidence == "combined" else f"{evidence}.pvalue"
    return np.array([UNKNOWN if row.get(column) is None else -float(row[column]) for row in rows])


def roc(guilty: NDArray[np.float64], innocent: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns false and true positive rates over all thresholds, both ascending from 0 to 1."""
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([guilty, innocent]))[::-1]])
    false = (innocent[None, :] >= thresholds[:, None]).mean(1)
    true = (guilty[None, :] >= thresholds[:, None]).mean(1)
    return false, true


def tpr_at_fpr(guilty: NDArray[np.float64], innocent: NDArray[np.float64], rate: float) -> float:
    """Returns the largest true positive rate at a false positive rate of at most `rate`."""
    false, true = roc(guilty, innocent)
    return float(true[false <= rate].max())


def draw_roc(rows: Sequence[Row]) -> bytes:
    """Returns a PNG: ROC curves by evidence and combined, the rates of false accusations on a log scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    guilty = [row for row in rows if row["role"] == "surrogate"]
    innocent = [row for row in rows if row["role"] == "independent"]
    figure = Figure(figsize=(6, 4.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    floor = 0.5 / max(1, len(innocent))
    for (dash, colour), name in zip(LINES, EVIDENCE, strict=False):
        if not (scores(rows, name) > UNKNOWN).any():
            continue
        false, true = roc(scores(guilty, name), scores(innocent, name))
        at = tpr_at_fpr(scores(guilty, name), scores(innocent, name), 0.01)
        label = f"{name.replace('_', ' ')}: {at:.2f} at 1 %"
        axes.step(np.maximum(false, floor), true, where="post", linestyle=dash, color=colour, label=label)
    axes.set(xscale="log", xlabel="false accusations", ylabel="thefts found", ylim=(0, 1.02), xlim=(floor, 1))
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    axes.grid(color="#dddddd", linewidth=0.6)
    out = io.BytesIO()
    canvas.print_png(out)  # type: ignore[no-untyped-call]
    return out.getvalue()


def write_summary(rows: Sequence[Row], out: Path, title: str) -> None:
    """Writes `roc.png` and `summary.html` beside the table.

    Args:
        rows: of `evaluate`.
        out: folder.
        title: what was evaluated.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    guilty = [row for row in rows if row["role"] == "surrogate"]
    innocent = [row for row in rows if row["role"] == "independent"]
    picture = draw_roc(rows) if guilty and innocent else None
    if picture is not None:
        write_bytes(out / "roc.png", picture)
    environment = Environment(
        loader=PackageLoader("attacks_for_eval"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("evaluation.html.j2").render(
        title=title,
        rows=rows,
        picture=None if picture is None else base64.b64encode(picture).decode(),
        tables=[
            ("False accusations, by kind of independent encoder", rates(innocent, lambda r: str(r["kind"]))),
            ("Thefts found, by kind", rates(guilty, lambda r: str(r["kind"]))),
            ("Thefts found, by loss", rates(guilty, lambda r: str(r["loss"]))),
            ("Thefts found, by queries", rates(guilty, lambda r: f"{r['images']:,}")),
            ("Thefts found, by laundering of answers", rates(guilty, lambda r: str(r["output"] or "none"))),
        ],
        whole=[rates(innocent, lambda _: "independents"), rates(guilty, lambda _: "surrogates")],
    )
    write_bytes(out / "summary.html", page.encode())
