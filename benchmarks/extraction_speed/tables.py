"""Tables of extraction throughput."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return the ratio and rates of each case, on CPUs with and without fast bfloat16."""
    rows = RowStore("extraction_speed").load()
    lines = []
    for case in dict.fromkeys((r["arch"], r["view"], r["epochs"]) for r in rows):
        line: list[object] = list(case)
        for bfloat16 in (True, False):
            mine = [r for r in rows if (r["arch"], r["view"], r["epochs"], r["bfloat16"]) == (*case, bfloat16)]
            rates = mine[-1]["images_per_second"] if mine else {}
            line += (
                [f"{mine[-1]['ratio']:.2f}", f"{rates['released']:.0f}, {rates['ours']:.0f}"] if mine else ["–", "–"]
            )
        lines.append(line)
    headings = ("architecture", "views", "epochs")
    both = [
        f"{what} ({fast} bfloat16)" for fast in ("with", "without") for what in ("ratio", "released, ours: images/s")
    ]
    return {"throughput": table([*headings, *both], lines)}
