"""A mark embedded in a model whose unmarked form is public: what it costs, whom its claim convicts.

    TURNMARK_DATA=runs/data python benchmarks/retrofit.py --work runs/verdicts   # after verdicts/run.py --stage models
    python benchmarks/retrofit.py --print

Fashion-MNIST, the verdict benchmark's models: the public checkpoint gets the mark by `turnmark embed` on a victim's
private images. Three claims: with that victim's panel, the checkpoint itself in its stratum *ancestor*; without that one; and as
if nobody else had the checkpoint, without that stratum: there its fine-tunes and thefts of it are no innocents.
Suspects: the checkpoint; six fine-tunes of it that are no panel members; two plain strangers; thefts of the checkpoint,
which owe nothing to the mark's owner; and thefts of the retrofitted model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent / "verdicts"))
import design
from run import PLAN, Bench

from attacks_for_eval.claims import claim_with_references
from attacks_for_eval.linear import linear_evaluation
from ownership._audit import audit, versions
from ownership.claim import Member
from ownership.suspect import load_encoder
from ownership.watermark import secret_key
from watermark_training.artefacts import load_trained
from watermark_training.embed import embed_to
from watermark_training.mark import watermark_rate

RESULTS = Path(__file__).parent / "results" / "retrofit.jsonl"
LOSSES = ("mse", "infonce", "softnn")
PANELS = ("with the checkpoint", "without the checkpoint", "the checkpoint is the owner's alone")


def run(bench: Bench, seed: int, folder: Path, panel: str) -> list[dict[str, Any]]:
    """Retrofits the checkpoint with a key of this seed; returns a row on the model and one an audit."""
    victim = bench.scale.grown[seed % len(bench.scale.grown)]  # whose private images and panel
    private, public = bench.sources[f"private_{victim}"], bench.sources[f"public_{victim}"]
    checkpoint = load_trained(bench.checkpoint)
    key = secret_key(torch.Generator().manual_seed(500 + seed))
    embed_to(folder / "victim", checkpoint, private, {"seed": seed}, key=key)
    owner = load_trained(folder / "victim")
    members = []
    for i, (stratum, recipe) in enumerate(bench.panel(victim, "whole")):
        if panel == PANELS[2] and stratum == "ancestor":
            continue
        suspect = load_encoder(bench.strangers.make(recipe))
        if panel == PANELS[0] or suspect.sha256 != checkpoint.sha256:
            member = Member(
                name=f"{stratum}_{i}", kind=stratum, sha256=suspect.sha256, architecture=suspect.architecture
            )
            members.append((member, suspect.encoder))
    claim = claim_with_references(
        owner,
        private,
        public,
        members,
        replace(PLAN, seed=seed),
        reference_epochs=40,
        seed=seed,
        own_ancestor=panel != PANELS[0],  # else it is refused; here to see what it would do
    )
    learn, test = bench.sources["probe-learn"], bench.sources["probe-test"]
    assert learn.labels is not None
    assert test.labels is not None
    probes = {
        name: linear_evaluation(model, (learn.images, learn.labels), (test.images, test.labels)).accuracy
        for name, model in (("before", checkpoint.encoder), ("after", owner.encoder))
    }
    predictor = owner.predictor
    assert predictor is not None

    def mark(encoder: Any) -> float:
        return watermark_rate(encoder, predictor, key, test.images[:1000], seed=seed)

    suspects = [("the checkpoint itself", bench.checkpoint)]
    kin = "fine-tune of the public checkpoint"
    suspects += [
        (recipe.kind, bench.strangers.make(recipe))
        for recipe in design.independents(bench.scale, bench.checkpoint.name)
        if recipe.kind == kin or (recipe.kind == "plain, other data" and recipe.seed < 5002)
    ]
    for whose, robbed in (("checkpoint", checkpoint), ("retrofitted model", owner)):
        thief = replace(bench.strangers, folder=folder / "thefts", victim=(robbed.encoder, robbed.sha256))
        for i, loss in enumerate(LOSSES):
            recipe = design.theft(bench.scale, victim, "theft", 80 + i, loss=loss, images=10_000)
            suspects.append((f"theft of the {whose}, {loss}", thief.make(recipe)))
    rows: list[dict[str, Any]] = [
        {
            "what": "model",
            "seed": seed,
            "panel": panel,
            "probe": probes,
            "mark": mark(owner.encoder),
            "versions": versions(),
        }
    ]
    for kind, path in suspects:
        report = audit(claim, suspect := load_encoder(path))
        p = {r.name: r.pvalue for r in report.deciding}
        rows.append(
            {
                "what": "audit",
                "seed": seed,
                "panel": panel,
                "kind": kind,
                "sha256": suspect.sha256,
                "verdict": report.verdict.value,
                "pvalues": p,
                "mark": mark(suspect.encoder),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def stored() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_tables() -> None:
    """Prints the rows as Markdown."""
    rows = stored()
    print("| seed | linear probe before, after | mark |\n|---|---|---|")
    for r in (r for r in rows if r["what"] == "model"):
        print(f"| {r['seed']} | {r['probe']['before']:.3f}, {r['probe']['after']:.3f} | {r['mark']:.3f} |")
    print("\n| panel | suspect | audits | verdicts | mark read, mean |\n|---|---|---|---|---|")
    audits = [r for r in rows if r["what"] == "audit"]
    for panel, kind in dict.fromkeys((r["panel"], r["kind"]) for r in audits):
        mine = [r for r in audits if (r["panel"], r["kind"]) == (panel, kind)]
        verdicts = ", ".join(sorted({r["verdict"] for r in mine}))
        print(f"| {panel} | {kind} | {len(mine)} | {verdicts} | {sum(r['mark'] for r in mine) / len(mine):.3f} |")


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
    for seed, panel in [(s, p) for s in arguments.seeds for p in arguments.panels]:
        with tempfile.TemporaryDirectory() as folder:
            rows = run(bench, seed, Path(folder), panel)
        kept = [r for r in stored() if (r["seed"], r["panel"]) != (seed, panel)]
        RESULTS.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in (*kept, *rows)))


if __name__ == "__main__":
    main()
