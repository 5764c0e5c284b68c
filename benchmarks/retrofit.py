"""A mark embedded in a model whose unmarked form is public: what it costs, whom its claim convicts.

    TURNMARK_DATA=runs/data python benchmarks/retrofit.py --work runs/verdicts   # after verdicts/run.py --stage models
    python benchmarks/retrofit.py --print

Fashion-MNIST, the verdict benchmark's models: the public checkpoint gets the mark by `turnmark embed` on a victim's
private images. Three claims: with that victim's panel, the checkpoint itself in its stratum *ancestor*; without that
one; and as if nobody else had it, without that stratum: then fine-tunes and thefts of the checkpoint are no innocents.
Suspects: the checkpoint; six fine-tunes of it that are no panel members; two plain independent encoders; thefts of the checkpoint,
which owe nothing to the mark's owner; and thefts of the retrofitted model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parent / "verdicts"))
import design
from run import PLAN, Bench

from attacks_for_eval.claims.build import claim_with_references
from ownership.auditing.engine import audit, versions
from ownership.claims.claim import Claim
from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.suspects.suspect import load_encoder
from ownership.watermark import secret_key
from watermark_training.embed import embed_to
from watermark_training.train_folder import Loaded, load_trained
from watermark_training.watermark import watermark_rate

RESULTS = Path(__file__).parent / "results" / "retrofit.jsonl"
LOSSES = ("mse", "infonce", "softnn")
PANELS = ("with the checkpoint", "without the checkpoint", "the checkpoint is the owner's alone")


def run(bench: Bench, seed: int, folder: Path, panels: Sequence[str]) -> list[dict[str, Any]]:
    """Retrofits the checkpoint with a key of this seed; returns a row on the model and one an audit."""
    victim = bench.scale.grown[seed % len(bench.scale.grown)]  # whose private images and panel
    checkpoint = load_trained(bench.checkpoint)
    key = secret_key(torch.Generator().manual_seed(500 + seed))
    embed_to(folder / "victim", checkpoint, bench.sources[f"private_{victim}"], {"seed": seed}, key=key)
    owner = load_trained(folder / "victim")

    def watermark(encoder: EncoderLike) -> float:
        assert owner.predictor is not None
        return watermark_rate(encoder, owner.predictor, key, bench.sources["probe-test"].images[:1000], seed=seed)

    rows = [{"what": "model", "seed": seed, "watermark": watermark(owner.encoder), "versions": versions()}]
    rows[0] |= usefulness(bench, checkpoint.encoder, owner.encoder)
    suspects = list(everybody(bench, victim, folder / "thefts", checkpoint, owner))
    for panel in panels:
        claim = claim_of(bench, victim, owner, panel, seed)
        for kind, path in suspects:
            report = audit(claim, suspect := load_encoder(path))
            row = {"what": "audit", "seed": seed, "panel": panel, "kind": kind, "sha256": suspect.sha256}
            row |= {"verdict": report.verdict.value, "watermark": watermark(suspect.encoder)}
            rows.append(row | {"pvalues": {r.name: r.pvalue for r in report.primary}})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def usefulness(bench: Bench, before: EncoderLike, after: EncoderLike) -> dict[str, float]:
    """Returns the accuracy of a head fitted before, on both encoders, and of one fitted anew."""
    learn, test = bench.sources["probe-learn"], bench.sources["probe-test"]
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    head.fit(represent(before, learn.images), learn.labels)
    shown = {"head": before, "old_head": after}
    out = {name: float(head.score(represent(model, test.images), test.labels)) for name, model in shown.items()}
    head.fit(represent(after, learn.images), learn.labels)
    return out | {"new_head": float(head.score(represent(after, test.images), test.labels))}


def everybody(bench: Bench, victim: int, folder: Path, checkpoint: Loaded, owner: Loaded) -> Iterator[tuple[str, Path]]:
    """Yields kind and file of every suspect."""
    yield "the checkpoint itself", bench.checkpoint
    from_checkpoint = "fine-tune of the public checkpoint"
    for spec in design.independents(bench.scale, bench.checkpoint.name):
        if spec.kind == from_checkpoint or (spec.kind == "plain, other data" and spec.seed < 5002):
            yield spec.kind, bench.panel_specs.make(spec)
    for whose, robbed in (("checkpoint", checkpoint), ("retrofitted model", owner)):
        assert isinstance(robbed.encoder, Encoder)
        thief = replace(bench.panel_specs, folder=folder, victim=(robbed.encoder, robbed.sha256))
        for i, loss in enumerate(LOSSES):
            spec = design.theft(bench.scale, victim, "theft", 80 + i, loss=loss, images=10_000)
            yield f"theft of the {whose}, {loss}", thief.make(spec)


def claim_of(bench: Bench, victim: int, owner: Loaded, panel: str, seed: int) -> Claim:
    """Builds the claim with one of the panels."""
    members = []
    for i, (stratum, spec) in enumerate(bench.panel(victim, "whole")):
        suspect = load_encoder(bench.panel_specs.make(spec))
        left_out = {PANELS[0]: False, PANELS[1]: suspect.sha256 == owner.config["base_checkpoint"], PANELS[2]: True}
        if stratum == "sibling" and left_out[panel]:
            continue
        member = EncoderRecord(
            name=f"{stratum}_{i}", kind=stratum, sha256=suspect.sha256, architecture=suspect.architecture
        )
        members.append((member, suspect.encoder))
    return claim_with_references(
        owner,
        bench.sources[f"private_{victim}"],
        bench.sources[f"public_{victim}"],
        members,
        replace(PLAN, seed=seed),
        reference_epochs=40,
        seed=seed,
        own_base_checkpoint=panel != PANELS[0],  # else it is refused; here to see what it would do
    )


def stored() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_tables() -> None:
    """Prints the rows as Markdown."""
    rows = stored()
    print("| seed | head before, on the marked model | head fitted anew | mark |\n|---|---|---|---|")
    for r in (r for r in rows if r["what"] == "model"):
        print(f"| {r['seed']} | {r['head']:.3f}, {r['old_head']:.3f} | {r['new_head']:.3f} | {r['watermark']:.3f} |")
    print("\n| panel | suspect | audits | verdicts | mark read, mean |\n|---|---|---|---|---|")
    audits = [r for r in rows if r["what"] == "audit"]
    for panel, kind in dict.fromkeys((r["panel"], r["kind"]) for r in audits):
        mine = [r for r in audits if (r["panel"], r["kind"]) == (panel, kind)]
        verdicts = ", ".join(sorted({r["verdict"] for r in mine}))
        print(f"| {panel} | {kind} | {len(mine)} | {verdicts} | {sum(r['watermark'] for r in mine) / len(mine):.3f} |")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/verdicts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--panels", choices=PANELS, nargs="+", default=PANELS)
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    if arguments.show:
        print_tables()
        return
    bench = Bench(design.FASHION, arguments.work)
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows = run(bench, seed, Path(folder), arguments.panels)
        again = {(r["what"], r["seed"], r.get("panel")) for r in rows}
        kept = [r for r in stored() if (r["what"], r["seed"], r.get("panel")) not in again]
        RESULTS.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in (*kept, *rows)))


if __name__ == "__main__":
    main()
