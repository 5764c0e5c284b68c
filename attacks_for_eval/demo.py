"""The demo job on one data set: train, claim, extract, audit, report; the pipeline behind `turnmark demo`.

Every step is resumable: what is finished in the folder, with the same configuration and data, is not done again. The
images are split once, by the seed: private (the victim's), public (the owner's: probes and reference queries), and
other (the attacker's queries and the independent encoders' images).

Keys follow from the seed, so that the demo repeats itself. The seed is public, so they protect nothing:
`turnmark key new` and `turnmark train` draw keys from the system's randomness.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from attacks_for_eval.claims.build import claim_with_references
from attacks_for_eval.claims.panel_spec import PanelSpec, draw_images
from attacks_for_eval.claims.references import ReferenceConfig
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.run import Victim, extract_to
from attacks_for_eval.seeded_key import seeded_key
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.claims.record import NamedEncoder
from ownership.errors import DataError
from ownership.io.files import write_json
from ownership.io.progress import Progress, part, silent
from ownership.keyed.pool import KeyMaterial
from ownership.plan import Plan
from ownership.reports.html import save_report
from ownership.reports.report import Report
from ownership.suspects.suspect import load_suspect
from ownership.verdict.rule import Verdict
from ownership.watermark import WatermarkKey, secret_key
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig, WatermarkTask
from watermark_training.data import Data
from watermark_training.loaded_encoder import load_trained
from watermark_training.train_folder import train_to

FORMATS = ("safetensors", "onnx")
Role = Literal["surrogate", "independent"]

INDEPENDENTS = (
    PanelSpec(name="same_data", watermark="none", trains_on_private=True),
    PanelSpec(name="other_data", watermark="none", trains_on_private=False),
    PanelSpec(name="foreign_key", watermark="secret", trains_on_private=True),
    PanelSpec(name="other_owner", watermark="keyed", trains_on_private=True),
)
"""Suspects that are independent of the victim; the last one carries another owner's keyed watermark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Sizes of one demo job; the defaults are those of `turnmark demo` on the digits.

    Attributes:
        arch: architecture of every encoder.
        watermark: the victim's.
        n_private: images the victim is trained on.
        n_public: other images of the owner: two thirds at most become probes, the rest reference queries. With a
            keyed watermark they are the pool of its key.
        epochs: of the victim.
        independent_epochs: of panel members and independent suspects.
        batch_size: of every training.
        lr: Adam's learning rate.
        temperature: NT-Xent's.
        min_crop: smallest fraction of the image area that a crop keeps.
        flip: whether views may be mirrored; mirrored digits are not digits.
        extraction_epochs: of surrogates with the most queries.
        queries: numbers of queries, one surrogate each; empty for all other images.
        losses: extraction losses, one surrogate each.
        reference_epochs: of reference surrogates.
        panel: members of the reference panel; none for a claim whose only evidence is the key.
        independents: suspects that are independent of the victim.
        seed: of everything.
    """

    arch: str = "tiny"
    watermark: WatermarkTask = "keyed"
    n_private: int = 500
    n_public: int = 600
    epochs: int = 50
    independent_epochs: int = 50
    batch_size: int = 128
    lr: float = 2e-3
    temperature: float = 0.2
    min_crop: float = 0.2
    flip: bool = False
    extraction_epochs: int = 60
    queries: tuple[int, ...] = ()
    losses: tuple[str, ...] = ("mse", "infonce", "softnn")
    reference_epochs: int = 60
    panel: tuple[PanelSpec, ...] = ()
    independents: tuple[PanelSpec, ...] = INDEPENDENTS
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One audit of the job.

    Attributes:
        name: of the suspect.
        role: what the suspect is.
        format: of its file.
        report: the audit's.
        folder: of the report.
    """

    name: str
    role: Role
    format: str
    report: Report
    folder: Path

    @property
    def as_expected(self) -> bool:
        """Whether a surrogate is SUPPORTED, or an independent encoder NOT_SUPPORTED."""
        wanted = Verdict.SUPPORTED if self.role == "surrogate" else Verdict.NOT_SUPPORTED
        return self.report.verdict is wanted


def run_job(data: Data, out: Path | str, config: JobConfig, *, progress: Progress = silent) -> list[Row]:
    """Run the demo job into a folder.

    Args:
        data: all images; they are split by `config.seed`.
        out: `models/`, `claim/`, `suspects/`, `reports/` and `summary.json` are written here.
        config: sizes.
        progress: called as it goes, with "step 3 of 23" and the progress of that step.

    Returns:
        One row for each suspect and format.

    Raises:
        DataError: if there are too few images.
    """
    out = Path(out)
    private, public, others = _split(data, config)
    attacks = _extractions(config, others)
    step = _steps(progress, 3 + len(config.panel) + len(config.independents) + len(attacks))
    seed = config.seed * 1000 + 1
    victim_config = train_config(config, config.watermark, seed, config.epochs)
    train_to(
        out / "models/victim",
        private,
        victim_config,
        key=_key(config.watermark, seed),
        material=_material(config.watermark, public, seed),
        callbacks=Callbacks(progress=step("victim")),
    )
    for role, group in (("panel", config.panel), ("independent", config.independents)):
        offset = config.seed * 1000 + (100 if role == "panel" else 200)
        for i, spec in enumerate(group):
            train_to(
                out / f"models/{role}_{spec.name}",
                private if spec.trains_on_private else draw_images(others, config.n_private, offset + i),
                train_config(config, spec.watermark, offset + i, config.independent_epochs),
                key=_key(spec.watermark, offset + i),
                material=_material(spec.watermark, public, offset + i),
                onnx=role == "independent",
                callbacks=Callbacks(progress=step(f"{role} {spec.name}")),
            )
    _claim(out, private, public, config, step("claim"))
    victim = Victim.of(load_trained(out / "models/victim"))
    for name, attack in attacks:
        extract_to(out / f"models/{name}", victim, others, attack, onnx=True, progress=step(name))
    suspects: list[tuple[str, Role]] = [(name, "surrogate") for name, _ in attacks]
    suspects += [(f"independent_{s.name}", "independent") for s in config.independents]
    rows = list(_audits(out, suspects, step("audits")))
    write_json(out / "summary.json", [summary(row) for row in rows])
    return rows


def summary(row: Row) -> dict[str, Any]:
    """Return a row's main numbers: the verdict, the key test, and value and largest p-value of every panel test."""
    key = row.report.findings.key
    found = None if key is None else {"pvalue": key.pvalue, "z": {name: m.z for name, m in key.maps.items()}}
    return {
        "suspect": row.name,
        "role": row.role,
        "format": row.format,
        "verdict": row.report.verdict.value,
        "as_expected": row.as_expected,
        "key": found,
        "tests": {r.name: {"value": r.value, "pvalue": r.pvalue} for r in row.report.results},
    }


def _steps(progress: Progress, count: int) -> Callable[[str], Progress]:
    """A function that starts the next step, of this name, and returns its progress."""
    done = 0

    def step(name: str) -> Progress:
        nonlocal done
        done += 1
        return part(progress, "step", done, count, name)

    return step


def _split(data: Data, config: JobConfig) -> tuple[Data, Data, Data]:
    needed = config.n_private + config.n_public + 300
    if len(data) < needed:
        raise DataError(f"{len(data)} images are too few", f"at least {needed} for this job")
    generator = torch.Generator().manual_seed(config.seed * 1000)
    order = torch.randperm(len(data), generator=generator)
    ends = (config.n_private, config.n_private + config.n_public)
    return (
        _pick(data, order[: ends[0]], "private"),
        _pick(data, order[ends[0] : ends[1]], "public"),
        _pick(data, order[ends[1] :], "other"),
    )


def _pick(data: Data, rows: torch.Tensor, name: str) -> Data:
    labels = None if data.labels is None else data.labels[rows]
    return Data(name=f"{data.name} ({name})", images=data.images[rows], labels=labels)


def _key(watermark: WatermarkTask, seed: int) -> WatermarkKey | None:
    return secret_key(torch.Generator().manual_seed(seed)) if watermark == "secret" else None


def _material(watermark: WatermarkTask, public: Data, seed: int) -> KeyMaterial | None:
    """A key of the keyed watermark whose pool is the public images: two thirds are probes."""
    if watermark != "keyed":
        return None
    return seeded_key(f"turnmark demo, key {seed}", public.images, probes=2 * len(public) // 3)


def train_config(config: JobConfig, watermark: WatermarkTask, seed: int, epochs: int) -> TrainConfig:
    """Return the training configuration of one encoder of the job."""
    return TrainConfig(
        arch=config.arch,
        epochs=epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        temperature=config.temperature,
        min_crop=config.min_crop,
        flip=config.flip,
        watermark=watermark,
        keyed_weight=1,  # few images and epochs: the defaults are for long trainings
        keyed_fraction=0.5,
        watermark_fraction=0.5,
        seed=seed,
    )


def _extractions(config: JobConfig, others: Data) -> list[tuple[str, ExtractionConfig]]:
    """Name and configuration of every surrogate."""
    out = []
    sizes = config.queries or (len(others),)
    for n in sizes:
        for i, loss in enumerate(config.losses):
            name = f"surrogate_{loss}" + (f"_{n}" if config.queries else "")
            attack = ExtractionConfig(
                loss=loss,
                arch=config.arch,
                queries=n,
                # with fewer queries more epochs, so that all take the same number of steps up to a factor of three
                epochs=min(3 * config.extraction_epochs, config.extraction_epochs * max(sizes) // n),
                batch_size=config.batch_size,
                lr=config.lr,
                seed=config.seed * 1000 + 300 + i,
            )
            out.append((name, attack))
    return out


def _claim(out: Path, private: Data, public: Data, config: JobConfig, progress: Progress) -> None:
    """Build the claim, unless it exists: claims are never overwritten."""
    if (out / "claim/claim.json").is_file():
        Claim.load(out / "claim")
        return
    victim = load_trained(out / "models/victim")
    digest = victim.config["data"]["sha256"]
    members = []
    for spec in config.panel:
        loaded = load_trained(out / f"models/panel_{spec.name}")
        members.append(NamedEncoder(loaded.member(spec.name, spec.kind, digest), loaded.encoder))
    claim_with_references(
        victim,
        private if members else None,  # dataset inference needs a panel
        public,
        members,
        Plan(seed=config.seed),
        references=ReferenceConfig(epochs=config.reference_epochs, seed=config.seed * 1000 + 400),
        progress=progress,
    ).save(out / "claim")


def _audits(out: Path, suspects: list[tuple[str, Role]], progress: Progress) -> Iterator[Row]:
    """Audit every suspect in both formats from its file, as an auditor does."""
    claim = Claim.load(out / "claim")
    (out / "suspects").mkdir(parents=True, exist_ok=True)
    for i, (name, role) in enumerate(suspects):
        for j, suffix in enumerate(FORMATS):
            path = out / f"suspects/{name}.{suffix}"
            shutil.copyfile(out / f"models/{name}/encoder.{suffix}", path)
            with load_suspect(path) as suspect:
                report = replace(audit(claim, suspect), command=f"turnmark audit {path.name} --claim claim")
            folder = out / f"reports/{name}-{suffix}"
            save_report(report, folder)
            progress("auditing", i * len(FORMATS) + j + 1, len(suspects) * len(FORMATS))
            yield Row(name=name, role=role, format=suffix, report=report, folder=folder)
