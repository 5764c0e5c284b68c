"""The suspects of the verdict benchmark: test independents, and surrogates of each victim."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from typing import Any

from attacks_for_eval.evaluation.spec import ModelSpec
from benchmarks.verdicts.design import DISTILLED, PUBLIC_ENCODERS, Scale, epochs_for, independent, public_encoder


def independents(scale: Scale, checkpoint: str) -> Iterator[ModelSpec]:
    """Yield the test independents; each is audited against every claim."""
    victims, half = scale.victims, 1 if scale.complete else 2
    for i in range(6 // half):
        yield independent(scale, "plain, other data", 5000 + i)
    for i in range(2 * victims // half):
        yield independent(scale, "plain, a victim's own data", 5020 + i, source=f"private_{i % victims}")
    every = ("small_wide", "small_deep", "small_vgg", "small_mobilenet", "small_vit")
    archs = (*every, *every) if scale.complete else ("small_wide", "small_vgg", "small_mobilenet")
    for i, arch in enumerate(archs):
        source = "others" if i < 5 else f"private_{i % victims}"
        yield independent(scale, "other architecture", 5040 + i, arch=arch, source=source)
    for j, objective in enumerate(("simsiam", "barlow", "supervised", "rotation", "rotated")):
        for i in range((6 if objective == "rotated" else 3) // half):
            source = "others" if i % 3 < 2 else f"private_{(j + i) % victims}"
            yield independent(scale, objective, 5060 + 10 * j + i, objective=objective, source=source)
    for watermark, kind in (("secret", "foreign secret key"), ("paper", "public half-turn task")):
        for i in range(8 if scale.complete else 2):
            source = "others" if i % 2 else f"private_{i // 2}"
            yield independent(
                scale, kind, (5200 if watermark == "secret" else 5220) + i, watermark=watermark, source=source
            )
    first, last = (f"private_{v}" for v in (scale.fine_tuned[0], scale.fine_tuned[-1]))
    for i, (source, watermark) in enumerate(
        [
            *((first, "none"), (last, "none"), ("others", "none")),
            *((first, "secret"), (last, "paper"), ("others", "secret")),
        ]
    ):
        fields = {
            "source": source,
            "watermark": watermark,
            "base_checkpoint": checkpoint,
            "epochs": scale.fine_tune_epochs,
        }
        yield independent(scale, "fine-tune of the public checkpoint", 5240 + i, **fields)
    for i, source in enumerate((last, "others")):
        fields = {
            "source": source,
            "objective": "rotated",
            "base_checkpoint": checkpoint,
            "epochs": scale.fine_tune_epochs,
        }
        yield independent(scale, "fine-tune of it on rotated views", 5250 + i, **fields)
    common = {
        "source": "queries",
        "images": scale.usual_queries,
        "epochs": scale.extraction_epochs,
        "base_checkpoint": checkpoint,
    }
    for i, (loss, method) in enumerate(product(("mse", "infonce"), ("direct", "rotated"))):
        fields = {"objective": DISTILLED, "loss": loss, "method": method, **common}
        yield independent(scale, "distilled from the public checkpoint", 5310 + i, **fields)
    for i, arch in enumerate((scale.arch, "small_vgg", "small_vit")):
        yield independent(scale, "untrained", 5260 + i, arch=arch, objective="untrained")
    for i, images in enumerate((1000, 2048, 5000, 10_000)):
        epochs = epochs_for(images, scale.extraction_epochs, scale.usual_queries)
        fields = {"source": "queries", "images": images, "epochs": epochs}
        yield independent(scale, "the attacker's queries", 5280 + i, **fields)
        if images > 1000:  # an attacker with labels could have trained these
            yield independent(scale, "the attacker's queries", 5290 + i, objective="supervised", **fields)
            yield independent(scale, "the attacker's queries", 5280 + i, objective=DISTILLED, loss="supcon", **fields)
    if scale.public_encoders:
        yield from (public_encoder(scale, name) for name in PUBLIC_ENCODERS)


def surrogate(scale: Scale, victim: int, kind: str, seed: int, **fields: Any) -> ModelSpec:
    """Return the spec of a surrogate; with fewer queries it is trained for more epochs."""
    images = fields.get("images", scale.usual_queries)
    epochs = epochs_for(images, scale.extraction_epochs, scale.usual_queries) * fields.pop("longer", 1)
    return ModelSpec(
        **{
            "role": "surrogate",
            "kind": kind,
            "arch": scale.arch,
            "source": "queries",
            "images": images,
            "epochs": epochs,
            "seed": 7000 + 100 * victim + seed,
            **fields,
        }
    )


LOSSES = ("mse", "infonce", "softnn", "wasserstein", "supcon", "barlow", "symmetrized")
ARCHS = ("small_vgg", "small_mobilenet", "small_vit", "small_deep")


def surrogates(scale: Scale, victim: int) -> Iterator[ModelSpec]:
    """Yield 16 surrogates of one victim: each loss once with a random number of queries, and nine variations."""
    draw = random.Random(victim)
    for i, loss in enumerate(LOSSES):
        yield surrogate(scale, victim, "direct", i, loss=loss, images=draw.choice((2048, 5000, 10_000)))
    main = ("mse", "infonce", "softnn")
    yield surrogate(scale, victim, "few queries", 10, loss=draw.choice(main), images=1000)
    yield surrogate(scale, victim, "direct", 11, loss="infonce", images=10_000)
    # MSE needs the victim's representation dimension, 128
    for i, arch in enumerate(draw.sample(ARCHS, 3)):
        yield surrogate(scale, victim, "other architecture", 12 + i, loss=draw.choice(main), arch=arch)
    for i in range(2):
        images = draw.choice((2048, 5000))
        yield surrogate(scale, victim, "other distribution", 15 + i, loss=main[i], source="foreign", images=images)
    yield surrogate(scale, victim, "augmented queries", 17, loss=draw.choice(main), view="standard", images=2048)
    for i in range(2):
        yield surrogate(scale, victim, "rotated queries", 18 + i, loss=main[i], view="rotation", images=2048)


def rotation_invariant(scale: Scale, victim: int) -> Iterator[ModelSpec]:
    """Yield the rotation-invariant surrogates: two losses, two methods, short and long training."""
    for i, loss in enumerate(("mse", "infonce")):
        for longer in (1, 2):
            yield surrogate(scale, victim, "rotation-invariant", 30 + i, loss=loss, method="rotated", longer=longer)
        if victim < 2:  # the stronger views cost more than they hide (development): two victims suffice
            yield surrogate(scale, victim, "rotation-invariant", 30 + i, loss=loss, method="rotation-invariant")


WEIGHT_TRANSFORMS = (
    "prune:30",
    "prune:50",
    "prune:70",
    "fine_tune:1",
    "fine_tune:3",
    "fine_tune:5",
    "distil:infonce:small_vgg",
)
OUTPUT_TRANSFORMS = ("permute", "rotate_basis", "scale", "pad", "pca", "project", "halve", "quantise", "noisy")


def weight_transformed(scale: Scale, victim: int) -> Iterator[ModelSpec]:
    """Yield two surrogates (MSE, InfoNCE) after each weight transform."""
    for i, loss in enumerate(("mse", "infonce")):
        for step in WEIGHT_TRANSFORMS:
            yield surrogate(scale, victim, "transformed weights", 40 + i, loss=loss, weight_transforms=(step,))
