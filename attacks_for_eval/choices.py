"""The values that attack options take, and what methods mean.

Nothing heavy is imported, so that the command line can list the values, and refuse contradictions, at once.
"""

from __future__ import annotations

from typing import Any, Literal

from ownership.errors import TrainingError

ExtractionMethod = Literal[
    "direct",
    "recreate-head",
    "access-head",
    "stolen-encoder",
    "cont-steal",
    "rotated-queries",
    "rotation-invariant",
    "rotated",
    "augmented",
    "averaging",
    "projector",
    "projector-augmented",
    "half-own",
    "rda",
    "rotated-prototypes",
    "cse",
    "inliers",
    "agglomerative",
]
"""Extraction attack, a key of `METHODS`."""
Loss = Literal["mse", "unit_l2", "infonce", "softnn", "wasserstein", "supcon", "barlow", "symmetrized", "rda"]
"""Extraction loss, a key of `extraction.losses.LOSSES`."""
View = Literal["none", "standard", "rotation", "rotated", "color"]
"""View of an image, a key of `extraction.config.VIEWS`."""
Cleaning = Literal["none", "cse", "inliers"]
"""What is done to the responses before the surrogate is trained on them (`extraction.responses`)."""
SurrogateView = Literal["same", "none", "standard", "rotation", "rotated", "color"]
"""View that the surrogate sees; same: the pixels that the victim was queried with."""
Classifier = Literal["exact", "sgd", "lars"]
"""Linear evaluation: logistic regression to convergence, or the paper's training loop with SGD or LARS."""
WeightTransform = Literal[
    "fine_tune", "distil", "embed", "prune", "quantise", "halve", "drop_channels", "merge", "ties", "supervised",
    "lora", "sam", "attention", "wrk",
]  # fmt: skip
"""Evasion transform of a surrogate's weights (`evaluation.spec.WEIGHT_TRANSFORMS`); arguments follow colons."""
OutputTransform = Literal[
    "permute", "rotate_basis", "scale", "pad", "project", "rounded", "normalized", "noisy", "random_lengths",
    "pca", "drop_leading", "spectrum", "reverse_spectrum", "average", "subtract_own", "blend_centroids", "codes",
    "drop_distinctive", "activation", "relu_features", "signs", "random_network", "coupling", "tanh_residual",
    "half_planes", "ranks", "append_own", "append_own_white", "append_own_relu", "replace_half",
    "append_random_features", "append_pixels", "append_hash", "append_products", "unrotate", "mean_of_rotations",
    "gate", "gate_probes", "prune", "quantise", "halve", "drop_channels", "merge", "ties", "supervised", "lora", "sam",
    "attention", "wrk",
]  # fmt: skip
"""Evasion in front of a surrogate that needs no training, a key of `evasion.apply.EVASIONS`."""
IndependentObjective = Literal[
    "simclr", "simsiam", "barlow", "rotated", "supervised", "rotation", "untrained", "distilled"
]  # fmt: skip
"""How an independent encoder is trained, a value of `evaluation.spec.Objective` (without "file")."""

OWN_ENCODER = frozenset({"cse", "inliers", "agglomerative"})
"""Methods for which the attacker needs an encoder of its own, trained without the victim."""
TEMPERED = frozenset({"infonce", "softnn", "supcon", "rda"})
"""Losses that have a temperature."""

METHODS: dict[str, dict[str, Any]] = {
    "direct": {},
    "recreate-head": {},
    "access-head": {},
    "stolen-encoder": {"loss": "unit_l2", "view_weight": 9.0},
    "cont-steal": {
        "loss": "infonce",
        "temperature": 0.5,
        "victim_view": "standard",
        "surrogate_view": "standard",
    },
    "rotated-queries": {"victim_view": "rotation"},
    "rotation-invariant": {"surrogate_view": "rotation"},
    "rotated": {"surrogate_view": "rotated"},
    "augmented": {"surrogate_view": "standard"},
    "averaging": {"repeats": 10},
    "projector": {"projector": True},
    "projector-augmented": {"projector": True, "surrogate_view": "standard"},
    "half-own": {"own_share": 0.5},
    "rda": {"loss": "rda", "prototype_views": 10, "victim_view": "standard", "surrogate_view": "standard"},
    "rotated-prototypes": {
        "loss": "rda",
        "prototype_views": 10,
        "victim_view": "rotation",
        "surrogate_view": "rotation",
    },
    "cse": {"cleaning": "cse"},
    "inliers": {"cleaning": "inliers"},
    "agglomerative": {"own_teacher": True},
}
"""Name of an extraction attack -> the fields of `ExtractionConfig` that define it.

| method | what the attacker does | source |
|---|---|---|
| direct | compares representations | the paper, Algorithm 1 |
| recreate-head | compares latent vectors behind a recreated projection head | the paper, Algorithm 2 |
| access-head | compares latent vectors behind the victim's projection head | the paper, Table 1 |
| stolen-encoder | requires the same response for a color view (lambda 9, one view a step) | Liu et al., CCS 2022 |
| cont-steal | InfoNCE between different views | Sha et al., CVPR 2023 |
| rotated-queries | queries rotated views | the paper, Table 17 |
| rotation-invariant | trains the surrogate on rotated SimCLR views, to remove the watermark | adaptive |
| rotated | trains the surrogate on the rotated image itself, to remove the watermark | adaptive |
| augmented | trains the surrogate on SimCLR views, towards the responses to the images themselves | adaptive |
| averaging | averages repeated queries against noise | adaptive |
| projector | compares behind a projector of the surrogate that is thrown away | adversarial review, 2026 |
| projector-augmented | the same on SimCLR views | adversarial review, 2026 |
| half-own | half of the objective is SimCLR on the same images | adversarial review, 2026 |
| rda | learns the mean response to 10 views of each image, from views of it | RDA, ECCV 2024 |
| rotated-prototypes | the same with rotated views | adaptive |
| cse | drops the directions of the responses that an own encoder lacks | Shetty et al., ACL 2024 |
| inliers | drops responses that are far from those of an own encoder's neighbours | adaptive |
| agglomerative | learns from the victim and an own encoder, one head each | Ranzinger et al., CVPR 2024 |

A two-stage attack is two extractions, the second one from the first surrogate.
"""


def check_method(method: str, given: dict[str, Any]) -> None:
    """Refuse fields that contradict the definition of the method.

    Raises:
        TrainingError: if the method is unknown, or a field is given another value than the method's.
    """
    if method not in METHODS:
        raise TrainingError(f"unknown method {method!r}", f"one of: {', '.join(METHODS)}")
    for name, value in METHODS[method].items():
        if given.get(name, value) != value:
            raise TrainingError(
                f"{method} means {name} {value}, not {given[name]}", f"leave {name} out, or use --method direct"
            )


def check_temperature(loss: str, temperature: float | None) -> None:
    """Raise TrainingError if a temperature is given to a loss that has none."""
    if temperature is not None and loss not in TEMPERED:
        raise TrainingError(f"the loss {loss} has no temperature", f"one of these has: {', '.join(sorted(TEMPERED))}")
