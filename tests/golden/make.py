"""Write the golden files with the Turnmark on the path (README.md beside this file).

    python tests/golden/make.py

The encoders in `models/` are drawn from fixed seeds. The signing keys and the timestamp authority are made anew and
thrown away, so every run writes other seals.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).resolve().parent
sys.path[:0] = [str(GOLDEN.parent.parent), str(GOLDEN.parent)]

SIDE, HIDDEN, DIM = 8, 16, 8
SEEDS = {"victim": 1, **{f"p{i}": 10 + i for i in range(5)}, **{f"m{i}": 20 + i for i in range(5)}, "own": 40}
KEY: dict[str, Any] = {"sector_boundaries": (0.9, 0.9 + np.pi), "margin": 0.3, "predictor_seed": 3}
PLAN: dict[str, Any] = {
    "n_public": 200, "n_watermark": 70, "n_private": 20, "n_rotated": 20, "n_rotations": 2, "min_probes": 100,
    "rsa_directions": 4, "gmm_components": 2,
}  # fmt: skip


def weights(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two layers, drawn by name; the suspect and the reference are the victim with some noise."""
    if name in ("suspect", "reference"):
        a, b = weights("victim")
        noise = np.random.default_rng(30 if name == "suspect" else 31)
        return a + 0.02 * noise.normal(size=a.shape), b + 0.02 * noise.normal(size=b.shape)
    rng = np.random.default_rng(SEEDS[name])
    return rng.normal(size=(SIDE * SIDE, HIDDEN)) / 2, rng.normal(size=(HIDDEN, DIM))


def encoder(name: str) -> Any:
    a, b = (torch.tensor(w, dtype=torch.float32) for w in weights(name))
    return lambda x: torch.tanh(x.mean(1).flatten(1) @ a) @ b


def write_models(folder: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

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


def smooth_images(n: int, seed: int) -> Tensor:
    small = torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(small, SIDE, mode="bilinear", align_corners=True) * 255).to(torch.uint8)


def fitted_predictor() -> Any:
    """A predictor of pairs fitted to the victim, with few distinct weights, so that it compresses well."""
    from ownership.claims.probes import ClaimImages, make_probes
    from ownership.encoders.images import as_input, three_channels
    from ownership.plan import Plan
    from ownership.watermark import RotationPredictor, WatermarkKey

    images = smooth_images(4000, 1)
    probes, watermark = make_probes(
        ClaimImages(images[:50], images[50:]), Plan(n_public=2000, n_watermark=2000), key=WatermarkKey(**KEY)
    )
    rotated, public = (encoder("victim")(three_channels(as_input(probes[name]))) for name in ("watermark", "public"))
    read = torch.cat([rotated, public[watermark.sources]], 1)
    predictor = RotationPredictor(DIM, 3, pairs=True)
    layers = [p for p in predictor.parameters() if p.ndim == 2 and len(p) == 128]
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(600):
        nn.functional.cross_entropy(predictor(read), watermark.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for w in layers if step % 50 == 0 else ():
                w.copy_(torch.where(w.abs() >= w.abs().flatten().quantile(0.8), w, 0))
    with torch.no_grad():
        for w in predictor.parameters():
            w.copy_(torch.where(w.abs() >= w.abs().flatten().quantile(0.8), w, 0) if len(w) == 128 else w)
            w.copy_(w.mul(256).round().div(256))
    print(f"the predictor is right on {(predictor(read).argmax(1) == watermark.labels).float().mean():.2f}")
    return predictor.eval()


def key_material(images: Tensor, authority: Any, place: Path) -> Any:
    """A key that the authority anchored, with its probes; the encoders were not trained with it."""
    from ownership.attestation.timestamps import request
    from ownership.keyed.key import Key
    from ownership.keyed.pool import KeyMaterial, pool_of

    key = Key(secret=bytes(range(32)), pool=pool_of(images), probes=200, directions=2)
    (place / "key.tsq").write_bytes(request(key.commitment).as_bytes())
    reply = authority.reply(place / "key.tsq", place / "key.tsr").read_bytes()
    return KeyMaterial.draw(key.anchored(reply), images)


def picked_twins(models: Path, material: Any, authority: Any, place: Path) -> Any:
    """Twins, anchored until the victim is picked: what an owner can do who had it stamped several times."""
    from ownership.claims.record import EncoderRecord, NamedEncoder
    from ownership.claims.twins import Twins
    from ownership.keyed.anchoring import anchor_request

    names = ("victim", "p0", "m0")
    digests = {n: hashlib.sha256((models / f"{n}.onnx").read_bytes()).hexdigest() for n in names}
    records = [EncoderRecord(name=n, kind="twin", sha256=d) for n, d in digests.items()]
    twins = Twins.commit([NamedEncoder(r, encoder(r.name)) for r in records], material, {"architecture": "two layers"})
    while True:
        (place / "twins.tsq").write_bytes(anchor_request(twins.commitment))
        reply = authority.reply(place / "twins.tsq", place / "twins.tsr").read_bytes()
        anchored = twins.signed(twins.commitment.anchored(reply))
        if anchored.commitment.twins[anchored.picked].encoder == digests["victim"]:
            return anchored


def write_claim(models: Path, out: Path, authority: Any, place: Path) -> None:
    from ownership.claims.build import build_claim
    from ownership.claims.probes import ClaimImages
    from ownership.claims.record import EncoderRecord, NamedEncoder
    from ownership.plan import Plan
    from ownership.watermark import Watermark, WatermarkKey

    def named(name: str, kind: str) -> NamedEncoder:
        digest = hashlib.sha256((models / f"{name}.onnx").read_bytes()).hexdigest()
        record = EncoderRecord(name=name, kind=kind, sha256=digest, trained_on_private=name == "p4")
        return NamedEncoder(record, encoder(name))

    torch.manual_seed(0)
    predictor, images = fitted_predictor(), smooth_images(330, 0)
    material = key_material(images[30:], authority, place)
    build_claim(
        named("victim", "victim"),
        ClaimImages(
            images[:30],
            images[30:],
            view=lambda x, g: (x + 0.1 * torch.randn(x.shape, generator=g)).clamp(0, 1),
        ),
        [named(n, "plain" if n[0] == "p" else "watermarked") for n in SEEDS if n not in ("victim", "own")],
        material=material,
        twins=picked_twins(models, material, authority, place),
        twins_tried=3,
        plan=Plan(**PLAN),
        watermark=Watermark(key=WatermarkKey(**KEY), predictor=predictor),
        projection_head=nn.Sequential(nn.Linear(DIM, 8), nn.ReLU(), nn.Linear(8, 4)).eval(),
        references=[named("reference", "reference")],
    ).save(out)


def write_report(models: Path, claim: Path, out: Path) -> None:
    from ownership import AuditOptions, Claim, audit, load_suspect
    from ownership.reports.html import write_html

    report = audit(
        Claim.load(claim),
        load_suspect(models / "suspect.onnx"),
        AuditOptions(paper_tests=True),
        auditor_panel=[(load_suspect(models / "own.onnx"), "made for this")],
        models=[load_suspect(models / f"{name}.onnx") for name in ("victim", "p0", "m1", "reference")],
    )
    report.save(out / "report.json")
    write_html(report, out / "report.html")


def write_redaction(claim: Path, out: Path) -> None:
    """Write the two files in which a redacted copy differs from its claim."""
    from ownership.sealing.redacted_copy import write_redacted_copy

    with tempfile.TemporaryDirectory() as name:
        write_redacted_copy(claim, Path(name) / "copy")
        out.mkdir()
        for path in ("redacted.json", "seal/salts.json"):
            shutil.copyfile(Path(name) / "copy" / path, out / Path(path).name)


def main() -> None:
    from support.tsa import make_authority

    from ownership.attestation.keys import load_signing_key, make_signing_key
    from ownership.reports.signature import sign_report, signed_report
    from ownership.sealing.create import attach, seal_claim, write_request
    from ownership.sealing.disclosure import disclose

    models, claim, report = (GOLDEN / name for name in ("models", "claim", "report"))
    for folder in (models, claim, report, GOLDEN / "redacted"):
        shutil.rmtree(folder, ignore_errors=True)
    models.mkdir()
    write_models(models)
    with tempfile.TemporaryDirectory() as name:
        place, keys = Path(name), {}
        authority = make_authority(place / "tsa", "Golden authority")
        (GOLDEN / "roots.pem").write_bytes(authority.roots.read_bytes())
        for who in ("owner", "auditor"):
            make_signing_key(place / who)
            keys[who] = load_signing_key(place / who, str)
            (GOLDEN / f"{who}.pub").write_bytes((place / f"{who}.pub").read_bytes())
        write_claim(models, claim, authority, place)
        seal_claim(claim, keys["owner"])
        write_request(claim, place / "a.tsq")
        attach(claim, authority.reply(place / "a.tsq", place / "a.tsr").read_bytes())
        (GOLDEN / "disclosure.json").write_bytes(disclose(claim, ["key.json", "private/3", "plan"], data=True))
        write_redaction(claim, GOLDEN / "redacted")
        write_report(models, claim, report)
        received = ("claim: from Jane Roe, 2026-05-01", "suspect: from the court, 2026-05-02, by John Doe")
        sign_report(report, keys["auditor"], auditor="Ada Lovelace", received=received)
        write_request(report, place / "b.tsq", signed_report)
        attach(report, authority.reply(place / "b.tsq", place / "b.tsr").read_bytes(), opened=signed_report)
    for path in GOLDEN.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


if __name__ == "__main__":
    main()
