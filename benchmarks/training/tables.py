"""Tables of the training benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean, stdev

from scipy import stats

from benchmarks.common.markdown import table
from benchmarks.common.rows import Row, RowStore

PROCESSORS = {
    "AuthenticAMD family 25 model 17": "AMD EPYC (family 25, model 17)",
    "GenuineIntel family 6 model 207": "Intel Xeon (Emerald Rapids)",
}
SEVERAL = (
    ("watermarked_probe", "linear probe, watermarked"),
    ("lost", "points of linear probe lost"),
    ("victim", "watermark success: victim"),
    ("surrogate_mse", "surrogate, MSE"),
    ("surrogate_infonce", "surrogate, InfoNCE"),
)


def tables() -> dict[str, str]:
    """Return the tables by name."""
    rows = RowStore("training").load()

    def of(what: str) -> list[Row]:
        return [r for r in rows if r["what"] == what]

    return {
        "speed": _speed(of("speed")),
        "watermark": _watermark(of("watermark")),
        "key": _key(of("key")),
        "memory": table(
            ("mapped images (32 x 32)", "file, MiB", "peak memory beyond the file, MiB", "more than 4,096 images"),
            [[f"{r['images']:,}", f"{r['file_mib']:,}", f"{r['peak_mib'][1]:.0f}", f"{r['more_mib']:.0f}"]
             for r in of("memory")],
        ),
        "precision": table(
            ("CPU", "bfloat16, images/s", "float32, images/s", "ratio", "`--precision auto` takes"),
            [[_cpu(r), r["images_per_second"]["bfloat16"], r["images_per_second"]["float32"],
              f"{r['bfloat16_over_float32']:.2f}", r["auto"]] for r in of("precision")],
        ),
        "augment": table(
            ("CPU, one thread", "ours, images/s", "kornia, batches", "torchvision, image by image", "ours / kornia"),
            [[_cpu(r), *(f"{r['images_per_second'][n]:,}" for n in ("ours", "kornia", "torchvision")),
              f"{r['over_kornia']:.2f}"] for r in of("augment")],
        ),
    }  # fmt: skip


def _cpu(row: Row) -> str:
    name = str(row.get("cpu", "AMD EPYC, model not recorded"))
    return PROCESSORS.get(name, name)


def _speed(rows: Iterable[Row]) -> str:
    names = {
        "lightly": "lightly, plain, float32: images/s",
        "watermarked": "ours, watermarked",
        "watermarked, compiled": "ours, watermarked, `--compile`",
        "plain": "ours, plain",
    }
    lines = []
    for r in rows:
        rates = (r["images_per_second"].get(n) for n in names)
        line = [_cpu(r), *(", ".join(f"{v:.1f}" for v in values) if values else "–" for values in rates)]
        line += [
            f"{r['over_lightly']:.2f}",
            f"{r['compiled_over_lightly']:.2f}" if "compiled_over_lightly" in r else "–",
        ]
        lines.append([*line, f"{r['bfloat16_ceiling']:.2f}", f"{r['watermark_overhead']:.3f}"])
    ratios = (
        "watermarked / lightly",
        "compiled / lightly",
        "ceiling: bfloat16 / float32 product",
        "watermarked / plain, time",
    )
    return table(["CPU (one run a line, each round)", *names.values(), *ratios], lines)


def _watermark(rows: Iterable[Row]) -> str:
    groups: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for r in rows:
        first, last = map(int, r.get("victim_images", "[0:10000]").split("[")[1].rstrip("]").split(":"))
        share, weight = f"{r['train']['watermark_fraction']:g}", f"{r['train']['watermark_weight']:g}"
        lost = 100 * (r["plain_probe"] - r["watermarked_probe"])
        groups[r["data"], f"{last - first:,}, {r['train']['epochs']}", share, weight].append({**r, "lost": lost})
    lines = []
    for case, mine in sorted(groups.items()):
        mine.sort(key=lambda r: r["seed"])
        cells = [_interval([r[name] for r in mine], 2 if name == "lost" else 3) for name, _ in SEVERAL]
        lines.append(
            [*case, ", ".join(str(r["seed"]) for r in mine), _interval([r["plain_probe"] for r in mine]), *cells]
        )
    headings = ("data", "images, epochs", "share of a batch rotated", "weight", "seeds", "linear probe, plain")
    return table([*headings, *(title for _, title in SEVERAL)], lines)


def _key(rows: Iterable[Row]) -> str:
    """Return the price of the keyed watermark, and how well it is found."""
    groups: dict[tuple[str, int, float], list[Row]] = defaultdict(list)
    for r in sorted(rows, key=lambda r: r["seed"]):
        lost = 100 * (r["plain_probe"] - r["watermarked_probe"])
        groups[r["data"], r["train"]["epochs"], r["train"]["keyed_weight"]].append({**r, "lost": lost})
    lines = []
    for case, mine in sorted(groups.items()):
        means = [_interval([r[name] for r in mine]) for name in ("plain_probe", "watermarked_probe")]
        found = [
            f"{min(r[name]['statistic'] for r in mine):.0f}; {max(r[name]['pvalue'] for r in mine):.5f}"
            for name in ("victim", "surrogate_mse", "surrogate_infonce")
        ]
        plain = f"{min(r['plain']['pvalue'] for r in mine):.3f}"
        each = ", ".join(f"{r['lost']:.2f}" for r in mine)
        lost = f"{_interval([r['lost'] for r in mine], 2)}; seeds: {each}"
        lines.append([*case, ", ".join(str(r["seed"]) for r in mine), *means, lost, *found, plain])
    headings = ("data", "epochs", "weight", "seeds", "linear probe, plain", "watermarked", "points lost")
    tests = ("victim", "surrogate, MSE", "surrogate, InfoNCE")
    worst = (f"{name}: smallest T; largest p" for name in tests)
    return table([*headings, *worst, "plain twin: smallest p"], lines)


def _interval(values: list[float], digits: int = 3) -> str:
    """Return mean and 95 % t-interval over seeds; of one seed only its value."""
    at = mean(values)
    if len(values) == 1:
        return f"{at:.{digits}f}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{at:.{digits}f} ({at - half:.{digits}f} to {at + half:.{digits}f})"
