"""The paper's tables 1 to 4, 6 to 18 and Figure 2, regenerated cell by cell beside the paper's numbers.

    TURNMARK_DATA=runs/data python benchmarks/paper/run.py --scale cpu --work runs/paper   # all; resumes anywhere
    python benchmarks/paper/run.py --scale cpu --tables 1 2 --work runs/paper
    python benchmarks/paper/run.py --scale cpu --part 1/2 --work runs/paper                # and 2/2 beside it
    python benchmarks/paper/run.py --print                 # committed cells as Markdown, and Figure 2; runs nothing

Data sets come from `$TURNMARK_DATA` (see `benchmarks/pack.py`). Scale "cpu" is a 77 k parameter victim on 20,000
CIFAR-10 images with the paper's public half-turn mark; "paper" is ResNet-18 on CIFAR-10 (a GPU); "original" the same
with SVHN and STL-10 in place of the substitutes. One line of
`benchmarks/results/paper.jsonl` is one cell, keyed by the hash of its specification; see `cells.py` and `tables.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from cells import SCALES, Cell
from tables import Table, tables

RESULTS = Path(__file__).parents[1] / "results" / "paper.jsonl"
FIGURE = Path(__file__).parents[2] / "docs" / "figure-2.png"


def stored() -> dict[str, dict[str, Any]]:
    """Key -> committed cell."""
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def run(scale: str, wanted: list[str] | None, work: Path, device: str, part: tuple[int, int]) -> None:
    """Measures the cells that are not stored yet."""
    from measure import MEASURES, Bench

    from ownership.auditing.engine import versions

    bench, cells = Bench(SCALES[scale], work / scale, device), {}
    for name, table in tables(scale).items():
        if wanted is None or name in wanted:
            cells |= {cell.key(scale): cell for _, _, cell in table.rows}
    mine, of = part
    for i, (key, cell) in enumerate(cells.items()):
        if i % of != mine - 1 or key in stored():
            continue
        measured = bench.measure(MEASURES[cell.method], cell)
        record = {"key": key, "scale": scale, "cell": asdict(cell), "measured": measured, "versions": versions()}
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as f:
            f.write(json.dumps(record, sort_keys=True) + "\n")
        print(
            f"{i + 1}/{len(cells)} {cell.method} {cell.victim} {cell.source} {cell.theft} {cell.box}: {measured}",
            flush=True,
        )


def percent(x: float) -> str:
    """A share as the tables print it."""
    return f"{100 * x:.1f}"


def show(column: str, m: dict[str, Any], scale: str) -> str:
    """One number of a cell, as text."""
    column = SCALES[scale]["tasks"].get(column, column)
    if column in m.get("accuracy", {}):
        return percent(m["accuracy"][column]["accuracy"])
    if column == "rates":
        pairs = [f"{percent(r['false_positive'][0])}, {percent(r['false_negative'][0])}" for r in m["rates"]]
        return "; ".join(pairs)
    if column not in m:
        return "–"
    if column == "queries":
        return f"{m['queries']:,} ({m['unique_images']:,})"
    if column == "flagged":
        return f"{percent(m['flagged']['legitimate'])}, {percent(m['flagged']['adversary'])}"
    if column == "l2":
        return f"{m['l2']:.2f}"
    return percent(m[column]) if isinstance(m[column], float) else str(m[column])


HEADINGS = {
    "watermark": "watermark success",
    "queries": "answers bought (images)",
    "flagged": "queries flagged: legitimate, adversary",
    "legitimate": "legitimate user, cifar10",
    "rates": "false positives, false negatives",
}


def print_tables(scale: str) -> None:
    """Prints committed cells as Markdown, the paper's numbers beside ours."""
    done = stored()
    for name, table in sorted(tables(scale).items(), key=_order):
        if not any(cell.key(scale) in done for _, _, cell in table.rows):
            continue
        print(f"\n### Table {name}: {table.title}" if name[0].isdigit() else f"\n### {table.title.capitalize()}")
        if table.paper:
            print(f"\nThe paper's column: {table.paper}.")
        print_table(table, scale, done)


def print_table(table: Table, scale: str, done: dict[str, dict[str, Any]]) -> None:
    """Prints one table."""
    shows = [c for c in table.shows if c != "detection"]
    if shows != list(table.shows):
        for _, _, cell in table.rows:
            print("\n```\n" + json.dumps(done[cell.key(scale)]["measured"]["detection"], indent=1) + "\n```")
        return
    printed = any(paper for _, paper, _ in table.rows)
    headings = [
        " ",
        *(["paper"] if printed else []),
        *(SCALES[scale]["tasks"].get(c, HEADINGS.get(c, c)) for c in shows),
    ]
    print(f"\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for label, paper, cell in table.rows:
        row = done.get(cell.key(scale))
        values = [show(c, row["measured"], scale) for c in shows] if row else ["not run"] * len(shows)
        print(f"| {' | '.join([label, *([paper] if printed else []), *values])} |")


def _order(item: tuple[str, Table]) -> tuple[int, str]:
    head = item[0].split("-")[0]
    return (int(head) if head.isdigit() else 99, item[0])


def draw_figure(scale: str) -> None:
    """Figure 2: watermark success by loss and number of queries, an independent encoder beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    done = stored()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    panels = {"queries from another distribution": ("16",), "the victim's own images": ("9", "17")}
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for _, _, cell in [row for name in names for row in tables(scale)[name].rows]:
            if "victim_view" not in cell.theft and (row := done.get(cell.key(scale))):
                point = (cell.theft["queries"], row["measured"]["watermark"])
                lines.setdefault(cell.theft["loss"], []).append(point)
        for loss, points in lines.items():
            style = {"mse": "o-", "softnn": "s--", "infonce": "^:"}[loss]
            axis.plot(
                *zip(*sorted(set(points)), strict=True), style, label=loss, color="black", markerfacecolor="white"
            )
        if row := done.get(Cell(method="random").key(scale)):
            axis.axhline(row["measured"]["watermark"], color="grey", label="independent encoder")
        axis.set(title=title, xlabel="queries", xscale="log", xlim=(400, 60_000))
    axes[0].set_ylabel("watermark success rate")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=tuple(SCALES), default="cpu")
    parser.add_argument("--tables", nargs="+", default=None, help="all if not given")
    parser.add_argument("--work", type=Path, default=Path("runs/paper"))
    parser.add_argument("--part", default="1/1", help="I/N: every N-th cell, from the I-th")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    if arguments.show:
        print_tables(arguments.scale)
        draw_figure(arguments.scale)
        return
    mine, of = map(int, arguments.part.split("/"))
    run(arguments.scale, arguments.tables, arguments.work, arguments.device, (mine, of))


if __name__ == "__main__":
    main()
