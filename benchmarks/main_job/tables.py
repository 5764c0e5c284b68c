"""Tables of the main job."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore

SHOWN = {
    "partial_rsa_relative": "partial RSA, relative",
    "partial_rsa": "partial RSA",
    "watermark_probability": "watermark probability",
    "watermark_success": "watermark success",
    "partial_rsa_rotated": "partial RSA, rotated",
    "cka": "CKA",
}
"""Statistic in the rows -> column."""


def tables() -> dict[str, str]:
    """Return a table of the audits and one of the counts for each data set."""
    rows, out = RowStore("main_job").load(), {}
    for data in sorted({r["data"] for r in rows}):
        mine = [r for r in rows if r["data"] == data]
        lines = []
        for name, seed in dict.fromkeys((r["suspect"], r["seed"]) for r in mine):
            pair = [r for r in mine if (r["suspect"], r["seed"]) == (name, seed)]
            tests = pair[0]["tests"]
            cells = [f"{tests[t]['value']:.3f}, {_p(tests[t]['pvalue'])}" if t in tests else "–" for t in SHOWN]
            verdicts = ", ".join(r["verdict"] for r in sorted(pair, key=lambda r: r["format"], reverse=True))
            lines.append([name, seed, verdicts, *cells])
        headings = ("suspect", "seed", "verdict (safetensors, ONNX)")
        out[data] = table([*headings, *(f"{title}, p" for title in SHOWN.values())], lines)
        counts = []
        for role in ("surrogate", "independent"):
            group = [r for r in mine if r["role"] == role]
            counts.append([f"{role}s", sum(r["as_expected"] for r in group), len(group)])
        out[f"{data}-counts"] = table(("suspects", "verdict as expected", "audits"), counts)
    return out


def _p(p: float) -> str:
    """Return a p-value; a smaller one than 0.001 extrapolates a normal tail, so its size is not shown."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
