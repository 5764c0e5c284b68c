"""Load mutated suspect files through one reused worker in the sandbox.

    python -m benchmarks.fuzz run --count 10000          # files of each format; resumes where it stopped

Files are mutated, archives also inside (members changed, the archive written again with right checksums). Every file
must be loaded or refused with an `OwnershipError` within the time limit; any other end counts as an escape. One row is
500 files of one seed.
"""

from __future__ import annotations

import argparse
import io
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

from benchmarks.common.machine import versions
from benchmarks.common.rows import RowStore
from ownership.encoders.architectures import ARCHITECTURES
from ownership.errors import OwnershipError, SuspectFailure
from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.sandbox.encoder import Limits, SandboxedEncoder
from watermark_training.encoder_files import onnx_bytes

ROWS = RowStore("fuzz")
PART = 500
FORMATS = ("safetensors", "onnx", "pytorch", "torch.export")
SECONDS = 20.0
ODD = (0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)


def originals() -> dict[str, bytes]:
    """Return a small valid file of each format."""
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
    """Change, cut out or double bytes, or cut off the end; mostly near the beginning, where headers are."""
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
    """Return an archive with one member mutated and right checksums."""
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
    """Load `count` mutations; return how they ended."""
    rng, ended, escapes = np.random.default_rng([seed, len(kind)]), Counter[str](), []
    start, slowest, starts = time.perf_counter(), 0.0, 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suspect"
        path.write_bytes(original)
        sandboxed = SandboxedEncoder(path, LoadOptions(), Limits(seconds=SECONDS))
        target = sandboxed._private / "model" / sandboxed.copy.name
        for _ in range(count):
            inside = original[:2] == b"PK" and rng.random() < 0.8
            data = mutated_inside(original, rng) if inside else mutated(original, rng)
            target.unlink()
            target.write_bytes(data or b"x")
            began = time.perf_counter()
            starting = sandboxed._running.process is None
            try:
                if starting:
                    starts += 1
                    sandboxed._start()
                else:
                    with sandboxed._until_loaded():
                        sandboxed._load()
                ended["loaded"] += 1
            except OwnershipError as e:
                if starting:
                    ended["died while it was started anew" if "process" in e.message else "refused"] += 1
                else:
                    ended[f"failure: {e.message}" if isinstance(e.__cause__, SuspectFailure) else "refused"] += 1
            except Exception as e:  # what must not happen
                escapes.append(repr(e)[:200])
            slowest = max(slowest, time.perf_counter() - began)
        peak = 0
        process = sandboxed._running.process
        if process is not None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM"))
        sandboxed.close()
    return {
        "ended": dict(ended),
        "escapes": escapes,
        "seconds": round(time.perf_counter() - start, 1),
        "slowest_seconds": round(slowest, 2),
        "worker_starts": starts,
        "worker_peak_mib": peak,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--count", type=int, default=10_000, help="files of each format")
    parser.add_argument("--formats", nargs="+", default=None, choices=FORMATS, help="all formats if not given")


def run(arguments: argparse.Namespace) -> None:
    """Measure the parts that have no row yet."""
    for kind, original in originals().items():
        if arguments.formats and kind not in arguments.formats:
            continue
        for seed in range(-(-arguments.count // PART)):
            if any(r["format"] == kind and r["seed"] == seed for r in ROWS.load()):
                continue
            row = {"format": kind, "seed": seed, "count": PART, **fuzz(kind, original, seed, PART)}
            ROWS.append({**row, "versions": versions()})
            print(row, flush=True)
