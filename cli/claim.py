"""`turnmark claim build`, `show`, `probes` and `power`; those that seal and verify are in `cli.seal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render, seal
from cli.options import DATA_HELP, Arch, Device, Out, Seed, Size

app = typer.Typer(help="Build and read claims: what an owner fixes before a dispute.", no_args_is_help=True)
app.command(help=seal.SEAL)(seal.seal)
app.command(help=seal.ATTACH)(seal.attach)
app.command(help=seal.VERIFY)(seal.verify)
app.command(help=seal.DISCLOSE)(seal.disclose)
app.command(help=seal.VIEW)(seal.view)
app.command(help=seal.ENCRYPT)(seal.encrypt)
app.command(help=seal.DECRYPT)(seal.decrypt)
app.command("check-disclosure", help=seal.CHECK)(seal.check_disclosure)


@app.command(
    help="Build a claim: choose probes, run the panel of independent encoders, fix the plan. Do it before any dispute, "
    "and keep the claim secret."
)
def build(
    victim: Annotated[Path, typer.Argument(help="Train folder, or any encoder file.", show_default=False)],
    private: Annotated[str, typer.Option(help="Images the victim was trained on. " + DATA_HELP, show_default=False)],
    public: Annotated[
        str, typer.Option(help="Images it was not trained on; probes are drawn from them.", show_default=False)
    ],
    panel: Annotated[
        list[str],
        typer.Option(
            help="Independent encoder, [KIND:]PATH, or a folder of turnmark panel; give it many times. KIND is plain, "
            "marked (somebody else's watermark), invariant (trained on rotated views), student (taught to answer alike "
            "however an image is turned), ancestor (grown from the same public checkpoint), small (of less capacity "
            "than the victim) or public (published by others). At least 5 of a kind; with none plain or marked a "
            "suspect must come close to the owner's own copies.",
            show_default=False,
        ),
    ],
    out: Out,
    reference: Annotated[bool, typer.Option(help="Make reference surrogates, to know what the claim can find.")] = True,
    reference_epochs: Annotated[int, typer.Option(min=1, help="Passes over the answers, each.")] = 100,
    probes: Annotated[int, typer.Option(min=2, help="Public probes, if there are that many.")] = 1000,
    ancestor_is_mine: Annotated[
        bool,
        typer.Option(
            "--base-checkpoint-is-private",
            help="The model that training went on from is yours and was never published: it may count as a copy.",
        ),
    ] = False,
    alpha: Annotated[
        float, typer.Option(help="Chance of a false verdict against an innocent of the panel's kinds.")
    ] = 0.01,
    arch: Arch = None,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Builds and writes a claim."""
    from attacks_for_eval.claims.build import claim_with_references
    from attacks_for_eval.claims.panel import stratum
    from ownership.encoders.images import images_sha256
    from ownership.errors import ClaimError
    from ownership.io.files import refuse_existing
    from ownership.plan import Plan
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.train_folder import load_trained

    refuse_existing(out)
    plan = Plan(alpha=alpha, n_public=probes, n_watermark=max(2, probes // 2), n_private=max(2, probes // 2), seed=seed)
    inside, outside = load_data(private, size=size), load_data(public, size=size)
    owner = load_trained(victim, arch)
    digest = images_sha256(inside.images)
    members = []
    for i, (kind, path) in enumerate(p for entry in panel for p in _kinds_and_paths(entry)):
        loaded = load_trained(path)
        kind = kind or stratum(loaded.config, owner.config)
        if loaded.config.get("victim_sha256") == owner.sha256:
            raise ClaimError(f"{path} was stolen from the victim: no panel member", "leave it out")
        members.append((loaded.member(f"panel_{i}_{kind}", kind, digest), loaded.encoder))
    with render.progress() as progress:
        built = claim_with_references(
            owner,
            inside,
            outside,
            members,
            plan,
            reference_epochs=reference_epochs if reference else 0,
            seed=seed,
            own_base_checkpoint=ancestor_is_mine,
            device=pick_device(device),
            progress=progress,
        )
    digest = built.save(out)
    if reference and not built.references:
        render.err.print("note: no reference surrogates (too few spare public images, or no architecture of that size)")
    render.out.print(f"claim written: {out} (SHA-256 {digest}); keep it secret")
    show(out)


def _kinds_and_paths(entry: str) -> list[tuple[str | None, Path]]:
    """What `--panel` names: one encoder, or all in a folder that `turnmark panel` wrote."""
    from attacks_for_eval.claims.panel import members_in
    from ownership.plan import STRATA

    before, colon, after = entry.partition(":")
    kind, path = (before, Path(after)) if colon and before in STRATA else (None, Path(entry))
    return [(kind, member) for member in members_in(path)]


@app.command(help="Explain a claim: victim, panel, plan, and what it can find. Checks its digests first.")
def show(claim: Annotated[Path, typer.Argument(help="The claim's folder.", show_default=False)]) -> None:
    """Prints a claim in words."""
    from rich.markup import escape

    from ownership.claims.claim import Claim
    from ownership.claims.describe import describe

    for line in describe(Claim.load(claim)):
        render.out.print(escape(line), soft_wrap=True)


@app.command(
    help="Write a claim's probes as a folder of pictures, shuffled and mixed with decoys, for somebody else to embed. "
    "The rows that come back are audited with turnmark audit ROWS --probes FOLDER."
)
def probes(
    claim: Annotated[Path, typer.Argument(help="The claim's folder.", show_default=False)],
    out: Out,
    decoys: Annotated[
        str | None,
        typer.Option(
            help="Pictures to draw decoys from; altered copies of public probes if not given. " + DATA_HELP,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Exports a claim's probes."""
    from ownership.auditing.probe_export import export_probes
    from ownership.claims.claim import Claim
    from watermark_training.data import load_data

    loaded = Claim.load(claim)
    height, width = loaded.probes["public"].shape[-2:]
    drawn = None if decoys is None else load_data(decoys, size=height if height == width else None).images
    with render.progress() as progress:
        count = export_probes(loaded, out, drawn, progress=progress)
    render.out.print(f"{count} pictures written: {out}; send all of it, and keep it for the audit", soft_wrap=True)


@app.command(help="Say, before any dispute, how surely this claim finds thefts like its reference surrogates.")
def power(
    claim: Annotated[Path, typer.Argument(help="The claim's folder.", show_default=False)],
    wanted: Annotated[float, typer.Option(min=0.5, max=0.999, help="Power to compute the panel's size for.")] = 0.9,
    probes: Annotated[
        list[int] | None,
        typer.Option(min=20, help="Also with only so many public probes; give it many times.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prints the power of every deciding test against every reference surrogate."""
    import json
    from dataclasses import asdict

    from ownership.claims.claim import Claim
    from ownership.claims.power import claim_power, power_by_probes
    from ownership.errors import ClaimError
    from ownership.plan import MIN_RELATIVE_SIMILARITY, REQUIRED_STRATA

    loaded = Claim.load(claim)
    if not loaded.references:
        raise ClaimError("this claim has no reference surrogates to go by", "build it with --reference")
    have = len(loaded.probes["public"])
    few = sorted({n for n in probes or () if n < have})
    found = {**power_by_probes(loaded, few, wanted=wanted), have: claim_power(loaded, wanted=wanted)}
    if as_json:
        typer.echo(json.dumps({n: [asdict(p) for p in rows] for n, rows in found.items()}, indent=2))
        return
    render.power(found, wanted)
    if not any(loaded.stratum(kind) for kind in REQUIRED_STRATA):
        render.out.print(
            f"with this panel a suspect must besides come {MIN_RELATIVE_SIMILARITY:g} of the way to the closest reference surrogate: "
            "these chances leave that out"
        )
