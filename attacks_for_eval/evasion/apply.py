"""Apply transforms of weights and of outputs by name."""

from __future__ import annotations

from collections.abc import Sequence

from attacks_for_eval.evasion.outputs import OUTPUT_TRANSFORMS
from attacks_for_eval.evasion.weights import WEIGHT_TRANSFORMS
from ownership.encoders.images import EncoderLike
from ownership.errors import TrainingError


def apply_transforms(encoder: EncoderLike, names: Sequence[str], *, seed: int = 0) -> EncoderLike:
    """Return the encoder after the named transforms, in order; those of weights must come first.

    >>> apply_transforms(lambda images: images.flatten(1), ["permute", "halve"])
    Traceback (most recent call last):
    ownership.errors.TrainingError: halve changes weights and must come before transforms of outputs

    Raises:
        TrainingError: if a name is unknown, or a transform of weights follows one of outputs.
    """
    wrapped = False
    for name in names:
        if name not in OUTPUT_TRANSFORMS and name not in WEIGHT_TRANSFORMS:
            known = ", ".join((*WEIGHT_TRANSFORMS, *OUTPUT_TRANSFORMS))
            raise TrainingError(f"unknown transform {name!r}", f"any of: {known}")
        if name in WEIGHT_TRANSFORMS and wrapped:
            raise TrainingError(f"{name} changes weights and must come before transforms of outputs")
        wrapped = wrapped or name in OUTPUT_TRANSFORMS
        encoder = (OUTPUT_TRANSFORMS.get(name) or WEIGHT_TRANSFORMS[name])(encoder, seed)
    return encoder
