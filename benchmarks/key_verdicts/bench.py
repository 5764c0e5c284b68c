"""Victims, models and key tests of the key's benchmark, in the folder of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from attacks_for_eval.evaluation.evaluate import linear_probe
from attacks_for_eval.evaluation.factory import ModelFactory, transform_outputs
from attacks_for_eval.evaluation.spec import Hyperparameters
from attacks_for_eval.evasion.apply import lossless
from attacks_for_eval.seeded_key import seeded_key
from benchmarks.common.key_columns import DECOYS, DrawnWithBaselines, key_columns, with_baselines
from benchmarks.common.rows import Row
from benchmarks.key_verdicts.design import Task, independents, surrogates
from benchmarks.verdicts import design
from benchmarks.verdicts.bench import sources
from benchmarks.verdicts.design import Scale
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.io.canonical import canonical_json, sha256
from ownership.keyed.drawn import Drawn
from ownership.keyed.features import PoolFeatures
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.readings import Readings, encoder_readings
from ownership.keyed.test import decoy_frames, largest_z
from ownership.suspects.suspect import load_encoder
from watermark_training.loaded_encoder import load_trained
from watermark_training.train_folder import train_to

SETTINGS = Hyperparameters()
VICTIM_SEED = 200
"""Seed of the first victim. Victims 100 and above were judged with the design of decision 34."""
FRESH_SECRETS, FRESH_FRAMES = 4, 2500
"""Fresh keys of the size of the test: secrets (maps and probes), and frames of each."""
ALPHAS = (0.05, 0.01, 0.001)
USUAL, SHORT = {"keyed_weight": 0.3}, {"keyed_weight": 1.0, "keyed_fraction": 0.5}
"""Strength of the watermark that the documentation advises for trainings of about 200 steps, and fine-tunes of 60."""

Array = NDArray[np.float64]


class Bench:
    """The folder of one run, and the models in it.

    Args:
        scale: data set and sizes, of `benchmarks.verdicts`.
        work: folder.
        victims: only these; all if empty.
    """

    def __init__(self, scale: Scale, work: Path, victims: Sequence[int] = ()) -> None:
        self.scale, self.work, self.sources = scale, work / scale.data, sources(scale)
        self.victims = [v for v in scale.indices if not victims or v in victims]
        self.factory = ModelFactory(folder=self.work / "models", sources=self.sources, settings=SETTINGS)

    def material(self, victim: int, variant: str = "") -> KeyMaterial:
        """Return the key of a victim; its pool and probes are the victim's public images.

        Its feature encoder is the public checkpoint, which no victim's owner trained.
        """
        name = f"key_verdicts, encoder {self.scale.data} {victim}{variant}"
        pool = self.sources[f"public_{victim}"].images
        return seeded_key(name, pool, features=_features(self, victim), encoder=self.checkpoint)

    def folder(self, victim: int, watermarked: bool = True) -> Path:
        """Return the train folder of a victim, or of its twin without a watermark."""
        return self.work / f"{'victim' if watermarked else 'plain'}_{victim}"

    def train_victim(self, victim: int, watermarked: bool = True) -> None:
        """Train a victim with a keyed watermark of default strength, or its twin without one."""
        start, epochs = None, self.scale.epochs
        if victim in self.scale.fine_tuned:
            start, epochs = as_weights(load_encoder(self.checkpoint).encoder), self.scale.fine_tune_epochs
        spec = design.independent(
            self.scale, "victim", VICTIM_SEED + victim, watermark="keyed" if watermarked else "none"
        )
        config = SETTINGS.training(spec, epochs=epochs, **(USUAL if start is None else SHORT))
        material = self.material(victim) if watermarked else None
        train_to(
            self.folder(victim, watermarked), self.sources[f"private_{victim}"], config, material=material, start=start
        )

    @property
    def checkpoint(self) -> Path:
        """The public checkpoint's file."""
        return self.factory.path(self.scale.checkpoint)

    def factory_of(self, victim: int | None) -> ModelFactory:
        """Return the factory of a victim's surrogates, or of independent encoders."""
        if victim is None:
            return self.factory
        loaded = load_trained(self.folder(victim))
        return replace(self.factory, victim=(as_weights(loaded.encoder), loaded.sha256))

    def tasks(self) -> Iterator[Task]:
        """Yield every task, independent encoders and surrogates of all victims in turn."""
        lists = [list(surrogates(self.scale, v)) for v in self.victims]
        lists.append(list(independents(self.scale, self.checkpoint.name)))
        for turn in zip_longest(*lists):
            yield from (task for task in turn if task is not None)

    def key_of(self, task: Task, victim: int, output: str) -> str:
        """Return the name of a row: a hash of everything that was configured."""
        made_from = {
            "data": self.scale.data,
            "victim": victim,
            "spec": task.spec.to_dict(),
            "output_transform": output,
            "extracted_from": task.victim,
            "feature_encoder": self.scale.checkpoint.to_dict(),
        }
        return sha256(canonical_json(made_from))[:16]

    def missing(self, task: Task, done: frozenset[str]) -> list[tuple[int, str]]:
        """Return the victims and output transforms of a task that have no row."""
        tested = [task.victim] if task.victim is not None else self.victims
        return [(v, o) for v in tested for o in task.outputs if self.key_of(task, v, o) not in done]

    def measure(self, task: Task, wanted: Sequence[tuple[int, str]]) -> list[Row]:
        """Make the model of a task and return the wanted rows."""
        factory, probed, rows = self.factory_of(task.victim), {}, []
        encoder = load_encoder(factory.make(task.spec)).encoder
        for victim, output in wanted:
            shown = transform_outputs(factory, task.spec, encoder, output)
            # an affine map does not change a linear probe
            probe = "" if not output or lossless(output) else output
            if probe not in probed:
                probed[probe] = self.utility(shown)
            row = {
                "key": self.key_of(task, victim, output),
                **task.spec.to_dict(),
                "weight_transforms": "+".join(task.spec.weight_transforms),
                "base_checkpoint": bool(task.spec.base_checkpoint),
                "output_transform": output,
                "utility": probed[probe],
                **self.tested(victim, shown),
            }
            if task.victim is None and victim == self.victims[0]:
                row["rejections"] = self.rejections(victim, shown, seed=int(row["key"][:8], 16))
            rows.append(row)
        return rows

    def victim_rows(self, done: frozenset[str]) -> Iterator[Row]:
        """Yield a row for each victim, and for its unwatermarked twin, with the key of every victim; not those done."""
        for v in self.victims:
            for watermarked in (True, False):
                encoder = load_trained(self.folder(v, watermarked)).encoder
                for key in self.victims:
                    name = sha256(canonical_json([self.scale.data, VICTIM_SEED + v, watermarked, key]))[:16]
                    if name in done:
                        continue
                    role = "victim" if watermarked and key == v else "independent"
                    kind = "victim" if role == "victim" else "another owner's victim" if watermarked else "plain twin"
                    yield {
                        "key": name,
                        "role": role,
                        "kind": kind,
                        "of": v,
                        "utility": self.utility(encoder),
                        **self.tested(key, encoder),
                    }

    def tested(self, victim: int, encoder: EncoderLike) -> Row:
        """Return the columns of the key test with a victim's key."""
        return {"data": self.scale.data, "victim": victim, **key_columns(drawn(self, victim), encoder)}

    def rejections(self, victim: int, encoder: EncoderLike, *, seed: int) -> dict[str, int]:
        """Return how many of 10,000 fresh keys, drawn by a seed, reject an encoder at each level of `ALPHAS`."""
        found = dict.fromkeys(map(str, ALPHAS), 0)
        frames = drawn(self, victim)[0].decoys(DECOYS)  # independent of every secret's maps, too
        for i in range(FRESH_SECRETS):
            fresh_key, known = drawn(self, victim, f", fresh {i}")
            of = encoder_readings(represent(encoder, fresh_key.material.probes).double().numpy(), fresh_key.features)
            decoys = np.sort(statistics(of, known, frames))
            fresh = {
                name: decoy_frames(RandomState([seed, i, j]), frame.shape[0], frame.shape[1], FRESH_FRAMES)
                for j, (name, frame) in enumerate(fresh_key.frames.items())
            }
            own = statistics(of, known, fresh)
            pvalues = (1 + DECOYS - np.searchsorted(decoys, own)) / (1 + DECOYS)
            for alpha in ALPHAS:
                found[str(alpha)] += int((pvalues <= alpha).sum())
        return found

    def utility(self, encoder: EncoderLike) -> float:
        """Return the accuracy of a linear probe."""
        return linear_probe(encoder, self.sources["probe-learn"], self.sources["probe-test"])["utility"]


def statistics(of: dict[str, Readings], known: Sequence[dict[str, Readings]], frames: Any) -> Array:
    """Return the statistic of `key_test` for many frames, `(keys,)`."""
    total: Array | float = 0.0
    for name, batches in frames.items():
        matrices = list(of[name].less([b[name] for b in known]))
        total = total + np.maximum(np.concatenate([largest_z(matrices, part) for part in batches]), 0) ** 2
    return np.asarray(total)


def as_weights(encoder: object) -> Encoder:
    """Return the encoder, which must be one of our architectures."""
    if not isinstance(encoder, Encoder):
        raise TypeError("weights of a known architecture are needed")
    return encoder


@lru_cache(maxsize=5)
def _features(bench: Bench, victim: int) -> PoolFeatures:
    encoder = load_encoder(bench.checkpoint).encoder
    return PoolFeatures.compute(bench.sources[f"public_{victim}"].images, encoder, bench.checkpoint)


@lru_cache(maxsize=12)
def drawn(bench: Bench, victim: int, variant: str = "") -> DrawnWithBaselines:
    """Return what the key of a victim draws, with the readings of its baselines."""
    return with_baselines(Drawn.of(bench.material(victim, variant)))
