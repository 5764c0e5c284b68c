"""The main job on one data set: train, claim, steal, audit, report; the pipeline behind `turnmark demo`.

Every step is resumable: what lies finished in the folder, of the same configuration and data, is not done again.
The images are split once, by seed: private (the victim's), public (the owner's, probes and reference thefts), and
world (the thief's queries and the independent encoders' data).
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from attacks_for_eval.claims.build import claim_with_references
from attacks_for_eval.claims.panel import PanelSpec, panel_specs, part_of
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.run import extract_to
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.errors import DataError
from ownership.io.files import write_json
from ownership.io.progress import Progress, silent
from ownership.plan import Plan
from ownership.reports.html import save_report
from ownership.reports.report import Report
from ownership.suspects.suspect import load_suspect
from ownership.verdict.rule import Verdict
from ownership.watermark import WatermarkKey, secret_key
from watermark_training.config import Mark, TrainConfig
from watermark_training.data import Data
from watermark_training.train_folder import load_trained, train_to

FORMATS = ("safetensors", "onnx")


INDEPENDENTS = (
    PanelSpec(name="same_data", watermark="none", trains_on_private=True),
    PanelSpec(name="other_data", watermark="none", trains_on_private=False),
    PanelSpec(name="foreign_key", watermark="secret", trains_on_private=True),
    PanelSpec(name="half_turn", watermark="paper", trains_on_private=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Sizes of one main job; the defaults are the demo's on the digits."""

    arch: str = "tiny"
    n_private: int = 500  # images the victim is trained on
    n_public: int = 600  # the owner's other images: two thirds become probes, the rest reference queries
    epochs: int = 50  # of the victim
    independent_epochs: int = 50  # of panel members and independents
    batch_size: int = 128
    lr: float = 2e-3
    temperature: float = 0.2
    min_crop: float = 0.2
    flip: bool = False  # mirrored digits are no digits
    extraction_epochs: int = 100
    queries: tuple[int, ...] = ()  # of each theft; empty: all of the world
    losses: tuple[str, ...] = ("mse", "infonce", "softnn")
    reference_epochs: int = 100
    panel: tuple[PanelSpec, ...] = panel_specs(rotation_invariant=False)
    independents: tuple[PanelSpec, ...] = INDEPENDENTS
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One audit of the job: what the suspect is, and what was found."""

    name: str
    role: Literal["surrogate", "independent"]
    format: str
    report: Report
    folder: Path

    @property
    def as_expected(self) -> bool:
        """Whether surrogates are SUPPORTED and independents NOT_SUPPORTED."""
        wanted = Verdict.SUPPORTED if self.role == "surrogate" else Verdict.NOT_SUPPORTED
        return self.report.verdict is wanted


def run_job(data: Data, out: Path, config: JobConfig, *, progress: Progress = silent) -> list[Row]:
    """Runs the main job into a folder.

    Args:
        data: all images; split by `config.seed`.
        out: `models/`, `claim/`, `suspects/`, `reports/` and `summary.json` are written here.
        config: sizes.
        progress: called as `("name of the step", steps done, steps in all)`.

    Returns:
        One row a suspect and format.

    Raises:
        DataError: if there are too few images.
    """
    private, public, world = _split(data, config)
    steps = _Steps(progress, 3 + len(config.panel) + len(config.independents) + len(_thefts(config, world)))
    victim_config = train_config(config, "secret", config.seed * 1000 + 1, config.epochs)
    with_key = _key(config.seed * 1000 + 1)
    train_to(out / "models/victim", private, victim_config, key=with_key, progress=steps.next("training the victim"))
    for role, group in (("panel", config.panel), ("independent", config.independents)):
        offset = config.seed * 1000 + (100 if role == "panel" else 200)
        for i, spec in enumerate(group):
            train_to(
                out / f"models/{role}_{spec.name}",
                private if spec.trains_on_private else part_of(world, config.n_private, offset + i),
                train_config(config, spec.watermark, offset + i, config.independent_epochs),
                key=_key(offset + i) if spec.watermark == "secret" else None,
                progress=steps.next(f"training {role} {spec.name}"),
            )
    _claim(out, private, public, config, steps.next("building the claim"))
    suspects: list[tuple[str, Literal["surrogate", "independent"]]] = []
    victim = load_trained(out / "models/victim")
    for name, theft in _thefts(config, world):
        folder = out / f"models/{name}"
        extract_to(folder, victim.encoder, victim.sha256, world, theft, progress=steps.next(f"stealing: {name}"))
        suspects.append((name, "surrogate"))
    suspects += [(f"independent_{s.name}", "independent") for s in config.independents]
    rows = list(_audits(out, suspects, steps.next("auditing")))
    write_json(out / "summary.json", [summary(row) for row in rows])
    return rows


def summary(row: Row) -> dict[str, Any]:
    """Returns a row's main numbers: verdict, and of every test the value and the largest p."""
    return {
        "suspect": row.name,
        "role": row.role,
        "format": row.format,
        "verdict": row.report.verdict.value,
        "as_expected": row.as_expected,
        "tests": {r.name: {"value": r.value, "pvalue": r.pvalue} for r in row.report.results},
    }


class _Steps:
    """Turns the progress of each step into progress over all of them, in thousandths of a step."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._current = progress, total, -1

    def next(self, what: str) -> Progress:
        self._current += 1
        current = self._current
        self._progress(what, 1000 * current, 1000 * self._total)

        def report(_: str, done: int, total: int) -> None:
            self._progress(what, 1000 * current + 1000 * done // max(1, total), 1000 * self._total)

        return report


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
        _pick(data, order[ends[1] :], "world"),
    )


def _pick(data: Data, rows: torch.Tensor, part: str) -> Data:
    labels = None if data.labels is None else data.labels[rows]
    return Data(name=f"{data.name} ({part})", images=data.images[rows], labels=labels)


def _key(seed: int) -> WatermarkKey:
    """The demo repeats itself, so its keys come from the seed; `turnmark train` draws them from the system."""
    return secret_key(torch.Generator().manual_seed(seed))


def train_config(config: JobConfig, watermark: Mark, seed: int, epochs: int) -> TrainConfig:
    """Returns the training configuration of one encoder of the job."""
    return TrainConfig(
        arch=config.arch,
        epochs=epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        temperature=config.temperature,
        min_crop=config.min_crop,
        flip=config.flip,
        watermark=watermark,
        watermark_fraction=0.5,  # few images, few passes: the default, a twelfth, is for long trainings
        seed=seed,
    )


def _thefts(config: JobConfig, world: Data) -> list[tuple[str, ExtractionConfig]]:
    out = []
    for n in config.queries or (len(world),):
        for i, loss in enumerate(config.losses):
            name = f"surrogate_{loss}" + (f"_{n}" if config.queries else "")
            theft = ExtractionConfig(
                loss=loss,
                arch=config.arch,
                queries=n,
                # fewer queries, more passes, so that every theft takes as many steps up to a factor of three
                epochs=min(3 * config.extraction_epochs, config.extraction_epochs * max(config.queries or (n,)) // n),
                batch_size=config.batch_size,
                lr=config.lr,
                seed=config.seed * 1000 + 300 + i,
            )
            out.append((name, theft))
    return out


def _claim(out: Path, private: Data, public: Data, config: JobConfig, progress: Progress) -> None:
    """Builds the claim, unless it is there (claims are never overwritten)."""
    plan = Plan(seed=config.seed)
    if (out / "claim/claim.json").is_file():
        Claim.load(out / "claim")
        return
    victim = load_trained(out / "models/victim")
    digest = victim.config["data"]["sha256"]
    members = []
    for spec in config.panel:
        loaded = load_trained(out / f"models/panel_{spec.name}")
        members.append((loaded.member(spec.name, spec.kind, digest), loaded.encoder))
    claim_with_references(
        victim,
        private,
        public,
        members,
        plan,
        reference_epochs=config.reference_epochs,
        seed=config.seed * 1000 + 400,
        progress=progress,
    ).save(out / "claim")


def _audits(
    out: Path, suspects: list[tuple[str, Literal["surrogate", "independent"]]], progress: Progress
) -> Iterator[Row]:
    """Audits every suspect in both forms from its file, as an auditor would."""
    claim = Claim.load(out / "claim")
    (out / "suspects").mkdir(parents=True, exist_ok=True)
    for i, (name, role) in enumerate(suspects):
        for j, suffix in enumerate(FORMATS):
            path = out / f"suspects/{name}.{suffix}"
            shutil.copyfile(out / f"models/{name}/encoder.{suffix}", path)
            command = f"turnmark audit {shlex.quote(str(path))} --claim {shlex.quote(str(out / 'claim'))}"
            suspect = load_suspect(path)
            report = audit(claim, suspect, command=command)
            suspect.close()
            folder = out / f"reports/{name}-{suffix}"
            save_report(report, folder)
            progress("auditing", i * len(FORMATS) + j + 1, len(suspects) * len(FORMATS))
            yield Row(name=name, role=role, format=suffix, report=report, folder=folder)


def demo_config(seed: int) -> JobConfig:
    """Returns the demo's configuration."""
    return replace(JobConfig(), seed=seed)
