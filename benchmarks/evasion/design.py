"""The evasions that are measured, and the encoders that they are put in front of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import Attacker
from ownership.encoders.images import EncoderLike

REVIEWED = (
    "append_own:3", "append_own", "append_own_white", "append_hash", "append_pixels", "reverse_spectrum",
)  # fmt: skip
"""Evasions that an adversarial review found against the panel's tests: they are put in front of every surrogate."""
EVASIONS = (
    *REVIEWED,
    "spectrum", "spectrum:2", "replace_half:3", "replace_half", "append_random_features", "append_hash:200",
    "append_own_relu", "append_products", "append_own+append_hash:100", "append_own+append_pixels:232",
    "half_planes", "half_planes:8", "coupling", "tanh_residual", "random_network", "random_network:4",
    "activation:tanh", "activation:softsign", "activation:cube", "activation:exp", "activation:sine", "relu_features",
    "signs", "ranks", "codes", "blend_centroids", "blend_centroids:90", "random_lengths", "noisy:30",
    "drop_leading", "drop_leading:16", "drop_distinctive:5", "drop_distinctive", "drop_distinctive:50", "subtract_own",
    "average", "pca:25", "mean_of_rotations", "unrotate", "gate",
)  # fmt: skip
"""Chains of evasions that need no training, at the defaults and strengths of their sources."""
WEIGHTS = (
    "drop_channels", "merge:30", "merge", "merge:70", "ties", "supervised:5", "supervised", "lora", "sam", "attention",
    "wrk",
)  # fmt: skip
"""Evasions of weights; those that merge need a victim that was grown from a checkpoint, and are its own weights."""
QUERY_TIME = (
    ("projector", "mse"), ("projector", "infonce"), ("projector-augmented", "mse"), ("half-own", "mse"),
    ("half-own", "infonce"), ("rda", "rda"), ("rotated-prototypes", "rda"), ("cse", "mse"), ("inliers", "mse"),
    ("agglomerative", "mse"),
)  # fmt: skip
"""Extraction methods that evade, with their losses."""
KNOWN = (
    ("cont-steal", "infonce"), ("rotation-invariant", "mse"), ("rotation-invariant", "infonce"), ("rotated", "mse"),
    ("augmented", "mse"),
)  # fmt: skip
"""Those of the key benchmark."""


class Remembered(nn.Module):
    """An encoder that keeps its representations of batches that it has seen: wrappers ask for the same ones."""

    def __init__(self, encoder: EncoderLike) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen: dict[tuple[int, bytes], Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Return `(n, d)`."""
        first = images[:: max(1, len(images) // 8)].contiguous().numpy().tobytes()
        key = len(images), first + images.sum((1, 2, 3)).numpy().tobytes()
        if key not in self.seen:
            self.seen[key] = self.encoder(images)
        return self.seen[key]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Subject:
    """An encoder that evasions are put in front of.

    Attributes:
        name: of the encoder.
        role: victim, surrogate or independent; the victim is a surrogate that was copied bit by bit.
        of: name of the victim whose key tests it.
        encoder: the encoder.
        attacker: what the attacker has beside it.
        evasions: what is put in front of it, each alone.
        priced: whether utility is measured.
    """

    name: str
    role: str
    of: str
    encoder: EncoderLike
    attacker: Attacker
    evasions: tuple[str, ...] = EVASIONS
    priced: bool = True


def seeded_order(count: int, seed: int) -> Tensor:
    """Return the numbers below `count` in an order that follows from a seed."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
