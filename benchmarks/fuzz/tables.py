"""Tables of the fuzzing benchmark."""

from __future__ import annotations

from collections import Counter

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return how the mutated files of each format ended, summed over the parts."""
    lines = []
    for kind in ("safetensors", "pytorch", "torch.export", "onnx"):
        rows = [r for r in RowStore("fuzz").load() if r["format"] == kind]
        if not rows:
            continue
        ended = sum((Counter(r["ended"]) for r in rows), Counter[str]())
        other = sum(n for name, n in ended.items() if name not in ("loaded", "refused"))
        slowest, peak = max(r["slowest_seconds"] for r in rows), max(r["worker_peak_mib"] for r in rows)
        files, escapes = sum(r["count"] for r in rows), sum(len(r["escapes"]) for r in rows)
        counts = [f"{files:,}", f"{ended['loaded']:,}", f"{ended['refused']:,}", other, escapes]
        lines.append([kind, *counts, f"{slowest:.1f} s", f"{peak} MiB"])
    headings = ("format", "files", "loaded", "refused", "worker died or was stopped", "escapes", "slowest file")
    return {"formats": table([*headings, "worker's peak memory"], lines)}
