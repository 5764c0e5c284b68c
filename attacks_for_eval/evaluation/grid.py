"""The grid of an evaluation: which surrogates, transforms and independent encoders, as cells to run."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from attacks_for_eval.evaluation.evaluate import Cell
from attacks_for_eval.evaluation.spec import ModelSpec, Objective
from ownership.errors import TrainingError
from ownership.io.canonical import sha256
from ownership.io.files import read_bytes
from ownership.io.text import printable
from watermark_training.config import WatermarkTask

WATERMARKS: dict[str, WatermarkTask] = {"": "none", "secret": "secret", "paper": "paper"}
"""What follows the colon of an independent encoder -> its watermark task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of method, loss, architecture, queries and seed, with each transform; and independents."""

    methods: tuple[str, ...] = ("direct",)  # names in attacks_for_eval.choices.METHODS
    losses: tuple[str, ...] = ("mse", "infonce", "softnn")
    archs: tuple[str, ...] = ("small",)
    queries: tuple[int, ...] = (2048,)
    weight_transforms: tuple[str, ...] = ()  # as in ModelSpec; each alone, beside none
    output_transforms: tuple[str, ...] = ()  # chains of `evasion.apply.EVASIONS`; each alone, beside none
    independents: tuple[str, ...] = ("simclr", "simclr:secret", "simclr:paper")  # OBJECTIVE[:WATERMARK]
    sources: tuple[str, ...] = ("others",)  # images that independent encoders are trained on
    images: int = 2000  # of an independent encoder
    epochs: int = 12  # of every model, whatever its number of images
    seeds: int = 1  # of each combination

    def specs(self) -> Iterator[tuple[ModelSpec, str]]:
        """Yield every model with the transform of its outputs."""
        for method, loss, arch, queries, seed in product(
            self.methods, self.losses, self.archs, self.queries, range(self.seeds)
        ):
            for transform in ("", *self.weight_transforms):
                spec = ModelSpec(
                    role="surrogate",
                    kind=method if not transform else f"{method}, then {transform.split(':')[0]}",
                    arch=arch,
                    source="queries",
                    images=queries,
                    epochs=self.epochs,
                    seed=seed,
                    method=method,
                    loss=loss,
                    weight_transforms=(transform,) if transform else (),
                )
                for output in ("", *self.output_transforms) if not transform else ("",):
                    yield spec, output
        for i, (kind, source, arch, seed) in enumerate(
            product(self.independents, self.sources, self.archs, range(self.seeds))
        ):
            objective, _, watermark = kind.partition(":")
            if objective not in tuple(Objective) or watermark not in WATERMARKS:
                raise TrainingError(
                    f"unknown independent encoder {kind!r}",
                    f"OBJECTIVE or OBJECTIVE:secret, OBJECTIVE:paper; objectives: {', '.join(Objective)}",
                )
            yield (
                ModelSpec(
                    role="independent",
                    kind=f"{objective}, watermark {watermark}" if watermark else objective,
                    arch=arch,
                    source=source,
                    images=self.images,
                    epochs=self.epochs,
                    seed=10_000 + 100 * i + seed,
                    objective=objective,
                    watermark=WATERMARKS[watermark],
                ),
                "",
            )

    def cells(self, case: str, *, sample: int | None = None, seed: int = 0) -> list[Cell]:
        """Return the grid's cells; with `sample`, that many of the surrogates' audits, drawn by the seed.

        Args:
            case: name of the victim and claim.
            sample: most audits of surrogates to keep; None for all.
            seed: of the draw.
        """
        cells = [Cell(spec=spec, case=case, output_transform=output) for spec, output in self.specs()]
        surrogates = [c for c in cells if c.spec.role == "surrogate"]
        if sample is not None and sample < len(surrogates):
            kept = set(random.Random(seed).sample(surrogates, sample))  # noqa: S311  (a design, no secret)
            cells = [c for c in cells if c.spec.role == "independent" or c in kept]
        return cells


def existing_models(files: Iterable[Path], case: str) -> Iterator[Cell]:
    """Yield the audits of existing independent encoders: any file that `load_suspect` reads.

    Their kind is the file's name with the beginning of its SHA-256: changed content gives another row.

    Raises:
        TrainingError: if a file cannot be read.
    """
    for path in files:
        kind = f"{printable(path.name)} {sha256(read_bytes(path, TrainingError, 'model'))[:8]}"
        spec = ModelSpec(role="independent", kind=kind, objective=Objective.FILE, base_checkpoint=str(path.resolve()))
        yield Cell(spec=spec, case=case)


@contextmanager
def joblib_backend(name: str, jobs: int) -> Iterator[None]:
    """Run what is inside on a joblib backend.

    Args:
        name: loky, threading, sequential, dask, or another backend registered with joblib. "dask" uses the
            scheduler that `DASK_SCHEDULER_ADDRESS` names, or starts `jobs` workers here.
        jobs: workers.

    Raises:
        TrainingError: if there is no such backend.
    """
    import joblib

    if name == "dask":
        try:
            from distributed import Client
        except ImportError as e:
            raise TrainingError("the backend dask is not installed", "pip install dask distributed") from e
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        here: dict[str, Any] = {"n_workers": max(1, jobs), "threads_per_worker": 1, "dashboard_address": None}
        client = Client(address) if address else Client(**here)  # type: ignore[no-untyped-call]
        with client, joblib.parallel_config(backend="dask"):
            yield
        return
    try:
        config = joblib.parallel_config(backend=name)
    except (ValueError, ImportError) as e:
        raise TrainingError(f"joblib has no backend {name!r} here ({e})", "use loky, threading or dask") from e
    with config:
        yield
