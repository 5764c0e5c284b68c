"""Audits of many models against claims: make or load each model, audit it from its file, keep one row an audit.

Each row is a file, `rows/KEY.json`, named after the hash of everything it follows from: an interrupted evaluation
continues, on another machine too. Work runs through joblib: `joblib.parallel_config(backend="dask")` distributes it
over a cluster.
"""

from __future__ import annotations

import csv
import io
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from attacks_for_eval.evaluation.factory import ModelFactory, transform_outputs
from attacks_for_eval.evaluation.linear import linear_evaluation
from attacks_for_eval.evaluation.parallel import parallel_map
from attacks_for_eval.evaluation.spec import DEFAULT, Hyperparameters, ModelSpec, Objective, check_start
from attacks_for_eval.evasion.apply import lossless
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike
from ownership.errors import TrainingError
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import read_json, write_bytes, write_json
from ownership.io.progress import Progress, silent
from ownership.reports.report import Report
from ownership.suspects.suspect import load_encoder, load_suspect
from watermark_training.data import Data
from watermark_training.loaded_encoder import load_trained

Row = dict[str, Any]
"""One audit: flat, JSON-ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A victim, its claim, and the name of both in the rows."""

    name: str
    victim: Path  # train folder
    claim: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model as the suspect of one claim."""

    spec: ModelSpec
    case: str  # name of the case whose claim it is audited against; a surrogate is extracted from its victim
    output_transform: str = ""  # evasions of the model that need no training, as in `evasion.apply.EVASIONS`

    def key(self, settings: Hyperparameters, claim: str) -> str:
        """Return the name of the row: a hash of the specification, the settings and the claim's SHA-256."""
        made_from = {
            "spec": self.spec.to_dict(),
            "case": self.case,
            "output_transform": self.output_transform,
            "settings": asdict(settings),
            "claim": claim,
        }
        return sha256(canonical_json(made_from))[:16]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Evaluation:
    """What all cells share; each process reads it once."""

    out: Path  # rows/ and models/ are written here
    cases: dict[str, Case]
    sources: dict[str, Data]
    settings: Hyperparameters = DEFAULT
    labeled: tuple[Data, Data] | None = None  # linear probe: images to train on and to test on
    models: Path | None = None  # where models are kept; out/models if not given

    def factory(self, case: str) -> ModelFactory:
        """Return the factory of a case's models."""
        encoder, digest = _victim(self.cases[case].victim)
        folder = self.models or self.out / "models"
        return ModelFactory(folder=folder, sources=self.sources, victim=(encoder, digest), settings=self.settings)

    def row_path(self, cell: Cell) -> Path:
        """Return the file of a cell's row."""
        key = cell.key(self.settings, _claim(self.cases[cell.case].claim).sha256)
        return self.out / "rows" / f"{key}.json"


def evaluate(evaluation: Evaluation, cells: Sequence[Cell], *, jobs: int = 1, progress: Progress = silent) -> list[Row]:
    """Run the cells that have no row yet.

    Args:
        evaluation: victims, claims, images, folder.
        cells: what to make and audit.
        jobs: parallel processes (joblib's `n_jobs`; its default backend, or the one of `joblib.parallel_config`).
        progress: called after every model and its audits.

    Returns:
        The rows of all cells, in their order; `results.csv` and `results.json` hold the same.

    Raises:
        OwnershipError: if a model cannot be made or audited; the rows of finished ones are kept.
    """
    for cell in cells:
        if cell.case not in evaluation.cases:
            raise TrainingError(f"no case called {cell.case!r}", f"there are: {', '.join(evaluation.cases)}")
        if cell.output_transform:
            check_start(cell.output_transform, cell.spec.base_checkpoint)  # before anything long
    paths = [evaluation.row_path(cell) for cell in cells]
    groups: dict[tuple[ModelSpec, str], list[Cell]] = defaultdict(list)
    for cell, path in zip(cells, paths, strict=True):
        if not path.is_file():
            of = cell.case if cell.spec.role == "surrogate" else ""
            groups[cell.spec.base, of].append(cell)
    done, total = len(cells) - sum(map(len, groups.values())), len(cells)
    progress("evaluating", done, total)
    for count in parallel_map(audit_models, evaluation, groups.values(), folder=evaluation.out, jobs=jobs):
        done += count
        progress("evaluating", done, total)
    rows = [dict(read_json(path, TrainingError, "row")) for path in paths]
    write_table(evaluation.out, rows)
    return rows


def audit_models(evaluation: Evaluation, cells: Sequence[Cell]) -> int:
    """Make one model and those derived from it, audit them, write the rows, and return how many."""
    utilities: dict[tuple[ModelSpec, str], dict[str, float]] = {}
    for cell in cells:
        start = time.perf_counter()
        factory = evaluation.factory(cell.case)
        path = factory.make(cell.spec)
        # a given file may be hostile; a file made here is not
        opened = load_suspect(path) if cell.spec.objective == Objective.FILE else load_encoder(path)
        claim = _claim(evaluation.cases[cell.case].claim)
        probes = claim.probes["public"]  # known to the attacker
        wrapped = transform_outputs(factory, cell.spec, opened.encoder, cell.output_transform, probes)
        suffix = f"+{cell.output_transform}" if cell.output_transform else ""
        suspect = replace(opened, encoder=wrapped, name=opened.name + suffix)
        made = time.perf_counter()
        report = audit(claim, suspect)
        audited = time.perf_counter()
        # an affine map does not change a linear probe
        chain = cell.output_transform
        measured = cell.spec, "" if not chain or lossless(chain) else chain
        if evaluation.labeled is not None and measured not in utilities:
            utilities[measured] = linear_probe(suspect.encoder, *evaluation.labeled)
        row = {
            "key": cell.key(evaluation.settings, claim.sha256),
            "case": cell.case,
            "output_transform": cell.output_transform,
            **cell.spec.to_dict(),
            "weight_transforms": "+".join(cell.spec.weight_transforms),
            "base_checkpoint": bool(cell.spec.base_checkpoint) and cell.spec.objective != Objective.FILE,
            **utilities.get(measured, {}),
            **report_columns(report),
            "seconds_making": round(made - start, 2),
            "seconds_audit": round(audited - made, 2),
        }
        opened.close()
        write_json(evaluation.row_path(cell), row)
    return len(cells)


def report_columns(report: Report) -> Row:
    """Return a report's numbers as flat columns: the verdict, and the value, p-value and effect of each test."""
    row: Row = {
        "verdict": report.verdict.value,
        "adjusted_pvalue": min(report.findings.adjusted_pvalues.values(), default=None),
        "relative_similarity": report.findings.relative_similarity,
        "queries": report.findings.queries,
        "decided_after": report.decided_after,
    }
    for r in report.results:
        row |= {
            f"{r.name}.value": r.value,
            f"{r.name}.pvalue": r.pvalue,
            f"{r.name}.effect": r.decisive.effect_size,
            f"{r.name}.exceeds_all_controls": r.exceeds_all_controls,
        }
    return row


def write_table(out: Path, rows: Sequence[Row]) -> None:
    """Write `results.csv` and `results.json`, one row an audit."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(out / "results.csv", text.getvalue().encode())
    write_json(out / "results.json", {"rows": list(rows)})


@lru_cache(maxsize=8)
def _claim(folder: Path) -> Claim:
    return Claim.load(folder)


@lru_cache(maxsize=8)
def _victim(folder: Path) -> tuple[Encoder, str]:
    loaded = load_trained(folder)
    if not isinstance(loaded.encoder, Encoder):
        raise TrainingError("the victim must be weights of a known architecture", "give its train folder")
    return loaded.encoder, loaded.sha256


def linear_probe(encoder: EncoderLike, learn: Data, test: Data) -> dict[str, float]:
    """Return the columns of a linear probe: `utility` (top-1 accuracy) and the lower end of its 95 % interval.

    Raises:
        TrainingError: if images have no labels.
    """
    if learn.labels is None or test.labels is None:
        raise TrainingError("the images for the linear probe have no labels", "class folders, or an .npz with y")
    result = linear_evaluation(encoder, (learn.images, learn.labels), (test.images, test.labels))
    return {"utility": result.accuracy, "utility_low": result.confidence_interval[0]}
