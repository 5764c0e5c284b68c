"""Embed a watermark into a public checkpoint and audit encoders that share the checkpoint.

    TURNMARK_DATA=runs/data python -m benchmarks.retrofit run --work runs/verdicts --seeds 0 2

Needs the models of `python -m benchmarks.verdicts run --stage models` on Fashion-MNIST. The public checkpoint gets a
watermark by `turnmark embed` on a victim's private images. Three claims: with that victim's panel, the checkpoint in
the stratum *sibling*; without the checkpoint; and without that stratum, as if only the owner had the checkpoint: then
fine-tunes and surrogates of it are not independent.
Suspects: the checkpoint; six fine-tunes of it that are not in the panel; two plain independent encoders; surrogates of
the checkpoint, which owe nothing to the watermark's owner; and surrogates of the retrofitted model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attacks_for_eval.claims.build import claim_with_references
from attacks_for_eval.claims.references import ReferenceConfig
from benchmarks.common.machine import versions
from benchmarks.common.rows import Row, RowStore
from benchmarks.verdicts import design, suspects
from benchmarks.verdicts.bench import PLAN, Bench
from benchmarks.verdicts.groups import FULL_SIZE
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.claims.record import EncoderRecord, NamedEncoder
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.suspects.suspect import load_encoder
from ownership.watermark import secret_key
from watermark_training.embed import embed_to
from watermark_training.loaded_encoder import LoadedEncoder, load_trained
from watermark_training.watermark import watermark_rate

ROWS = RowStore("retrofit")
LOSSES = ("mse", "infonce", "softnn")
PANELS = ("with the checkpoint", "without the checkpoint", "the checkpoint is the owner's alone")


def run_seed(bench: Bench, seed: int, folder: Path, panels: Sequence[str]) -> list[Row]:
    """Retrofit the checkpoint with a key of this seed; return a row on the model and one an audit."""
    victim = bench.scale.fine_tuned[seed % len(bench.scale.fine_tuned)]  # whose private images and panel
    checkpoint = load_trained(bench.checkpoint)
    key = secret_key(torch.Generator().manual_seed(500 + seed))
    embed_to(
        folder / "victim",
        checkpoint,
        bench.sources[f"private_{victim}"],
        {"watermark": "secret", "seed": seed},
        key=key,
    )
    owner = load_trained(folder / "victim")

    def watermark(encoder: EncoderLike) -> float:
        assert owner.predictor is not None
        return watermark_rate(encoder, owner.predictor, key, bench.sources["probe-test"].images[:1000], seed=seed)

    rows: list[Row] = [{"what": "model", "seed": seed, "watermark": watermark(owner.encoder), "versions": versions()}]
    rows[0] |= usefulness(bench, checkpoint.encoder, owner.encoder)
    suspects = list(suspects_of(bench, victim, folder / "surrogates", checkpoint, owner))
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
    """Return the accuracy of a head fitted before, on both encoders, and of a head fitted after."""
    learn, test = bench.sources["probe-learn"], bench.sources["probe-test"]
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    head.fit(represent(before, learn.images), learn.labels)
    shown = {"head": before, "old_head": after}
    out = {name: float(head.score(represent(model, test.images), test.labels)) for name, model in shown.items()}
    head.fit(represent(after, learn.images), learn.labels)
    return out | {"new_head": float(head.score(represent(after, test.images), test.labels))}


def suspects_of(
    bench: Bench, victim: int, folder: Path, checkpoint: LoadedEncoder, owner: LoadedEncoder
) -> Iterator[tuple[str, Path]]:
    """Yield kind and file of every suspect."""
    yield "the checkpoint itself", bench.checkpoint
    from_checkpoint = "fine-tune of the public checkpoint"
    for spec in suspects.independents(bench.scale, bench.checkpoint.name):
        if spec.kind == from_checkpoint or (spec.kind == "plain, other data" and spec.seed < 5002):
            yield spec.kind, bench.factory.make(spec)
    for whose, source in (("checkpoint", checkpoint), ("retrofitted model", owner)):
        assert isinstance(source.encoder, Encoder)
        factory = replace(bench.factory, folder=folder, victim=(source.encoder, source.sha256))
        for i, loss in enumerate(LOSSES):
            spec = suspects.surrogate(bench.scale, victim, "surrogate", 80 + i, loss=loss, images=10_000)
            yield f"surrogate of the {whose}, {loss}", factory.make(spec)


def claim_of(bench: Bench, victim: int, owner: LoadedEncoder, panel: str, seed: int) -> Claim:
    """Build the claim with one of the panels."""
    members = []
    for i, (stratum, spec) in enumerate(bench.panel(victim, FULL_SIZE)):
        suspect = load_encoder(bench.factory.make(spec))
        left_out = {PANELS[0]: False, PANELS[1]: suspect.sha256 == owner.config["base_checkpoint"], PANELS[2]: True}
        if stratum == "sibling" and left_out[panel]:
            continue
        member = EncoderRecord(
            name=f"{stratum}_{i}", kind=stratum, sha256=suspect.sha256, architecture=suspect.architecture
        )
        members.append(NamedEncoder(member, suspect.encoder))
    return claim_with_references(
        owner,
        bench.sources[f"private_{victim}"],
        bench.sources[f"public_{victim}"],
        members,
        replace(PLAN, seed=seed),
        references=ReferenceConfig(epochs=40, seed=seed),
        base_checkpoint_is_private=panel != PANELS[0],  # else it is refused; here to see what it would do
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--work", type=Path, default=Path("runs/verdicts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--panels", choices=PANELS, nargs="+", default=PANELS)


def run(arguments: argparse.Namespace) -> None:
    """Measure each seed and replace its rows."""
    bench = Bench(design.FASHION, arguments.work)
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows = run_seed(bench, seed, Path(folder), arguments.panels)
        ROWS.replace(rows, lambda r: (r["what"], r["seed"], r.get("panel")))
