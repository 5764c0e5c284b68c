"""Suspects that know the probes, from an earlier audit, and answer them with another encoder: does the audit notice?

A victim, its surrogate and an encoder of the attacker's own are trained on other images of one data set. Each gate
answers the 2,000 probes of the key with the own encoder: as it is; mapped by ridge regression to the surrogate's
representations of the attacker's images (`gate_probes`); or mapped so that the mean and the covariance are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from attacks_for_eval.evasion.apply import evade
from attacks_for_eval.evasion.attacker import Attacker
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.seeded_key import seeded_key
from benchmarks.common.rows import Row
from ownership.encoders.images import EncoderLike, represent
from ownership.evidence.pool_test import PERMUTATIONS, classifier_features, pool_test
from ownership.keyed.drawn import check_encoder
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.training import train

POOL, PROBES, OTHERS = 4_000, 2_000, 1_000
CONFIG = TrainConfig(
    arch="small", epochs=12, batch_size=128, lr=2e-3, temperature=0.2, min_crop=0.2, watermark="keyed", keyed_weight=0.3
)
EXTRACTION = ExtractionConfig(arch="small", queries=4_000, epochs=12, batch_size=128, lr=2e-3)


class SameMoments(nn.Module):
    """An encoder whose representations are mapped to the mean and the covariance of another one's."""

    def __init__(self, own: EncoderLike, encoder: EncoderLike, images: Tensor) -> None:
        super().__init__()
        mine, target = (represent(e, images).double() for e in (own, encoder))
        self.own, self.mean, self.target_mean = own, mine.mean(0), target.mean(0)
        (_, s, v), (_, t, w) = (torch.linalg.svd(x - x.mean(0), full_matrices=False) for x in (mine, target))
        kept = int(min((s > 1e-4 * s[0]).sum(), (t > 1e-4 * t[0]).sum()))
        self.map = (v[:kept].T / s[:kept]) @ (t[:kept, None] * w[:kept])

    def forward(self, images: Tensor) -> Tensor:
        """Return `(n, d)`."""
        out: Tensor = ((self.own(images).double() - self.mean) @ self.map + self.target_mean).float()
        return out


def suspects(surrogate: EncoderLike, own: EncoderLike, images: Tensor, probes: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield each suspect's representations of the probes, which may be gated; other images are answered honestly."""
    attacker = Attacker(images=images, encoder=lambda: own, probes=probes)
    yield "none", represent(surrogate, probes)
    yield "own encoder", represent(own, probes)
    yield "own encoder, mapped", represent(evade(surrogate, "gate_probes", attacker), probes)
    yield "own encoder, same mean and covariance", represent(SameMoments(own, surrogate, images), probes)


def known_probes(data: str, seed: int) -> Iterator[Row]:
    """Yield a row for each gate in front of a surrogate, and for an independent encoder without one."""
    images, pool = load_data(f"{data}:train").images, load_data(f"{data}:test").images[:POOL]
    start = 12_000 * seed
    private, queries = images[start : start + 4_000], images[start + 4_000 : start + 8_000]
    material = seeded_key(f"known probes {data} {seed}", pool, probes=PROBES)
    victim = train(private, replace(CONFIG, seed=seed), material=material).encoder
    surrogate = extract(BlackBox(victim), queries, replace(EXTRACTION, seed=seed))
    own = train(queries, replace(CONFIG, seed=100 + seed, watermark="none")).encoder
    order = torch.from_numpy(material.key.pool_order())
    asked = torch.cat([order[:OTHERS], order[PROBES : PROBES + OTHERS]])
    pool_rows, is_probe = pool[asked], np.arange(2 * OTHERS) < OTHERS
    shuffle = np.argsort(asked.numpy())
    honest = {"surrogate": represent(surrogate, pool_rows), "own": represent(own, pool_rows)}
    found = [(name, "surrogate", x) for name, x in suspects(surrogate, own, queries, material.probes)]
    found.append(("none", "own", represent(own, material.probes)))
    for gate, of, probes in found:
        shown = torch.cat([probes[:OTHERS], honest[of][OTHERS:]]).double().numpy()
        features = classifier_features(shown[shuffle], pool_rows[shuffle])
        explained, reaching = pool_test(features, is_probe[shuffle], np.random.default_rng(seed))
        yield {
            "suspect": "surrogate" if of == "surrogate" else "independent",
            "gate": gate,
            "key_pvalue": check_encoder(material, probes.double().numpy()).pvalue,
            "explained": explained,
            "pool_pvalue": (1 + reaching) / (1 + PERMUTATIONS),
        }
