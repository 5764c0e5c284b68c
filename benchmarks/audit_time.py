"""What an audit costs over bare inference: torchvision's ResNet-50 as ONNX, 224 pixels, about 1,000 probes.

    python benchmarks/audit_time.py --out benchmarks/results/audit_time.jsonl

Bare: onnxruntime on the same probes, in batches of the same size, once. Audit: all from the loaded suspect and claim
to the report, with the probes that are asked twice; once in this process ("outside"), once as suspects are, in the cage
("audit", with the loading). They alternate in one run; the fastest round of each counts. The
panel are untrained small encoders: what they answer does not matter here. Weights of the ResNet are random.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch
from torchvision.models import resnet50

from ownership.auditing.engine import audit, versions
from ownership.claims.build import build_claim
from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import ARCHITECTURES
from ownership.encoders.images import represent
from ownership.plan import Plan
from ownership.suspects.suspect import load_encoder, load_suspect

SIDE = 224
PLAN = Plan(n_public=500, n_rotated=100, n_rotations=4, n_private=60)


def exported() -> bytes:
    """ResNet-50 without its classifier: images `(n, 3, 224, 224)` to 2,048 numbers."""
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
    return bytes(program.model_proto.SerializeToString())


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (850, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)

    def small(i: int) -> tuple[EncoderRecord, torch.nn.Module]:
        torch.manual_seed(i)
        kind = "victim" if i == 0 else "plain" if i <= 5 else "watermarked"
        return EncoderRecord(name=f"m{i}", kind=kind, sha256="0" * 64), ARCHITECTURES["tiny"]().eval()

    claim = build_claim(small(0), images[:60], images[60:], [small(i) for i in range(1, 11)], plan=PLAN)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        path.write_bytes(exported())
        open_here = load_encoder(path)
        seconds: dict[str, list[float]] = {"bare": [], "outside": [], "loading": [], "audit": []}
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            for probes in claim.probes.values():
                represent(open_here.encoder, probes, batch_size=256)
            seconds["bare"].append(time.perf_counter() - start)
            start = time.perf_counter()
            audit(claim, open_here)
            seconds["outside"].append(time.perf_counter() - start)
            start = time.perf_counter()
            suspect = load_suspect(path)
            seconds["loading"].append(time.perf_counter() - start)
            report = audit(claim, suspect)
            seconds["audit"].append(time.perf_counter() - start)
            suspect.close()
    row = {
        "probes": sum(map(len, claim.probes.values())),
        "queries": report.queries,
        "seconds": {name: round(min(values), 2) for name, values in seconds.items()},
        "ratio": round(min(seconds["outside"]) / min(seconds["bare"]), 3),
        "cage_ratio": round(min(seconds["audit"]) / min(seconds["outside"]), 3),
        "rounds": {name: [round(s, 2) for s in values] for name, values in seconds.items()},
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    print(json.dumps(row))
    if arguments.out is not None:
        with arguments.out.open("a") as f:
            f.write(json.dumps(row, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
