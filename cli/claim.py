"""`turnmark claim build`, `show`, `probes` and `power`; the commands that seal and verify are in `cli.seal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render, seal
from cli.options import (
    DATA_HELP,
    N_PROBES_HELP,
    Arch,
    AsJson,
    Device,
    KeyAlpha,
    OptionalPrivate,
    Out,
    PanelAlpha,
    Seed,
    Size,
    TwinsAlpha,
    TwinsFolder,
    TwinsTried,
)
from ownership.errors import ClaimError, OwnershipError
from ownership.io.files import refuse_existing

app = typer.Typer(help="Build, read, seal and share claims.", no_args_is_help=True)


@app.command(
    help=(
        "Build a claim: choose probes, compute the panel's representations, fix the plan. Do it before any dispute, "
        "and keep the claim secret."
    ),
    short_help="Build a claim.",
)
def build(
    victim: Annotated[Path, typer.Argument(help="Train folder, or any encoder file.", show_default=False)],
    out: Out,
    public: Annotated[
        str | None,
        typer.Option(
            help="Images that the victim was not trained on, described like --private: with a key, the images that it "
            "was made for. Probes are drawn from them; reference surrogates are extracted with the others [default: "
            "the probes of the victim's key].",
            show_default=False,
        ),
    ] = None,
    private: OptionalPrivate = None,
    panel: Annotated[
        list[str] | None,
        typer.Option(
            help="Independent encoder, [STRATUM:]PATH, or a folder of turnmark panel. Repeat for several. Needed for a "
            "victim without a key, and a second kind of evidence for one with a key. STRATUM is plain, watermarked "
            "(another watermark), sibling (fine-tuned from the victim's base checkpoint), rotation_invariant (trained "
            "on rotated views), distilled (distilled to be rotation-invariant), small (of less capacity than the "
            "victim) or public (published by others). At least 5 in a stratum. Without plain or watermarked ones a "
            "suspect must also be close to the owner's own surrogates.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option(help="Extract reference surrogates, which show what the claim can detect.")
    ] = True,
    reference_epochs: Annotated[int, typer.Option(min=1, help="Epochs of each reference surrogate.")] = 100,
    keep_references: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write the reference surrogates' files to, for an auditor who computes their "
            "representations again (turnmark audit --models). Keep them secret.",
            show_default=False,
        ),
    ] = None,
    n_probes: Annotated[int, typer.Option("--n-probes", min=2, help=N_PROBES_HELP)] = 1000,
    private_base_checkpoint: Annotated[
        bool,
        typer.Option(
            "--base-checkpoint-is-private",
            help=(
                "The model that the victim's training started from is yours and was never published: it may count as "
                "a copy."
            ),
        ),
    ] = False,
    keys_tried: Annotated[
        int,
        typer.Option(min=1, max=10**9, help="Keys committed to for this victim, abandoned ones too; p times this."),
    ] = 1,
    key_alpha: KeyAlpha = 1e-4,
    twins: TwinsFolder = None,
    twins_tried: TwinsTried = 1,
    twins_alpha: TwinsAlpha = 0.01,
    alpha: PanelAlpha = 0.01,
    arch: Arch = None,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Build and write a claim."""
    if private is not None and private == public:
        raise typer.BadParameter("--private and --public are the same images")
    refuse_existing(out, ClaimError)
    if keep_references is not None:
        if not reference:
            raise typer.BadParameter("--keep-references without reference surrogates")
        refuse_existing(keep_references, ClaimError)
    inputs.check_encoder(victim, "victim")
    for images, name in ((private, "--private"), (public, "--public")):
        if images is not None:
            inputs.check_images(images, what=name)
    if twins is None and twins_tried > 1:
        raise typer.BadParameter("--twins-tried needs --twins")
    if panel and private is None:
        raise typer.BadParameter("--panel needs --private: members are told apart by whether they saw those images")
    for entry in panel or ():
        inputs.check_panel(entry)

    from attacks_for_eval.claims.build import claim_with_references
    from attacks_for_eval.claims.panel_spec import stratum_of
    from attacks_for_eval.claims.references import ReferenceConfig
    from ownership.claims.record import NamedEncoder
    from ownership.claims.twins import Twins
    from ownership.encoders.images import images_sha256
    from ownership.plan import Plan
    from watermark_training.data import Data, load_data
    from watermark_training.device import pick_device
    from watermark_training.loaded_encoder import load_trained

    half = max(2, n_probes // 2)
    plan = Plan(
        key_alpha=key_alpha,
        twins_alpha=twins_alpha,
        alpha=alpha,
        n_public=n_probes,
        n_watermark=half,
        n_private=half,
        seed=seed,
    )
    committed = None if twins is None else Twins.load(twins)
    owner = load_trained(victim, arch)
    with render.progress(render.LOADING):
        inside = None if private is None else load_data(private, size=size)
        given = None if public is None else load_data(public, size=size)
    if given is not None:
        outside = given
    elif owner.material is not None:
        outside = Data(name="the probes of the key", images=owner.material.probes, labels=None)
    else:
        raise typer.BadParameter("the victim has no key, so --public is needed")
    digest = None if inside is None else images_sha256(inside.images)
    members = []
    for i, (kind, path) in enumerate(p for entry in panel or () for p in _kinds_and_paths(entry)):
        loaded = load_trained(path)
        kind = kind or stratum_of(loaded.config, owner.config)
        if loaded.config.get("victim_sha256") == owner.sha256:
            raise ClaimError(f"{path} was extracted from the victim: it cannot be a panel member", "leave it out")
        members.append(NamedEncoder(loaded.member(f"panel_{i}_{kind}", kind, digest), loaded.encoder))
    references = None
    if reference:
        chosen = pick_device(device)
        references = ReferenceConfig(epochs=reference_epochs, seed=seed, device=chosen, keep=keep_references)
    with render.progress() as progress:
        built = claim_with_references(
            owner,
            inside,
            outside,
            members,
            plan,
            keys_tried=keys_tried,
            twins=committed,
            twins_tried=twins_tried,
            references=references,
            base_checkpoint_is_private=private_base_checkpoint,
            progress=progress,
        )
    saved = built.save(out)
    if reference and not built.references:
        render.warn(
            "no reference surrogates (too few unused public images, or no built-in architecture of that dimension)"
        )
    render.line(f"claim written: {out} (SHA-256 {saved.sha256}); keep it secret")
    show(out)


def _kinds_and_paths(entry: str) -> list[tuple[str | None, Path]]:
    """Return what `--panel` names: one encoder, or all in a folder of `turnmark panel`."""
    from attacks_for_eval.claims.panel import train_folders_in
    from ownership.plan import STRATA

    before, colon, after = entry.partition(":")
    kind, path = (before, Path(after)) if colon and before in STRATA else (None, Path(entry))
    return [(kind, member) for member in train_folders_in(path)]


@app.command(
    help="Describe a claim: victim, panel, plan, and what it can detect. Its digests are verified first.",
    short_help="Describe a claim.",
)
def show(claim: seal.Folder) -> None:
    """Print a description of a claim."""
    inputs.check_claim(claim)

    from ownership.auditing.panel_strength import panel_strength
    from ownership.claims.claim import Claim
    from ownership.reports.claim_text import describe

    loaded = Claim.load(claim)
    for line in describe(loaded, panel_strength(loaded)):
        render.line(line)


@app.command(
    help="Write a claim's probes as a folder of pictures, shuffled and mixed with decoys, for someone else to compute "
    "representations of. Audit what comes back with turnmark audit ROWS --probe-folder FOLDER.",
    short_help="Export probes as pictures.",
)
def probes(
    claim: seal.Folder,
    out: Out,
    decoys: Annotated[
        str | None,
        typer.Option(
            help="Images to draw decoys from [default: altered copies of public probes]. " + DATA_HELP,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export a claim's probes."""
    inputs.check_claim(claim)
    refuse_existing(out, OwnershipError)
    if decoys is not None:
        inputs.check_images(decoys, what="--decoys")

    from ownership.auditing.probe_export import export_probes
    from ownership.claims.claim import Claim
    from watermark_training.data import load_data

    loaded = Claim.load(claim)
    height, width = loaded.probes["public"].shape[-2:]
    drawn = None if decoys is None else load_data(decoys, size=height if height == width else None).images
    with render.progress() as progress:
        count = export_probes(loaded, out, drawn, progress=progress)
    render.line(f"{count} pictures written: {out}; send the whole folder, and keep it for the audit")


@app.command(
    help=(
        "Compute, before any dispute, the power of a claim: the probability that it detects surrogates like its "
        "references. Repeat --n-probes for smaller numbers of public probes."
    ),
    short_help="Compute the power of a claim.",
)
def power(
    claim: seal.Folder,
    target_power: Annotated[float, typer.Option(min=0.5, max=0.999, help="Power that the panel is sized for.")] = 0.9,
    n_probes: Annotated[
        list[int] | None, typer.Option("--n-probes", min=20, help=N_PROBES_HELP, show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the power of the key test and of every primary test against every reference surrogate."""
    inputs.check_claim(claim)

    from dataclasses import asdict

    from ownership.auditing.panel_strength import panel_strength
    from ownership.claims.claim import Claim
    from ownership.claims.key_ranks import key_power
    from ownership.claims.power import claim_power, power_by_probes
    from ownership.plan import MIN_RELATIVE_SIMILARITY, REQUIRED_STRATA
    from ownership.reports.claim_text import weak_strata_lines

    loaded = Claim.load(claim)
    if not loaded.references:
        raise ClaimError("this claim has no reference surrogates to compute power from", "build it with --reference")
    have = len(loaded.probes["public"])
    few = sorted({n for n in n_probes or () if n < have})
    by_key, found = [], {}
    strength = panel_strength(loaded)
    weak = () if strength is None else strength.weak_strata
    if loaded.material is not None:
        with render.progress() as progress:
            by_key = key_power(loaded, [*few, have], progress)
    if loaded.members:
        found = {
            **power_by_probes(loaded, few, weak=weak, wanted=target_power),
            have: claim_power(loaded, weak=weak, wanted=target_power),
        }
    if as_json:
        keyed = [{**asdict(p), "power": p.power, "interval": p.interval} for p in by_key]
        panel = {n: [asdict(p) for p in rows] for n, rows in found.items()}
        render.data({"key_test": keyed, "primary_tests": panel, "weak_strata": weak})
        return
    if by_key:
        render.key_power(by_key)
    if strength is None:
        return
    for line in weak_strata_lines(strength):
        render.warn(line)
    if not any(found.values()):
        render.line("no stratum counts, so no test of the panel has power")
        return
    render.power(found, target_power)
    if not any(loaded.stratum(kind) for kind in REQUIRED_STRATA if kind not in weak):
        render.line(
            f"with this panel a suspect must also come {MIN_RELATIVE_SIMILARITY:g} of the way from the panel to the "
            "closest reference surrogate; the power above does not account for that"
        )


app.command(help=seal.SEAL, short_help="Commit, sign and timestamp a claim.")(seal.seal)
app.command(help=seal.ATTACH, short_help="Store a timestamp reply.")(seal.attach)
app.command(help=seal.VERIFY, short_help="Verify a sealed claim.")(seal.verify)
app.command(help=seal.DISCLOSE, short_help="Reveal single parts of a sealed claim.")(seal.disclose)
app.command(help=seal.REDACT, short_help="Write a redacted claim for an auditor.")(seal.redact)
app.command("check-disclosure", help=seal.CHECK, short_help="Verify a disclosure.")(seal.check_disclosure)
