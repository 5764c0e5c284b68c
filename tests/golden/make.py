"""Makes the golden files with the Turnmark that is on the path: see README.md beside it.

python make.py models FOLDER                    encoders as ONNX files, the same whatever the version
python make.py claim MODELS OUT                 a claim
python make.py report MODELS CLAIM OUT.json     an audit of it, with all that this version can add to a report
python make.py seal GOLDEN                      claim-2-sealed, sealed and stamped; a disclosure; a signed report of it
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

SIDE, HIDDEN, DIM = 8, 16, 8
SEEDS = {"victim": 1, **{f"p{i}": 10 + i for i in range(5)}, **{f"m{i}": 20 + i for i in range(5)}, "own": 40}

KEY: dict[str, Any] = {"cuts": (0.9, 0.9 + np.pi), "margin": 0.3, "predictor_seed": 3}


def weights(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two layers, drawn by name; the suspect and the reference are the victim with some noise."""
    if name in ("suspect", "reference"):
        a, b = weights("victim")
        noise = np.random.default_rng(30 if name == "suspect" else 31)
        return a + 0.02 * noise.normal(size=a.shape), b + 0.02 * noise.normal(size=b.shape)
    rng = np.random.default_rng(SEEDS[name])
    return rng.normal(size=(SIDE * SIDE, HIDDEN)) / 2, rng.normal(size=(HIDDEN, DIM))


def models(folder: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    folder.mkdir(parents=True)
    for name in (*SEEDS, "suspect", "reference"):
        constants = {k: v.astype(np.float32) for k, v in zip("ab", weights(name), strict=True)}
        initial = [numpy_helper.from_array(v, k) for k, v in constants.items()]
        initial.append(numpy_helper.from_array(np.array([-1, SIDE * SIDE], np.int64), "shape"))
        nodes = [
            helper.make_node("ReduceMean", ["images"], ["grey"], axes=[1], keepdims=0),
            helper.make_node("Reshape", ["grey", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "a"], ["h"]),
            helper.make_node("Tanh", ["h"], ["t"]),
            helper.make_node("MatMul", ["t", "b"], ["representations"]),
        ]
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
        rows = helper.make_tensor_value_info("representations", TensorProto.FLOAT, ["n", DIM])
        graph = helper.make_graph(nodes, "encoder", [images], [rows], initial)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        save(model, folder / f"{name}.onnx")
    predictor(folder / "predictor.safetensors", pairs=False)
    predictor(folder / "pairs.safetensors", pairs=True)


def smooth_images(n: int, seed: int) -> Any:
    import torch

    small = torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(small, SIDE, mode="bilinear", align_corners=True) * 255).to(torch.uint8)


def predictor(out: Path, *, pairs: bool) -> None:
    """A rotation predictor fitted to the victim, with few digits and few weights, so that it packs better."""
    import torch
    from safetensors.torch import save_file

    from ownership.claims.probes import make_probes
    from ownership.encoders.images import as_input, three_channels
    from ownership.plan import Plan
    from ownership.watermark import RotationPredictor, WatermarkKey

    key = WatermarkKey(**KEY)
    images = smooth_images(4000, 1)
    probes, marked = make_probes(
        images[:50], images[50:], Plan(n_public=2000 if pairs else 100, n_watermark=2000), key=key
    )
    answers = encoder("victim")(three_channels(as_input(probes["watermark"])))
    labels = marked[0] if isinstance(marked, tuple) else marked
    if pairs:
        answers = torch.cat([answers, encoder("victim")(three_channels(as_input(probes["public"])))[marked[2]]], 1)
    torch.manual_seed(0)
    made = RotationPredictor(DIM, 3, pairs=True) if pairs else RotationPredictor(DIM, 3)
    weights = [p for p in made.parameters() if p.ndim == 2 and len(p) == 128]
    optimiser = torch.optim.AdamW(made.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(600):
        torch.nn.functional.cross_entropy(made(answers), labels).backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for w in weights if step % 50 == 0 else ():
                w.copy_(torch.where(w.abs() >= w.abs().flatten().quantile(0.8), w, 0))
    with torch.no_grad():
        for w in made.parameters():
            w.copy_(torch.where(w.abs() >= w.abs().flatten().quantile(0.8), w, 0) if len(w) == 128 else w)
            w.copy_(w.mul(256).round().div(256))
    good = (made(answers).argmax(1) == labels).float().mean()
    print(f"the predictor is right on {good:.2f}")
    save_file(made.state_dict(), out)


def encoder(name: str) -> Any:
    import torch

    a, b = (torch.tensor(w, dtype=torch.float32) for w in weights(name))
    return lambda x: torch.tanh(x.mean(1).flatten(1) @ a) @ b


def claim(models_folder: Path, out: Path) -> None:
    import hashlib

    import torch
    from safetensors.torch import load_file
    from torch import nn

    from ownership.claims.build import build_claim
    from ownership.claims.record import Member
    from ownership.plan import Plan
    from ownership.watermark import RotationPredictor, WatermarkKey

    def record(name: str, kind: str) -> tuple[Member, Any]:
        digest = hashlib.sha256((models_folder / f"{name}.onnx").read_bytes()).hexdigest()
        return Member(name=name, kind=kind, sha256=digest, trained_on_private=name == "p4"), encoder(name)

    images = smooth_images(330, 0)
    sizes: dict[str, Any] = {"n_public": 110, "n_watermark": 30, "n_private": 20, "min_probes": 100}
    sizes |= {"rsa_directions": 4, "gmm_components": 2}
    known = inspect.signature(Plan).parameters
    later = {"n_turned": 20, "turns": 2, "looks": (100,), "look_shares": (0.3,)}
    sizes |= {k: v for k, v in later.items() if k in known}
    if "pairs" in inspect.signature(RotationPredictor).parameters:
        name, mark = "pairs", RotationPredictor(DIM, 3, pairs=True)
    else:
        name, mark = "predictor", RotationPredictor(DIM, 3)
    mark.load_state_dict(load_file(models_folder / f"{name}.safetensors"))
    torch.manual_seed(0)
    built = build_claim(
        record("victim", "victim"),
        images[:30],
        images[30:],
        [record(n, "plain" if n.startswith("p") else "marked") for n in SEEDS if n not in ("victim", "own")],
        plan=Plan(**sizes),
        key=WatermarkKey(**KEY),
        predictor=mark.eval(),
        projection_head=nn.Sequential(nn.Linear(DIM, 8), nn.ReLU(), nn.Linear(8, 4)).eval(),
        references=[record("reference", "reference")],
        view=lambda x, g: (x + 0.1 * torch.randn(x.shape, generator=g)).clamp(0, 1),
    )
    built.save(out)


def report(models_folder: Path, claim_folder: Path, out: Path) -> None:
    from ownership import Claim, audit, load_suspect

    known = inspect.signature(audit).parameters
    more: dict[str, Any] = {}
    if "auditor_panel" in known:
        more["auditor_panel"] = [(load_suspect(models_folder / "own.onnx"), "made for this")]
    if "panel_models" in known:
        more["panel_models"] = [load_suspect(models_folder / f"{name}.onnx") for name in ("p0", "m1")]
    if "paper" in known:
        more["paper"] = True
    words = "turnmark audit suspect.onnx --claim CLAIM" + (" --paper" if "paper" in known else "")
    suspect = load_suspect(models_folder / "suspect.onnx")
    audit(Claim.load(claim_folder), suspect, command=words, **more).save(out)


def seal(golden: Path) -> None:
    import tempfile

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from support.tsa import make_authority

    from ownership.attestation.keys import load_signing_key, make_signing_key
    from ownership.reports.html import write_html
    from ownership.reports.report import Report
    from ownership.reports.signature import sign_report, signed_report
    from ownership.sealing.create import attach, seal_claim, write_request
    from ownership.sealing.disclosure import disclose

    folder, signed = golden / "claim-2-sealed", golden / "report-signed"
    with tempfile.TemporaryDirectory() as name:  # nobody keeps the keys
        place = Path(name)
        authority = make_authority(place / "support.tsa", "Golden authority")
        keys = {}
        for who in ("owner", "auditor"):
            make_signing_key(place / who)
            keys[who] = load_signing_key(place / who, str)
            (golden / f"{who}.pub").write_bytes((place / f"{who}.pub").read_bytes())
        (golden / "roots.pem").write_bytes(authority.roots.read_bytes())
        seal_claim(folder, keys["owner"])
        write_request(folder, place / "a.tsq")
        attach(folder, authority.reply(place / "a.tsq", place / "a.tsr").read_bytes())
        (golden / "disclosure.json").write_bytes(disclose(folder, ["key.json", "private/3"], data=True))
        report(golden / "models", folder, signed / "report.json")
        write_html(Report.load(signed / "report.json"), signed / "report.html")
        received = ("claim: from Jane Roe, 2026-05-01", "suspect: from the court, 2026-05-02, by John Doe")
        sign_report(signed, keys["auditor"], auditor="Ada Lovelace", received=received)
        write_request(signed, place / "b.tsq", signed_report)
        attach(signed, authority.reply(place / "b.tsq", place / "b.tsr").read_bytes(), opened=signed_report)


if __name__ == "__main__":
    {"models": models, "claim": claim, "report": report, "seal": seal}[sys.argv[1]](*map(Path, sys.argv[2:]))
