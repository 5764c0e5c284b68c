"""Tables of the GPU benchmark."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return the rates of single steps and the figures of whole trainings."""
    rows = RowStore("gpu").load()
    rates = [
        [r["device"], r["arch"], name, f"{rate:,.0f}"]
        for r in rows
        if r["what"] == "rates"
        for name, rate in r["images_per_second"].items()
    ]
    victims = [
        [
            r["device"],
            r["train"]["arch"],
            f"{r['images']:,}, {r['epochs']}",
            f"{r['seconds']:.0f} s",
            f"{r['images_per_second']:,.0f}",
            f"{r['utilisation']:.2f} of {r['peak'] / 1e12:.0f} TFLOP/s",
            f"{r['victim']:.3f}",
            f"{r['victim_probe']:.3f}",
        ]
        for r in rows
        if r["what"] == "victim"
    ]
    headings = ("device", "architecture", "images, epochs", "time", "images/s", "utilisation")
    return {
        "rates": table(("device", "architecture", "training", "images/s, steps 10 to 70"), rates),
        "victim": table([*headings, "watermark success", "linear probe"], victims),
    }
