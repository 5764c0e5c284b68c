"""Victims, surrogates and independent encoders on scikit-learn's digits, which train in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from attacks_for_eval.evasion.attacker import Attacker
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.seeded_key import seeded_key
from benchmarks.common.key_columns import with_baselines
from benchmarks.evasion.design import Remembered, Subject, seeded_order
from benchmarks.evasion.panel import MEMBERS, Panel
from ownership.encoders.images import represent
from ownership.keyed.drawn import Drawn
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.training import train

SEEDS = (0, 1, 2)
PRIVATE, ATTACKER = 600, 1197
"""Where the private images end, and the attacker's; the others are the probes."""
CONFIG = TrainConfig(
    arch="tiny", epochs=50, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False, keyed_weight=1.0,
    keyed_fraction=0.5,
)  # fmt: skip
EXTRACTION = ExtractionConfig(loss="mse", arch="tiny", queries=ATTACKER - PRIVATE, epochs=100, batch_size=64, lr=2e-3)


class DigitsCase:
    """A seed: its key, split, victim, surrogate, independent encoder, and encoder of the attacker."""

    def __init__(self, seed: int) -> None:
        data = load_data("digits")
        assert data.labels is not None
        order = seeded_order(len(data), seed)
        images, labels = data.images[order], data.labels[order]
        private, attacker, pool = images[:PRIVATE], images[PRIVATE:ATTACKER], images[ATTACKER:]
        material = seeded_key(f"benchmark {seed}", pool)
        plain = replace(CONFIG, watermark="none", epochs=30)
        self.seed, self.key = seed, with_baselines(Drawn.of(material))
        self.labeled = (attacker, labels[PRIVATE:ATTACKER]), (pool, labels[ATTACKER:])
        self.victim_encoder = train(private, replace(CONFIG, seed=seed), material=material).encoder
        self.surrogate = extract(BlackBox(self.victim_encoder), attacker, replace(EXTRACTION, seed=seed))
        self.independent = train(private, replace(plain, seed=2000 + seed)).encoder
        members = [train(private, replace(plain, seed=3000 + 100 * seed + i)).encoder for i in range(MEMBERS)]
        probes = material.probes
        self.panel = Panel(represent(self.victim_encoder, probes), [represent(m, probes) for m in members], probes)
        own = Remembered(train(attacker, replace(plain, seed=1000 + seed)).encoder)
        self.attacker = Attacker(images=attacker, encoder=lambda: own, seed=seed)

    def subjects(self) -> Iterator[Subject]:
        """Yield the three encoders."""
        for role, encoder in (
            ("victim", self.victim_encoder), ("surrogate", self.surrogate), ("independent", self.independent),
        ):  # fmt: skip
            yield Subject(
                name=role, role=role, of=f"seed {self.seed}", encoder=Remembered(encoder), attacker=self.attacker
            )
