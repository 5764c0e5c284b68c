"""The models of the key's benchmark: those of `benchmarks.verdicts`, their victims with a keyed watermark, and more.

Victims are trained on the same images as there, and draw their probes from the same public images. No panel is needed.
To the surrogates of `benchmarks.verdicts` come attacks of the literature that augment the queries, and a surrogate
whose owner embeds a key of its own. To the independent encoders come those with a foreign keyed watermark, and the
victims of the other claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attacks_for_eval.evaluation.spec import ModelSpec
from benchmarks.verdicts import suspects
from benchmarks.verdicts.bench import FIRST
from benchmarks.verdicts.design import Scale, independent

OVERWRITE = "embed:8"
"""The weight transform that embeds a key of the attacker's own (the default epochs of `turnmark embed`)."""


@dataclass(frozen=True, slots=True)
class Task:
    """One model that is made once, and what is measured with it.

    Attributes:
        spec: of the model.
        victim: whose surrogate it is; None for an independent encoder, which is tested with every key.
        outputs: transforms of its outputs, each measured; "" is none.
    """

    spec: ModelSpec
    victim: int | None
    outputs: tuple[str, ...] = ("",)


def surrogates(scale: Scale, victim: int) -> Iterator[Task]:
    """Yield the surrogates of a victim: those of `benchmarks.verdicts`, then the further ones."""
    for i, spec in enumerate(suspects.surrogates(scale, victim)):
        outputs = ("", *suspects.OUTPUT_TRANSFORMS, "average")
        yield Task(spec, victim, outputs[: 11 if i < 2 else 10 if i < 3 else 1])
    for i, method in enumerate(("augmented", "augmented", "stolen-encoder", "cont-steal")):
        loss = ("mse", "infonce", "mse", "infonce")[i]
        yield Task(suspects.surrogate(scale, victim, "augmented", 60 + i, loss=loss, method=method), victim)
    yield from (Task(spec, victim) for spec in suspects.rotation_invariant(scale, victim))
    yield from (Task(spec, victim) for spec in suspects.weight_transformed(scale, victim))
    for i, loss in enumerate(("mse", "infonce")):
        yield Task(
            suspects.surrogate(scale, victim, "overwritten", 40 + i, loss=loss, weight_transforms=(OVERWRITE,)), victim
        )


def independents(scale: Scale, checkpoint: str) -> Iterator[Task]:
    """Yield the independent encoders: those of `benchmarks.verdicts`, then those with a keyed watermark."""
    specs = list(suspects.independents(scale, checkpoint))
    for first in (True, False):  # those that usefulness is measured against
        yield from (Task(spec, None) for spec in specs if (spec.kind in FIRST) is first)
    for i in range(6 if scale.complete else 2):
        source = "others" if i % 2 else f"private_{i // 2 % scale.victims}"
        spec = independent(scale, "foreign keyed watermark", 5330 + i, watermark="keyed", source=source)
        yield Task(spec, None)
