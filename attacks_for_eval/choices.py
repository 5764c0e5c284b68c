"""The values that attack options take, as types. Nothing heavy is imported, so that the command line can list them."""

from __future__ import annotations

from typing import Literal

ExtractionMethod = Literal[
    "direct",
    "recreate-head",
    "access-head",
    "stolen-encoder",
    "cont-steal",
    "rotated-queries",
    "rotation-invariant",
    "rotated",
    "averaging",
]
"""Extraction attack, a key of `extraction.config.METHODS`."""
Loss = Literal["mse", "unit_l2", "infonce", "softnn", "wasserstein", "supcon", "barlow", "symmetrized"]
"""Extraction loss, a key of `extraction.losses.LOSSES`."""
View = Literal["none", "standard", "rotation", "rotated", "color"]
"""View of an image, a key of `extraction.config.VIEWS`."""
SurrogateView = Literal["same", "none", "standard", "rotation", "rotated", "color"]
"""View that the surrogate sees; same: the pixels that the victim was queried with."""
Classifier = Literal["exact", "sgd", "lars"]
"""Linear evaluation: logistic regression to convergence, or the paper's training loop with SGD or LARS."""
WeightTransform = Literal["prune", "fine_tune", "distil"]
"""Evasion transform of a surrogate's weights (`evaluation.spec.WEIGHT_TRANSFORMS`); arguments follow colons."""
OutputTransform = Literal[
    "permute", "rotate_basis", "scale", "pad", "project", "rounded", "normalized", "noisy",
    "prune", "quantise", "halve", "pca", "average",
]  # fmt: skip
"""Evasion transform in front of a surrogate, one of `evaluation.factory.OUTPUT_CHOICES`."""
IndependentObjective = Literal[
    "simclr", "simsiam", "barlow", "rotated", "supervised", "rotation", "untrained", "distilled"
]  # fmt: skip
"""How an independent encoder is trained, a value of `evaluation.spec.Objective` (without "file")."""
