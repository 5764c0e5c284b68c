"""Time an audit of a ResNet-50 against bare inference on the same probes.

    python -m benchmarks.audit_time run --rounds 4

Bare: onnxruntime on the same probes, in batches of the same size, once. In process: the whole audit, from the loaded
suspect and claim to the report, repeated probes included, in this process. Sandboxed: the same in the sandbox, loading
included. The three alternate in one run; the fastest round of each counts. The panel are untrained small encoders:
their representations do not matter here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torchvision.models import resnet50

from benchmarks.common.machine import cores, versions
from benchmarks.common.rows import RowStore
from ownership.auditing.engine import audit
from ownership.claims.build import build_claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import EncoderRecord, NamedEncoder
from ownership.encoders.architectures import ARCHITECTURES
from ownership.encoders.images import represent
from ownership.plan import Plan
from ownership.suspects.suspect import load_encoder, load_suspect

SIDE = 224
PLAN = Plan(n_public=500, n_rotated=100, n_rotations=4, n_private=60)
ROWS = RowStore("audit_time")


def exported() -> bytes:
    """Return a ResNet-50 without its classifier as ONNX: images `(n, 3, 224, 224)` to `(n, 2048)`."""
    torch.manual_seed(0)
    network = resnet50(weights=None).eval()
    network.fc = torch.nn.Identity()
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, SIDE, SIDE),),
        dynamo=True,
        verbose=False,
        dynamic_shapes={"x": {0: torch.export.Dim("n")}},
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def untrained(i: int) -> NamedEncoder:
    """Return the record and weights of an untrained encoder: the victim (0), plain (1 to 5), watermarked (6 to 10)."""
    torch.manual_seed(i)
    kind = "victim" if i == 0 else "plain" if i <= 5 else "watermarked"
    return NamedEncoder(EncoderRecord(name=f"m{i}", kind=kind, sha256="0" * 64), ARCHITECTURES["tiny"]().eval())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--rounds", type=int, default=2)


def run(arguments: argparse.Namespace) -> None:
    """Measure and add one row."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (850, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    panel = [untrained(i) for i in range(1, 11)]
    claim = build_claim(untrained(0), ClaimImages(images[:60], images[60:]), panel, plan=PLAN)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        path.write_bytes(exported())
        in_process = load_encoder(path)
        seconds: dict[str, list[float]] = {"bare": [], "in_process": [], "loading": [], "sandboxed": []}
        for i in range(arguments.rounds):
            start = time.perf_counter()
            for probes in claim.probes.values():
                represent(in_process.encoder, probes, batch_size=256)
            seconds["bare"].append(time.perf_counter() - start)
            start = time.perf_counter()
            audit(claim, in_process)
            seconds["in_process"].append(time.perf_counter() - start)
            start = time.perf_counter()
            with load_suspect(path) as suspect:
                seconds["loading"].append(time.perf_counter() - start)
                report = audit(claim, suspect)
                seconds["sandboxed"].append(time.perf_counter() - start)
            print(f"round {i + 1} of {arguments.rounds}", flush=True)
    row = {
        "probes": sum(map(len, claim.probes.values())),
        "queries": report.findings.queries,
        "seconds": {name: round(min(values), 2) for name, values in seconds.items()},
        "ratio": round(min(seconds["in_process"]) / min(seconds["bare"]), 3),
        "sandbox_ratio": round(min(seconds["sandboxed"]) / min(seconds["in_process"]), 3),
        "rounds": {name: [round(s, 2) for s in values] for name, values in seconds.items()},
        "cores": cores(),
        "versions": versions(),
    }
    print(json.dumps(row))
    ROWS.append(row)
