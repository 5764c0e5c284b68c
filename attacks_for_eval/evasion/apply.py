"""The named evasions, and their application to a surrogate by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from torch import nn

from attacks_for_eval.evasion import appended, fitted, merging, nonlinear, outputs, queries, retraining, weights
from attacks_for_eval.evasion.attacker import Attacker
from ownership.encoders.images import EncoderLike
from ownership.errors import TrainingError

Need = Literal["images", "labels", "encoder", "checkpoint", "probes"]
"""What an evasion needs beside the surrogate, fields of `Attacker`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evasion:
    """A named transform of a surrogate.

    Attributes:
        make: `(encoder, attacker)` or `(encoder, attacker, argument)` -> encoder.
        what: what the attacker does, in a few words.
        source: where it is from.
        needs: what it needs beside the surrogate.
        weights: whether it changes weights; otherwise it is a wrapper around the surrogate.
        lossless: whether a well-conditioned affine map inverts it, so that a linear classifier loses nothing.
        argument: of what follows a colon: float for a number, or the names that it may be; None if nothing may.
    """

    make: Callable[..., nn.Module]
    what: str
    source: str = "adaptive"
    needs: tuple[Need, ...] = ()
    weights: bool = False
    lossless: bool = False
    argument: type[float] | tuple[str, ...] | None = None


_IMAGES: tuple[Need, ...] = ("images",)
_BOTH: tuple[Need, ...] = ("images", "encoder")
_PROBES: tuple[Need, ...] = ("images", "encoder", "probes")
_LABELED: tuple[Need, ...] = ("images", "labels")
_REVIEW = "adversarial review of Turnmark, 2026"

EVASIONS: dict[str, Evasion] = {
    # wrappers that are drawn at random
    "permute": Evasion(make=outputs.permute, what="reorders components", lossless=True),
    "rotate_basis": Evasion(make=outputs.rotate_basis, what="takes a random orthonormal basis", lossless=True),
    "scale": Evasion(make=outputs.scale, what="scales and shifts components", lossless=True),
    "pad": Evasion(make=outputs.pad, what="inserts constants", lossless=True),
    "project": Evasion(make=outputs.project, what="keeps d / 2 random directions"),
    "rounded": Evasion(make=outputs.rounded, what="rounds to one decimal"),
    "normalized": Evasion(make=outputs.normalized, what="scales to length 1"),
    "noisy": Evasion(make=outputs.noisy, what="adds noise of N % of the length", argument=float),
    "random_lengths": Evasion(
        make=outputs.random_lengths, what="stretches by exp(N x hash)", source=_REVIEW, argument=float
    ),
    # linear and local maps, fitted on the attacker's images
    "pca": Evasion(make=fitted.pca, what="keeps N % of the principal components", needs=_IMAGES, argument=float),
    "drop_leading": Evasion(
        make=fitted.drop_leading, what="drops N leading components", source=_REVIEW, needs=_IMAGES, argument=float
    ),
    "spectrum": Evasion(
        make=fitted.spectrum,
        what="divides components by their standard deviation to the power N",
        source=_REVIEW,
        needs=_IMAGES,
        argument=float,
    ),
    "reverse_spectrum": Evasion(
        make=fitted.reverse_spectrum,
        what="makes the smallest component the largest",
        source=_REVIEW,
        needs=_IMAGES,
    ),
    "average": Evasion(make=fitted.average, what="averages with an own encoder", needs=_BOTH),
    "subtract_own": Evasion(
        make=fitted.subtract_own, what="subtracts what an own encoder predicts", source=_REVIEW, needs=_BOTH
    ),
    "blend_centroids": Evasion(
        make=fitted.blend_centroids, what="moves N % of the way to a centroid", needs=_IMAGES, argument=float
    ),
    "codes": Evasion(
        make=fitted.codes,
        what="quantises groups of N components",
        source="Jegou et al., PAMI 2011",
        needs=_IMAGES,
        argument=float,
    ),
    "drop_distinctive": Evasion(
        make=fitted.drop_distinctive,
        what="CSE: drops N directions that an own encoder lacks",
        source="Shetty et al., ACL 2024",
        needs=_BOTH,
        argument=float,
    ),
    # nonlinear maps
    "activation": Evasion(
        make=nonlinear.activation,
        what="applies tanh, exp, ... to components",
        source=_REVIEW,
        needs=_IMAGES,
        argument=tuple(nonlinear.ACTIVATIONS),
    ),
    "relu_features": Evasion(
        make=nonlinear.relu_features, what="N ReLU features instead", source=_REVIEW, needs=_IMAGES, argument=float
    ),
    "signs": Evasion(
        make=nonlinear.signs, what="signs of N projections instead", source=_REVIEW, needs=_IMAGES, argument=float
    ),
    "random_network": Evasion(
        make=nonlinear.random_network, what="adds N random layers", source=_REVIEW, needs=_IMAGES, argument=float
    ),
    "coupling": Evasion(
        make=nonlinear.coupling,
        what="adds N coupling layers, a bijection",
        source="Dinh et al., ICLR 2017",
        needs=_IMAGES,
        argument=float,
    ),
    "tanh_residual": Evasion(
        make=nonlinear.tanh_residual, what="adds N x tanh of a rotation, a bijection", needs=_IMAGES, argument=float
    ),
    "half_planes": Evasion(
        make=nonlinear.half_planes,
        what="moves one side of N hyperplanes",
        source="Davari et al., ICLR 2023",
        needs=_IMAGES,
        argument=float,
    ),
    "ranks": Evasion(make=nonlinear.ranks, what="ranks instead of values", source=_REVIEW, needs=_IMAGES),
    # other columns, larger than the surrogate's
    "append_own": Evasion(
        make=appended.append_own, what="an own encoder, N times as large", source=_REVIEW, needs=_BOTH, argument=float
    ),
    "append_own_white": Evasion(
        make=appended.append_own_white, what="an own encoder, both whitened", source=_REVIEW, needs=_BOTH
    ),
    "append_own_relu": Evasion(
        make=appended.append_own_relu, what="N ReLU features of an own encoder", needs=_BOTH, argument=float
    ),
    "replace_half": Evasion(
        make=appended.replace_half,
        what="adds an own encoder, N times as large, in half of the directions",
        source=_REVIEW,
        needs=_BOTH,
        argument=float,
    ),
    "append_random_features": Evasion(
        make=appended.append_random_features,
        what="64 features of an untrained network, N times as large",
        source=_REVIEW,
        needs=_IMAGES,
        argument=float,
    ),
    "append_pixels": Evasion(
        make=appended.append_pixels, what="N projections of the image", source=_REVIEW, needs=_IMAGES, argument=float
    ),
    "append_hash": Evasion(
        make=appended.append_hash, what="N columns of noise", source=_REVIEW, needs=_IMAGES, argument=float
    ),
    "append_products": Evasion(
        make=appended.append_products,
        what="products of leading components, N times as large",
        source=_REVIEW,
        needs=_IMAGES,
        argument=float,
    ),
    # wrappers that look at the query
    "unrotate": Evasion(make=queries.unrotate, what="rotates each query back first", needs=_BOTH),
    "mean_of_rotations": Evasion(make=queries.mean_of_rotations, what="the mean over N rotations", argument=float),
    "gate": Evasion(make=queries.gate, what="answers rotated images with an own encoder", needs=_BOTH),
    "gate_probes": Evasion(make=queries.gate_probes, what="answers known probes with an own encoder", needs=_PROBES),
    # weights, without training
    "prune": Evasion(make=weights.prune, what="sets N % of the weights to zero", weights=True, argument=float),
    "quantise": Evasion(make=weights.quantize, what="weights of N bits", weights=True, argument=float),
    "halve": Evasion(make=weights.halve, what="weights in float16", weights=True),
    "drop_channels": Evasion(
        make=weights.drop_channels,
        what="zeroes channels N deviations above the mean Lipschitz bound",
        source="Zheng et al., ECCV 2022",
        weights=True,
        argument=float,
    ),
    "merge": Evasion(
        make=merging.merge,
        what="takes N % of the checkpoint's weights",
        source="Yamabe et al., ACL 2025",
        needs=("images", "checkpoint"),
        weights=True,
        argument=float,
    ),
    "ties": Evasion(
        make=merging.ties,
        what="merges N % of its and an own encoder's changes of the checkpoint",
        source="Yadav et al., NeurIPS 2023",
        needs=("images", "encoder", "checkpoint"),
        weights=True,
        argument=float,
    ),
    # weights, with training on labels
    "supervised": Evasion(
        make=retraining.supervised,
        what="fine-tunes to labels for N epochs",
        source=_REVIEW,
        needs=_LABELED,
        weights=True,
        argument=float,
    ),
    "lora": Evasion(
        make=retraining.lora,
        what="the same by changes of rank 8",
        source="Hu et al., ICLR 2022",
        needs=_LABELED,
        weights=True,
        argument=float,
    ),
    "sam": Evasion(
        make=retraining.sam,
        what="the same, sharpness-aware",
        source="Foret et al., ICLR 2021",
        needs=_LABELED,
        weights=True,
        argument=float,
    ),
    "attention": Evasion(
        make=retraining.attention,
        what="the same, towards an own encoder's attention maps",
        source="Li et al., ICLR 2021",
        needs=("images", "labels", "encoder"),
        weights=True,
        argument=float,
    ),
    "wrk": Evasion(
        make=retraining.wrk,
        what="a new last layer, trained away from the old one for N epochs",
        source="WRK, arXiv 2511.07947, adapted",
        needs=("images", "labels", "encoder"),
        weights=True,
        argument=float,
    ),
}
"""Name -> evasion. In text an argument follows a colon, and a plus joins evasions: `append_own:10+rotate_basis`."""


def parse(chain: str) -> list[tuple[Evasion, tuple[Any, ...]]]:
    """Return the evasions of a chain with their arguments.

    >>> [(evasion.what, arguments) for evasion, arguments in parse("prune:50+permute")]
    [('sets N % of the weights to zero', (50.0,)), ('reorders components', ())]

    Raises:
        TrainingError: if a name is unknown, an argument is malformed, or weights are changed after outputs.
    """
    steps: list[tuple[Evasion, tuple[Any, ...]]] = []
    for step in chain.split("+"):
        name, colon, argument = step.partition(":")
        if name not in EVASIONS:
            near = get_close_matches(name, EVASIONS, n=1)
            raise TrainingError(f"unknown transform {name!r}", f"did you mean {near[0]}?" if near else _KNOWN)
        evasion = EVASIONS[name]
        if evasion.weights and any(not before.weights for before, _ in steps):
            raise TrainingError(f"{name} changes weights and must come before transforms of outputs")
        steps.append((evasion, (_argument(step, evasion, argument),) if colon else ()))
    return steps


def _argument(step: str, evasion: Evasion, text: str) -> float | str:
    """Return the argument of a step, checked."""
    if evasion.argument is None:
        raise TrainingError(f"{step!r}: it takes no argument", "leave it out")
    if isinstance(evasion.argument, tuple):
        if text not in evasion.argument:
            raise TrainingError(f"{step!r}: unknown {text!r}", f"one of: {', '.join(evasion.argument)}")
        return text
    try:
        value = float(text)
    except ValueError as e:
        raise TrainingError(f"{step!r} is malformed", "a number follows the colon, as in append_own:10") from e
    if not 0 < value < float("inf"):
        raise TrainingError(f"the argument of {step!r} is out of range", "above 0")
    return value


_KNOWN = f"any of: {', '.join(EVASIONS)}"


def needs_checkpoint(chain: str) -> bool:
    """Return whether a chain merges with the checkpoint that the surrogate was started from."""
    return any("checkpoint" in evasion.needs for evasion, _ in parse(chain))


def lossless(chain: str) -> bool:
    """Return whether an affine map inverts a chain of evasions."""
    return all(evasion.lossless for evasion, _ in parse(chain))


def evade(encoder: EncoderLike, chain: str, attacker: Attacker | None = None) -> EncoderLike:
    """Return the surrogate after a chain of evasions, in order; those of weights come first.

    >>> evade(lambda images: images.flatten(1), "permute+halve")
    Traceback (most recent call last):
    ownership.errors.TrainingError: halve changes weights and must come before transforms of outputs

    Args:
        encoder: the surrogate; it is not changed.
        chain: names in `EVASIONS`, joined by a plus, each with its argument after a colon.
        attacker: what the attacker has beside the surrogate.

    Raises:
        TrainingError: if the chain is malformed, or the attacker lacks what an evasion needs.
    """
    for evasion, arguments in parse(chain):
        encoder = evasion.make(encoder, attacker or Attacker(), *arguments)
    return encoder
