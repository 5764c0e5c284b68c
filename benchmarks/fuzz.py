"""Mutated suspects through one reused worker in the cage: what docs/security.md says about fuzzing.

    python benchmarks/fuzz.py --count 10000          # each format; goes on where it stopped
    python benchmarks/fuzz.py --print

Files are mutated inside archives, too (members changed, the archive written anew with right checksums). Every one must
be loaded or refused by an `OwnershipError` within the time limit; whatever else is counted as an escape. Rows are
committed; a part is 500 files of one seed.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ownership.auditing.engine import versions
from ownership.encoders.architectures import ARCHITECTURES
from ownership.errors import OwnershipError, SuspectFailure
from ownership.suspects.formats.open import LoadOptions
from ownership.suspects.sandbox.encoder import Limits, SandboxedEncoder
from watermark_training.train_folder import onnx_bytes

RESULTS = Path(__file__).parent / "results" / "fuzz.jsonl"
PART = 500
SECONDS = 20.0
ODD = (0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)


def originals() -> dict[str, bytes]:
    """A small good file of each format."""
    torch.manual_seed(0)
    model = ARCHITECTURES["tiny"]().eval()
    out = {"safetensors": save(model.state_dict()), "onnx": onnx_bytes(model, (16, 16))}
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    out["pytorch"] = buffer.getvalue()
    buffer = io.BytesIO()
    shapes = ({0: torch.export.Dim("n", min=1, max=4096)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (torch.rand(2, 3, 16, 16),), dynamic_shapes=shapes), buffer)
    out["torch.export"] = buffer.getvalue()
    return out


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut out, doubled, or the end cut off; most of it near the beginning, where headers are."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not out:
            break
        reach = len(out) if rng.random() < 0.3 else min(len(out), 4096)
        at, kind = int(rng.integers(reach)), rng.random()
        if kind < 0.6:
            out[at] = int(rng.integers(256))
        elif kind < 0.7:
            out[at : at + 8] = ODD[int(rng.integers(len(ODD)))].to_bytes(8, "little")
        elif kind < 0.8:
            del out[at : at + int(rng.integers(1, 64))]
        elif kind < 0.9:
            out[at:at] = out[at : at + int(rng.integers(1, 64))]
        else:
            del out[int(rng.integers(len(out))) :]
    return bytes(out)


def mutated_inside(data: bytes, rng: np.random.Generator) -> bytes:
    """An archive with one member mutated and right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        infos = old.infolist()
        weights = np.array([4.0 if i.filename.endswith((".pkl", ".json")) else 1.0 for i in infos])
        chosen = int(rng.choice(len(infos), p=weights / weights.sum()))
        for i, info in enumerate(infos):
            content = old.read(info)
            new.writestr(info.filename, mutated(content, rng) if i == chosen else content)
    return buffer.getvalue()


def fuzz(kind: str, original: bytes, seed: int, count: int) -> dict[str, Any]:
    """Loads so many mutations; returns how they ended."""
    rng, ended, escapes = np.random.default_rng([seed, len(kind)]), Counter[str](), []
    start, slowest, starts = time.perf_counter(), 0.0, 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suspect"
        path.write_bytes(original)
        caged = SandboxedEncoder(path, LoadOptions(), Limits(seconds=SECONDS))
        target = caged._private / "model" / caged.copied.name
        for _ in range(count):
            inside = original[:2] == b"PK" and rng.random() < 0.8
            data = mutated_inside(original, rng) if inside else mutated(original, rng)
            target.unlink()
            target.write_bytes(data or b"x")
            began = time.perf_counter()
            try:
                if caged._running.process is None:
                    starts += 1
                    caged._start()
                else:
                    with caged._watched(SECONDS):
                        caged._load(target.parent)
                ended["loaded"] += 1
            except SuspectFailure as e:
                ended[f"failure: {e.message}"] += 1
            except OwnershipError as e:
                ended["died while it was started anew" if "process" in e.message else "refused"] += 1
            except Exception as e:  # what must not happen
                escapes.append(repr(e)[:200])
            slowest = max(slowest, time.perf_counter() - began)
        peak = 0
        process = caged._running.process
        if process is not None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM"))
        caged.close()
    return {
        "ended": dict(ended),
        "escapes": escapes,
        "seconds": round(time.perf_counter() - start, 1),
        "slowest_seconds": round(slowest, 2),
        "worker_starts": starts,
        "worker_peak_mib": peak,
    }


def stored() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_table() -> None:
    """Prints the rows as Markdown, summed over parts."""
    print(
        "| format | files | loaded | refused | worker died or was stopped | escapes | slowest | worker's peak memory |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind in ("safetensors", "pytorch", "torch.export", "onnx"):
        rows = [r for r in stored() if r["format"] == kind]
        ended = sum((Counter(r["ended"]) for r in rows), Counter[str]())
        other = sum(n for name, n in ended.items() if name not in ("loaded", "refused"))
        escapes = sum(len(r["escapes"]) for r in rows)
        slowest, peak = max(r["slowest_seconds"] for r in rows), max(r["worker_peak_mib"] for r in rows)
        print(
            f"| {kind} | {sum(r['count'] for r in rows):,} | {ended['loaded']:,} | {ended['refused']:,} | {other} | "
            f"{escapes} | {slowest:.1f} s | {peak} MiB |"
        )


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--formats", nargs="+", default=None)
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    if arguments.show:
        print_table()
        return
    for kind, original in originals().items():
        if arguments.formats and kind not in arguments.formats:
            continue
        for seed in range(-(-arguments.count // PART)):
            if any(r["format"] == kind and r["seed"] == seed for r in stored()):
                continue
            row = {"format": kind, "seed": seed, "count": PART, **fuzz(kind, original, seed, PART)}
            with RESULTS.open("a") as f:
                f.write(json.dumps({**row, "versions": versions()}, sort_keys=True) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
