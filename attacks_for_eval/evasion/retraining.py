"""Training a surrogate further on the attacker's own, labeled images, so that it forgets the victim.

All share one loop, `_retrained`. What they ship is the encoder; the classifier on top is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attacks_for_eval.evasion.attacker import Attacker
from attacks_for_eval.evasion.weights import copy_of, matrices
from ownership.encoders.images import EncoderLike, as_input, represent, three_channels
from ownership.errors import TrainingError
from ownership.watermark import TURN, rotate
from watermark_training.augment import crop_view
from watermark_training.device import seeded

BATCH = 128
RANK = 8
"""Of the low-rank changes of `lora`."""
RHO = 0.05
"""Radius of `sam`."""
ATTENTION = 100.0
"""Weight of the distance of attention maps."""
PERTURBED = 0.03
"""Size of the perturbation of each pixel in `wrk`."""
ALIGNED = 0.05
"""Weight of what the last layer's weights keep of their old values, `alpha` of WRK."""


def supervised(encoder: EncoderLike, attacker: Attacker, epochs: float = 20) -> nn.Module:
    """Return the encoder fine-tuned to the labels, all layers, Adam with learning rate 1e-4."""
    return _retrained(copy_of(encoder), attacker, int(epochs))


def lora(encoder: EncoderLike, attacker: Attacker, epochs: float = 20) -> nn.Module:
    """Return the encoder fine-tuned to the labels by changes of rank 8 of each weight matrix.

    References:
        [1] Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022; convolutions as matrices
            `(out, in x height x width)`.
    """
    out = copy_of(encoder).requires_grad_(False)
    with seeded(attacker.generator()):
        adapted = [m for m in out.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        for module in adapted:
            parametrize.register_parametrization(module, "weight", _LowRank(module.weight))
    changes = [p for m in adapted for p in m.parametrizations.weight[0].parameters()]  # type: ignore[union-attr,index]
    found = _retrained(out, attacker, int(epochs), _Recipe(lr=1e-3, trained=changes))
    for module in adapted:
        parametrize.remove_parametrizations(module, "weight")
    return found


def sam(encoder: EncoderLike, attacker: Attacker, epochs: float = 10) -> nn.Module:
    """Return the encoder fine-tuned to the labels with sharpness-aware minimization (Foret et al., ICLR 2021)."""
    return _retrained(copy_of(encoder), attacker, int(epochs), _Recipe(rho=RHO))


def attention(encoder: EncoderLike, attacker: Attacker, epochs: float = 10) -> nn.Module:
    """Return the encoder fine-tuned to the labels and to the attention maps of the attacker's own encoder.

    An attention map is the mean over channels of squared activations, scaled to length 1. Maps of one size are compared
    where both encoders compute it last.

    References:
        [1] Li et al., Neural Attention Distillation, ICLR 2021, equations 1 and 3.
    """
    out, own = copy_of(encoder), copy_of(attacker.own_encoder()).requires_grad_(False)

    def distance(module: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = attention_maps(own, x)
        ours = attention_maps(module, x)
        shared = ours.keys() & theirs.keys()
        if not shared:
            raise TrainingError("the encoders have no attention maps of one size", "convolutional ones are needed")
        return ATTENTION * torch.stack([(ours[s] - theirs[s]).square().mean() for s in shared]).mean()

    return _retrained(out, attacker, int(epochs), _Recipe(further=distance))


def wrk(encoder: EncoderLike, attacker: Attacker, epochs: float = 10) -> nn.Module:
    """Return the encoder with its last layer drawn anew and trained away from what a watermark may use.

    On rotated images, perturbed against it, it has to represent what the attacker's own encoder does; clean ones it has
    to classify; and the last layer's weights must not point where they did.

    References:
        [1] The removal attack WRK of Class-Feature Watermark, arXiv 2511.07947, 2025; for classifiers, adapted here.
    """
    out, own = copy_of(encoder), attacker.own_encoder()
    generator, last = attacker.generator(), matrices(out)[-1]
    before = last.detach().clone()
    with seeded(generator), torch.no_grad():
        last.copy_(torch.randn(last.shape) * before.std())
    d_own = represent(own, attacker.own_images()[:1]).shape[1]
    with seeded(generator):
        head = nn.Linear(represent(out, attacker.own_images()[:1]).shape[1], d_own)

    def away(module: nn.Module, x: Tensor) -> Tensor:
        rotated = rotate(x, torch.rand(len(x), generator=generator) * TURN).requires_grad_(True)
        with torch.no_grad():
            target = F.layer_norm(own(rotated).float(), (d_own,))
        (uphill,) = torch.autograd.grad(F.mse_loss(head(module(rotated)), target), rotated)
        shown = (rotated.detach() + PERTURBED * uphill.sign()).clamp(0, 1)
        aligned = F.cosine_similarity(last.flatten(), before.flatten(), dim=0)
        return F.mse_loss(head(module(shown)), target) + ALIGNED * aligned

    return _retrained(out, attacker, int(epochs), _Recipe(further=away, heads=[head]))


def attention_maps(module: nn.Module, images: Tensor) -> dict[tuple[int, int], Tensor]:
    """Return size -> the last attention maps of that size, `(n, height x width)` of length 1; larger than 1 x 1."""
    found: dict[tuple[int, int], Tensor] = {}

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            maps = output.square().mean(1).flatten(1)
            found[output.shape[-2], output.shape[-1]] = F.normalize(maps, dim=1)

    hooks = [m.register_forward_hook(keep) for m in module.modules() if not list(m.children())]
    try:
        module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class _LowRank(nn.Module):
    """weight -> weight + B A, with A `(rank, in)` and B `(out, rank)`; B is zero at first."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        out, rest = len(weight), weight[0].numel()
        rank = min(RANK, out, rest)
        self.a = nn.Parameter(torch.randn(rank, rest) / rest**0.5)
        self.b = nn.Parameter(torch.zeros(out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


Further = Callable[[nn.Module, Tensor], Tensor]
"""(encoder, images) -> a further loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """How a retraining differs from supervised fine-tuning.

    Attributes:
        lr: Adam's learning rate.
        rho: radius of sharpness-aware minimization; 0 for none.
        further: a further loss.
        trained: parameters of the encoder that are trained; all if None.
        heads: further modules that are trained and thrown away.
    """

    lr: float = 1e-4
    rho: float = 0.0
    further: Further | None = None
    trained: list[nn.Parameter] | None = None
    heads: list[nn.Module] | None = None


def _retrained(out: nn.Module, attacker: Attacker, epochs: int, recipe: _Recipe = _Recipe()) -> nn.Module:
    """Train an encoder in place to classify the attacker's images, and return it in eval mode."""
    images, labels = attacker.own_images(), attacker.own_labels()
    generator = attacker.generator()
    with seeded(generator):
        classify = nn.Linear(represent(out, images[:2]).shape[1], int(labels.max()) + 1)
    trained = list(out.parameters()) if recipe.trained is None else recipe.trained
    parameters = [*trained, *classify.parameters(), *(p for h in recipe.heads or [] for p in h.parameters())]
    optimizer = torch.optim.Adam(parameters, lr=recipe.lr)
    size = min(BATCH, len(images))
    steps = epochs * (len(images) // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, steps))
    out.train()
    for step in range(steps):
        if step % (len(images) // size) == 0:
            order = torch.randperm(len(images), generator=generator)
        at = step % (len(images) // size) * size
        rows = order[at : at + size]
        x = three_channels(crop_view(as_input(images[rows]), generator))

        def loss(x: Tensor = x, rows: Tensor = rows) -> Tensor:
            value = F.cross_entropy(classify(out(x)), labels[rows])
            return value if recipe.further is None else value + recipe.further(out, x)

        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        if recipe.rho:
            _ascend_and_differentiate(loss, parameters, recipe.rho)
        optimizer.step()
        schedule.step()
        attacker.progress("retraining", step + 1, steps)
    return out.requires_grad_(True).eval()


def _ascend_and_differentiate(loss: Callable[[], Tensor], parameters: list[nn.Parameter], rho: float) -> None:
    """Replace gradients by those at the worst point within rho, to first order (Foret et al., 2021, equation 2)."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(()))).clamp_min(1e-12)
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            p.add_(g, alpha=float(rho / norm))
    for p in parameters:
        p.grad = None
    loss().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            p.sub_(g, alpha=float(rho / norm))
